//! clone3(2): a process that is in its cgroup and namespaces from its first instruction.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::process::{Child, alone, leave_after};

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
/// As [`fork`](super::process::fork), and those of clone3(2): there is no fallback to less.
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
