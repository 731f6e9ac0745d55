//! Signals as a descriptor in a poll loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Those that come from outside and mean something to us.
const WANTED: [Signal; 5] = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPWR];

/// Faults of the process itself: blocked, they would kill it without its handler.
const FAULTS: [Signal; 7] =
    [Signal::SIGABRT, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGSEGV, Signal::SIGSYS, Signal::SIGTRAP];

/// The signals of this process, one by one.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// Blocks every signal but faults, and takes the ones that mean something from a descriptor.
///
/// # Errors
/// Those of sigprocmask(2) and signalfd(2).
pub fn block() -> io::Result<Signals> {
    let mut blocked = SigSet::all();
    FAULTS.into_iter().for_each(|fault| blocked.remove(fault));
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
    let wanted = WANTED.into_iter().collect();
    Ok(Signals(SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
}

/// Default dispositions and an empty mask, as a program expects them: both are inherited through exec.
///
/// By system call for all 64: the C libraries keep signals 32 and 33 to themselves, nix knows none above 31,
/// and a program that inherits one of these ignored cannot be helped later.
///
/// # Errors
/// Those of sigprocmask(2).
pub fn reset() -> nix::Result<()> {
    // The kernel's struct sigaction: handler, flags, restorer, mask of 64 signals; all zero is SIG_DFL.
    let default = [0_u64; 4];
    for number in 1..=64 {
        // SAFETY: SIG_DFL runs no code of ours, and the struct has the size that goes with a mask of 8 bytes.
        // SIGKILL and SIGSTOP refuse, which changes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null::<u64>(), 8) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// The signals that are pending now.
impl Iterator for Signals {
    type Item = Signal;

    fn next(&mut self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
