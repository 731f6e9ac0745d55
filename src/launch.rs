//! The steps from a forked child to a program, and from root to a user without any privilege.
//!
//! Each step is mandatory: the first that fails is reported by name and errno, and the program does not
//! run. They are taken in a child that was just forked and has one thread.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setsid};

use crate::payload::steps::{self, Plan};
use crate::starting::StageError;
use crate::sys::credentials;
use crate::sys::signals;

/// What a child becomes.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its working directory.
    pub dir: &'a str,
    /// Absolute path and arguments.
    pub words: &'a [String],
    /// All of its environment.
    pub environment: &'a [(String, String)],
}

/// The search path of scripts and payloads.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The two ends of a program's output: ours does not block, the program's does.
///
/// # Errors
/// Those of pipe2(2).
pub fn output_pipe() -> nix::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader.into(), writer))
}

/// Own session, default signals, own cgroup; standard input empty, both outputs into `output`.
///
/// # Errors
/// The first step that fails.
pub fn detach(door: Option<&mut File>, output: &OwnedFd) -> Result<(), StageError> {
    signals::reset().map_err(StageError::at("reset signals"))?;
    // Without a controlling terminal there is none to inject input into (TIOCSTI).
    setsid().map_err(StageError::at("setsid"))?;
    if let Some(door) = door {
        door.write_all(b"0").map_err(errno).map_err(StageError::at("enter cgroup"))?;
    }
    streams(output.as_fd()).map_err(StageError::at("standard streams"))
}

/// Standard input empty, both outputs into `output`.
///
/// # Errors
/// Those of open(2) for `/dev/null`, and of dup2(2).
pub fn streams(output: BorrowedFd<'_>) -> Result<(), Errno> {
    let null = OpenOptions::new().read(true).open("/dev/null").map_err(errno)?;
    dup2_stdin(&null)?;
    dup2_stdout(output)?;
    dup2_stderr(output)
}

/// Closes every descriptor from 3 on but these.
///
/// # Errors
/// Those of close_range(2).
pub fn keep_only(keep: &[RawFd]) -> nix::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2).collect();
    keep.sort_unstable();
    let mut next = 3;
    for fd in keep {
        if fd > next {
            credentials::close_range(next..=fd - 1)?;
        }
        next = fd + 1;
    }
    credentials::close_range(next..=u32::MAX)
}

/// Gives up every privilege for good and makes sure of it.
///
/// # Errors
/// The first step that fails, or the first proof that is missing.
pub fn become_user(id: u32) -> Result<(), StageError> {
    steps::all(&Plan::role(id))
}

/// Words and variables as the kernel takes them.
#[derive(Debug)]
pub struct Vectors {
    /// Of the program's command line.
    pub words: Vec<CString>,
    /// Of its environment.
    pub environment: Vec<CString>,
}

impl Vectors {
    /// Copies them.
    ///
    /// # Errors
    /// EINVAL for a NUL inside.
    pub fn new(words: &[String], environment: &[(String, String)]) -> Result<Self, StageError> {
        let c_string = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
        let words: Result<Vec<_>, _> = words.iter().map(|word| c_string(word)).collect();
        let words = words.map_err(StageError::at("arguments"))?;
        let environment: Result<Vec<_>, _> =
            environment.iter().map(|(name, value)| c_string(&format!("{name}={value}"))).collect();
        Ok(Self { words, environment: environment.map_err(StageError::at("environment"))? })
    }

    /// The program.
    ///
    /// # Errors
    /// EINVAL for an empty command.
    pub fn path(&self) -> Result<&CStr, StageError> {
        let path = self.words.first().ok_or(Errno::EINVAL).map_err(StageError::at("empty command"))?;
        Ok(path)
    }

    /// Becomes the program at its path.
    ///
    /// # Errors
    /// Always, as success does not return.
    pub fn exec(&self) -> Result<Infallible, StageError> {
        let path = self.path()?;
        execve(path, &self.words, &self.environment).map_err(StageError::at(format!("exec {}", path.to_string_lossy())))
    }
}

/// Becomes the program, with nothing inherited but the three standard streams.
///
/// # Errors
/// Always, as success does not return.
pub fn exec(program: &Program<'_>) -> Result<Infallible, StageError> {
    let Program { dir, words, environment } = *program;
    umask(Mode::from_bits_truncate(0o022));
    chdir(dir).map_err(StageError::at(format!("chdir {dir}")))?;
    credentials::close_on_exec().map_err(StageError::at("close descriptors"))?;
    Vectors::new(words, environment)?.exec()
}

/// For `map_err`.
pub fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
