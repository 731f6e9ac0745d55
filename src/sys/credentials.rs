//! Capabilities, securebits and descriptors: what nix has no safe call for.

use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_ulong};

/// NOROOT and its lock, NO_SETUID_FIXUP off, KEEP_CAPS locked off, NO_CAP_AMBIENT_RAISE and its lock: a program
/// that becomes uid 0 by whatever way gets no capability from it (capabilities(7)).
pub const SECUREBITS: c_int = 0xe3;

/// The kernel's fixed layout of capset(2), version 3: two 32-bit words of each set.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Empties the effective, permitted and inheritable sets of this thread.
///
/// # Errors
/// Those of capset(2).
pub fn clear_capabilities() -> Result<(), Errno> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let data = [CapData::default(); 2];
    // SAFETY: header and data have the layout of version 3 and live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Empties the bounding set, so that no file capability or setuid-root program brings one back.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn clear_bounding_set() -> Result<(), Errno> {
    for capability in 0.. {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(()) => {}
            // One beyond the kernel's last capability.
            Err(Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Empties the ambient set.
///
/// # Errors
/// Those of prctl(2).
pub fn clear_ambient_set() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0)
}

/// Sets [`SECUREBITS`].
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn set_securebits() -> Result<(), Errno> {
    prctl(libc::PR_SET_SECUREBITS, SECUREBITS as c_ulong, 0)
}

/// The securebits of this thread.
///
/// # Errors
/// Those of prctl(2).
pub fn securebits() -> Result<c_int, Errno> {
    // SAFETY: PR_GET_SECUREBITS takes no argument.
    Errno::result(unsafe {
        libc::prctl(libc::PR_GET_SECUREBITS, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong)
    })
}

/// Asks for SIGKILL when the parent ends. Credential changes clear it, so it comes after them.
///
/// # Errors
/// Those of prctl(2).
pub fn die_with_parent() -> Result<(), Errno> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong, 0)
}

/// Closes every descriptor of this process in `range` at once.
///
/// # Errors
/// Those of close_range(2).
pub fn close_range(range: RangeInclusive<u32>) -> Result<(), Errno> {
    // SAFETY: the caller is a freshly forked child which uses none of these descriptors again: it either
    // leaves by exec or _exit, or was given the ones it keeps outside of the range.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, *range.start(), *range.end(), 0) }).map(drop)
}

/// A descriptor of this process by its number, for a question to the kernel; a number that is none gets EBADF.
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: fd is not -1, as callers have it from /proc/self/fd, and nothing is closed while they ask.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Marks every descriptor from 3 on to be closed by exec.
///
/// # Errors
/// Those of close_range(2).
pub fn close_on_exec() -> Result<(), Errno> {
    // SAFETY: close_range takes integers; with CLOEXEC it closes nothing now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// A new, empty session keyring: the old one may hold keys of root.
///
/// # Errors
/// ENOSYS where the kernel has no keyrings.
pub fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory of ours is touched.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    Errno::result(result).map(drop)
}

/// The number of this process's session keyring; none where the kernel has no keyrings, or a filter lets nobody ask.
pub fn session_keyring() -> Option<i32> {
    const KEYCTL_GET_KEYRING_ID: c_int = 0;
    const KEY_SPEC_SESSION_KEYRING: c_int = -3;
    // SAFETY: keyctl takes integers here; the last asks not to make one.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0) };
    Errno::result(result).ok().map(|id| id as i32)
}

fn prctl(option: c_int, second: c_ulong, third: c_ulong) -> Result<(), Errno> {
    // SAFETY: the options used here take integers; the unused arguments must be 0.
    Errno::result(unsafe { libc::prctl(option, second, third, 0 as c_ulong, 0 as c_ulong) }).map(drop)
}
