//! A child on its way to a program, and how it says what failed.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use thiserror::Error;

use crate::sys::apart::{Apart, fork_apart};
use crate::sys::process::{Child, fork};

/// A step of a child's way to its program failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{stage}: {errno}")]
pub struct StageError {
    /// What was being done, `setgroups` or `exec /usr/bin/work`.
    pub stage: String,
    /// Why it did not work.
    pub errno: Errno,
}

impl StageError {
    /// For `map_err`.
    pub fn at(stage: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { stage: stage.into(), errno }
    }
}

/// Why a program was not started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The parent's side: fork, pipe or pidfd.
    #[error("cannot start a process: {0}")]
    Fork(#[source] io::Error),
    /// The child's side; nothing of the program has run.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// What the first of several reports says; the later ones may only tell of its consequences.
fn first(reports: &[u8]) -> Option<StageError> {
    let (errno, rest) = reports.split_first_chunk::<4>()?;
    let stage = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let stage = String::from_utf8_lossy(stage).into_owned();
    Some(StageError { stage, errno: Errno::from_raw(i32::from_ne_bytes(*errno)) })
}

/// A child's way to say what failed on its way to a program.
#[derive(Debug)]
pub struct Report(File);

impl Report {
    /// Says it; returns the child's exit code.
    pub fn failed(&self, error: &StageError) -> i32 {
        let mut report = (error.errno as i32).to_ne_bytes().to_vec();
        report.extend_from_slice(error.stage.replace('\0', "").as_bytes());
        report.push(0);
        // Several may write: each at once, so that none comes between another's bytes.
        let _ = (&self.0).write_all(&report);
        125
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn report() -> Result<(File, Report), SpawnError> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| SpawnError::Fork(errno.into()))?;
    Ok((reader.into(), Report(writer.into())))
}

/// A child on its way to a program.
#[derive(Debug)]
pub struct Starting {
    /// It runs the program, or `steps`.
    pub child: Child,
    /// Closed by a successful exec, so end-of-file means that the program runs.
    report: File,
}

/// Forks; the child takes `steps` towards a program. One of them may hang: a file system that is gone keeps exec(2) for
/// ever.
///
/// # Errors
/// The parent's side alone.
pub fn begin(steps: impl FnOnce() -> Result<Infallible, StageError>) -> Result<Starting, SpawnError> {
    let (reader, report) = report()?;
    let child = fork(|| {
        let Err(error) = steps();
        report.failed(&error)
    })
    .map_err(SpawnError::Fork)?;
    Ok(Starting { child, report: reader })
}

/// The same in a place apart, for a child that starts others: whoever of them fails says so, and the program runs when
/// all have closed the report.
///
/// # Errors
/// The parent's side alone, clone3(2) by its name.
pub fn begin_apart(apart: &Apart<'_>, body: impl FnOnce(Report) -> i32) -> Result<Starting, SpawnError> {
    let (reader, report) = report()?;
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
    let child = fork_apart(apart, || body(report)).map_err(errno).map_err(StageError::at("clone3"))?;
    Ok(Starting { child, report: reader })
}

/// Forks; the child takes `steps` towards a program. Whatever step fails is reported here, and no program ran.
///
/// # Errors
/// [`SpawnError::Stage`] names the step and its errno.
pub fn spawn(steps: impl FnOnce() -> Result<Infallible, StageError>) -> Result<Child, SpawnError> {
    begin(steps)?.result()
}

impl Starting {
    /// Waits for the program to run, or for the report of what failed.
    ///
    /// # Errors
    /// [`SpawnError::Stage`] names the step and its errno.
    pub fn result(mut self) -> Result<Child, SpawnError> {
        match self.reported() {
            Ok(()) => Ok(self.child),
            Err(error @ SpawnError::Fork(_)) => Err(error),
            Err(error) => {
                self.child.wait().map_err(SpawnError::Fork)?;
                Err(error)
            }
        }
    }

    /// The same, and whose end it is to wait for the child is the caller's affair.
    ///
    /// # Errors
    /// [`SpawnError::Stage`] names the step and its errno.
    pub fn reported(&mut self) -> Result<(), SpawnError> {
        let mut report = Vec::new();
        self.report.read_to_end(&mut report).map_err(SpawnError::Fork)?;
        first(&report).map_or(Ok(()), |error| Err(error.into()))
    }
}

impl AsFd for Starting {
    /// Readable once [`Starting::result`] does not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_reports_the_first_is_told() {
        let report = |errno: Errno, stage: &str| [&(errno as i32).to_ne_bytes(), stage.as_bytes(), b"\0"].concat();
        let (cause, later) = (report(Errno::EPERM, "setgroups"), report(Errno::EINVAL, "keeper: ready"));
        let told = |reports: &[&[u8]]| first(&reports.concat());
        assert_eq!(told(&[]), None);
        let want = Some(StageError { stage: "setgroups".to_owned(), errno: Errno::EPERM });
        assert_eq!(told(&[&cause, &later]), want);
        assert_eq!(told(&[&cause[..cause.len() - 1]]), want);
    }
}
