//! Mounts that only a descriptor knows.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// linux/mount.h; the libc crate has them for Android only.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_int = 0x8000;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
const MOUNT_ATTR_NOEXEC: u64 = 8;

/// struct mount_attr of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// The file system of "/" as it is without the mounts on top of it: a mount of its own, at no place, that is gone
/// with the descriptor. It can be written to also where "/" itself is read-only.
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2) (Linux 5.12).
pub fn bare_root() -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: the path ends with NUL, and the call only reads it.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/".as_ptr(), flags) })?;
    // SAFETY: the call succeeded, so fd is a new descriptor that nobody else owns; it closes on exec.
    let root = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attr = MountAttr { set: 0, clear: MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    let empty: &CStr = c"";
    // SAFETY: `attr` is a live struct mount_attr of the given size, which the call only reads, as it does the path.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            root.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result)?;
    Ok(root)
}

/// What a mount lets nobody do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forbids {
    /// Write.
    pub writing: bool,
    /// Get another user's rights by a program's mode or capabilities.
    pub setuid: bool,
    /// Reach a device by a node.
    pub devices: bool,
    /// Execute a program.
    pub programs: bool,
}

/// Has the mount at `path`, and with `below` every one in it, forbid so much more; with `devices` also let it forbid
/// devices no longer.
///
/// # Errors
/// Those of mount_setattr(2) (Linux 5.12).
pub fn forbid(path: &CStr, below: bool, forbids: Forbids, devices: bool) -> Result<(), Errno> {
    let bits = [
        (forbids.writing, MOUNT_ATTR_RDONLY),
        (forbids.setuid, MOUNT_ATTR_NOSUID),
        (forbids.devices, MOUNT_ATTR_NODEV),
        (forbids.programs, MOUNT_ATTR_NOEXEC),
    ];
    let set = bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum();
    let attr = MountAttr { set, clear: if devices { MOUNT_ATTR_NODEV } else { 0 }, propagation: 0, userns_fd: 0 };
    let flags = if below { AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a live struct mount_attr of the given size, which the call only reads, as it does the path.
    let result = unsafe {
        let size = size_of::<MountAttr>();
        libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, path.as_ptr(), flags, &raw const attr, size)
    };
    Errno::result(result).map(drop)
}
