//! A process that need not be a child of ours, held so that its number can never mean somebody else.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A descriptor of a process.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Holds the process that has this number now.
    ///
    /// # Errors
    /// Those of pidfd_open(2); ESRCH if there is none.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        // SAFETY: the call succeeded, so fd is a new descriptor that nobody else owns; it closes on exec.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2); ESRCH if it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: fd is an open pidfd, the siginfo may be null, and flags must be 0.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        Errno::result(result).map(drop).map_err(io::Error::from)
    }
}
