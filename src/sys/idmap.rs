//! A second view of a mount in which files have other owners (Linux 5.12).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// linux/mount.h; the libc crate has them for Android only.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// struct mount_attr of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// The mount at `path` once more, at no place, with owners as `users` (a user namespace) maps them: an owner on the
/// disk is a number inside, what processes see is the number outside. It is gone with the descriptor, unless
/// [`attach`] has given it a place.
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2): EINVAL for a file system that has no such views.
pub fn view(path: &CStr, users: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path ends with NUL, and the call only reads it.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the call succeeded, so fd is a new descriptor that nobody else owns; it closes on exec.
    let mount = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // What is mounted below one view is not seen in others.
    let propagation = libc::MS_PRIVATE;
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation, userns_fd: users.as_raw_fd() as u64 };
    // SAFETY: `attr` is a live struct mount_attr of the given size, which the call only reads, as it does the path.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result)?;
    Ok(mount)
}

/// Gives a mount that has none a place in the mount namespace of this process.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach(mount: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: both paths end with NUL, and the call only reads them; the descriptor is open.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), flags)
    };
    Errno::result(result)?;
    Ok(())
}
