//! seccomp(2): a program of the kernel's that judges every system call of this process from here on.

use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// Puts a filter on this thread and whatever it starts or executes. It cannot be taken off.
///
/// no_new_privs is the caller's to set: with it anybody may load a filter, without it only who has CAP_SYS_ADMIN, which is
/// the order of things where setuid programs must keep their power.
///
/// # Errors
/// EACCES with neither, EINVAL for a program that the kernel does not take, ENOSYS or EINVAL from a kernel without filters.
pub fn load(program: &[sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions, which the kernel copies and never writes to.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    Errno::result(result).map(drop)
}

/// prctl(2): a program judges.
pub const MODE_FILTER: i32 = 2;

/// What judges this process, prctl(2) PR_GET_SECCOMP: 0 is nothing.
///
/// # Errors
/// EINVAL from a kernel without filters.
pub fn mode() -> Result<i32, Errno> {
    // SAFETY: PR_GET_SECCOMP takes no argument.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) })
}

/// Whether a payload's filter judges this process: keyctl(2) with an operation that no kernel has. The kernel alone says
/// EOPNOTSUPP or ENOSYS; EPERM comes from the filter.
pub fn in_force() -> bool {
    const NO_OPERATION: c_long = 0x7fff_ffff;
    // SAFETY: an unknown operation reads none of its arguments.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, NO_OPERATION, 0, 0, 0, 0) }) == Err(Errno::EPERM)
}
