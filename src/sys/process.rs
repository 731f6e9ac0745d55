//! Processes: fork, kill and wait by identity.
//!
//! Every role is a single-threaded process, so a forked child may allocate and run any code. Each
//! process waits only for children that it made itself; PID 1 alone drains the rest ([`reap_any`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};

/// A child of this process, known by a descriptor so that its number can never mean somebody else.
#[derive(Debug)]
pub struct Child {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
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

/// A forked process would have copies of locks that other threads hold.
pub(super) fn alone() -> io::Result<()> {
    // It has a directory for each thread; "." and ".." are the other two links.
    if std::fs::metadata("/proc/self/task").is_ok_and(|tasks| tasks.nlink() > 3) {
        return Err(Errno::EBUSY.into());
    }
    Ok(())
}

/// The life of a forked child.
pub(super) fn leave_after(body: impl FnOnce() -> i32) -> ! {
    // The parent's way of dying (PID 1's turns the machine off) is not the child's: it says so and aborts.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!("process {} failed at {place}", std::process::id());
    }));
    leave(body())
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
