//! Processes: fork, exec with a report of what failed, kill and wait by identity.
//!
//! Every role is a single-threaded process, so a forked child may allocate and run any code. Each
//! process waits only for children that it made itself; PID 1 alone drains the rest ([`reap_any`]).

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};
use thiserror::Error;

/// A child of this process, known by a descriptor so that its number can never mean somebody else.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By exit(2) with this status.
    Code(i32),
    /// By this signal; a plain number, as real-time signals have no name.
    Signal(i32),
}

impl Exit {
    /// Whether it is the success of a script or program.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// As four bytes for a pipe between processes, in the form of wait(2).
    pub fn to_bytes(self) -> [u8; 4] {
        let status = match self {
            Self::Code(code) => (code & 0xff) << 8,
            Self::Signal(number) => number & 0x7f,
        };
        status.to_ne_bytes()
    }

    /// From such bytes.
    pub fn from_bytes(bytes: [u8; 4]) -> Self {
        decode(i32::from_ne_bytes(bytes))
    }

    /// Its status, if it exited.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

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

/// Forks; the child runs `body` and exits with what it returns.
///
/// # Errors
/// `EBUSY` when this process has a second thread (its locks would be copied in whatever state they are),
/// else those of fork(2) and pidfd_open(2).
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Child> {
    alone()?;
    // SAFETY: this process has one thread (checked above where /proc is mounted; before that, no code has
    // run that could start one), so the child finds no lock held by a thread that does not exist in it.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => leave_after(body),
        ForkResult::Parent { child } => Ok(Child { pid: child, pidfd: pidfd_open(child)? }),
    }
}

/// Where a child starts that is to be apart from everybody else.
#[derive(Clone, Copy, Debug)]
pub struct Apart<'a> {
    /// Its cgroup, a directory; it never was in another.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Its own namespaces.
    pub namespaces: CloneFlags,
}

/// struct clone_args of linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks into a cgroup and namespaces; the child runs `body` and exits with what it returns.
///
/// # Errors
/// As [`fork`], and those of clone3(2): there is no fallback to less.
pub fn fork_apart(apart: &Apart<'_>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    alone()?;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64 | apart.namespaces.bits() as u64,
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = apart.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // The C library's fork would tell its copy of this thread its new number, which nothing here asks for; a fork of the
    // child's own sets it right.
    // SAFETY: without a stack and without CLONE_VM this is fork(2): the child has a copy of everything. `args` is a live
    // struct of the given size, `pidfd` a live int. One thread, as checked above.
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        leave_after(body);
    }
    // SAFETY: the call succeeded, so pidfd is a new descriptor that nobody else owns; it closes on exec.
    Ok(Child { pid: Pid::from_raw(pid as i32), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// A forked process would have copies of locks that other threads hold.
fn alone() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(Errno::EBUSY.into());
    }
    Ok(())
}

/// The life of a forked child.
fn leave_after(body: impl FnOnce() -> i32) -> ! {
    // The parent's way of dying (PID 1's turns the machine off) is not the child's: it says so and aborts.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("process {} failed at {place}", std::process::id());
    }));
    leave(body())
}

/// Said by one that only sees that another has failed.
pub const WITNESS: Errno = Errno::ECHILD;

/// The first report that is not a witness', or that if there is no other.
fn cause(mut reports: &[u8]) -> Option<StageError> {
    let mut witness = None;
    while let Some((errno, rest)) = reports.split_first_chunk::<4>() {
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        let stage = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
        let error = StageError { stage, errno: Errno::from_raw(i32::from_ne_bytes(*errno)) };
        if error.errno != WITNESS {
            return Some(error);
        }
        witness.get_or_insert(error);
        reports = rest.get(end + 1..).unwrap_or_default();
    }
    witness
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
        cause(&report).map_or(Ok(()), |error| Err(error.into()))
    }
}

impl AsFd for Starting {
    /// Readable once [`Starting::result`] does not wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

/// Ends this process at once: no destructor of the parent's copied state runs.
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

impl Child {
    /// The process id; valid until [`Child::try_wait`] has returned a status.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; a child that is gone already is no error.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2) but ESRCH.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let fd = self.pidfd.as_raw_fd();
        // SAFETY: fd is an open pidfd, the siginfo may be null, and flags must be 0.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The status, if the child has ended.
    ///
    /// # Errors
    /// Those of waitpid(2); ECHILD means that somebody else took the status, which is a bug.
    pub fn try_wait(&self) -> io::Result<Option<Exit>> {
        self.waitpid(libc::WNOHANG)
    }

    /// Waits for the end without a deadline: only for a child that is known to be dying.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub fn wait(&self) -> io::Result<Exit> {
        loop {
            match self.waitpid(0) {
                Ok(Some(exit)) => return Ok(exit),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn waitpid(&self, flags: i32) -> io::Result<Option<Exit>> {
        let mut status = 0;
        // SAFETY: the pointer is to a live int.
        let pid = Errno::result(unsafe { libc::waitpid(self.pid.as_raw(), &raw mut status, flags) })?;
        Ok((pid > 0).then(|| decode(status)))
    }
}

impl AsFd for Child {
    /// Readable once the child has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What PID 1's reaper found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// A child has ended, whoever made it.
    Ended(Pid, Exit),
    /// All that are left still run.
    Running,
    /// There is no child: no process of user space but this one.
    Nobody,
}

/// PID 1's reaper.
///
/// nix's `waitpid` is of no use here: it has no name for real-time signals and loses both the pid and the
/// status of a process that died of one.
pub fn reap_any() -> Reaped {
    let mut status = 0;
    // SAFETY: the pointer is to a live int.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        0 => Reaped::Running,
        pid if pid > 0 => Reaped::Ended(Pid::from_raw(pid), decode(status)),
        _ => Reaped::Nobody,
    }
}

fn decode(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the call succeeded, so fd is a new descriptor that nobody else owns; it closes on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Test threads make the process multi-threaded, which fork refuses; the behaviour of fork, spawn and wait
    // is tested in tests/process.rs, whose binary has one thread.

    #[test]
    fn of_several_reports_the_cause_is_told() {
        let report = |errno: Errno, stage: &str| [&(errno as i32).to_ne_bytes(), stage.as_bytes(), b"\0"].concat();
        let (witness, first, second) =
            (report(WITNESS, "keeper"), report(Errno::EPERM, "setgroups"), report(Errno::EINVAL, "capset"));
        let told = |reports: &[&[u8]]| cause(&reports.concat()).map(|error| error.stage);
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[&witness]).as_deref(), Some("keeper"));
        assert_eq!(told(&[&witness, &first, &second]).as_deref(), Some("setgroups"));
        assert_eq!(told(&[&first[..first.len() - 1]]).as_deref(), Some("setgroups"));
    }

    #[test]
    fn ends_are_told_in_words() {
        assert_eq!(Exit::Code(3).to_string(), "exit 3");
        assert_eq!(Exit::Signal(9).to_string(), "killed by SIGKILL");
        assert_eq!(Exit::Signal(37).to_string(), "killed by signal 37");
        assert_eq!(decode(0x0300), Exit::Code(3));
        assert_eq!(decode(37), Exit::Signal(37));
        for exit in [Exit::Code(0), Exit::Code(255), Exit::Signal(9), Exit::Signal(64)] {
            assert_eq!(Exit::from_bytes(exit.to_bytes()), exit);
        }
    }
}
