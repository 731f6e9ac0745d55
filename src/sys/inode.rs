//! What chattr(1) and setfattr(1) change: flags and extended attributes, of an open file or directory.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_void};

mod ioctl {
    // linux/fs.h declares them with a long, and every file system takes an int.
    nix::ioctl_read!(getflags, b'f', 1, nix::libc::c_long);
    nix::ioctl_write_ptr!(setflags, b'f', 2, nix::libc::c_long);
}

/// linux/fs.h: nothing about the file can be changed.
pub const IMMUTABLE: c_int = 0x10;
/// linux/fs.h: it can only grow.
pub const APPEND: c_int = 0x20;

/// The flags; none where the file system has none.
pub fn flags(of: &impl AsFd) -> c_int {
    let mut flags: c_long = 0;
    // SAFETY: the descriptor is open, and the pointer is to a live long, of which the call fills an int.
    match unsafe { ioctl::getflags(of.as_fd().as_raw_fd(), &raw mut flags) } {
        Ok(_) => flags as c_int,
        Err(_) => 0,
    }
}

/// Gives it other flags.
///
/// # Errors
/// Those of ioctl(2) FS_IOC_SETFLAGS.
pub fn set_flags(of: &impl AsFd, flags: c_int) -> io::Result<()> {
    let flags = c_long::from(flags);
    // SAFETY: the descriptor is open, and the pointer is to a live long that the call only reads.
    unsafe { ioctl::setflags(of.as_fd().as_raw_fd(), &raw const flags) }?;
    Ok(())
}

/// Extended attributes, name and value; none where the file system has none.
///
/// # Errors
/// Those of flistxattr(2) and fgetxattr(2).
pub fn attributes(of: &impl AsFd) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let fd = of.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a buffer of the given length.
    let names = filled(|to, length| unsafe { libc::flistxattr(fd, to.cast(), length) });
    let names = match names {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut attributes = Vec::new();
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        // SAFETY: the name ends with NUL, and the pointer is to a buffer of the given length.
        let value = filled(|to, length| unsafe { libc::fgetxattr(fd, name.as_ptr(), to, length) })?;
        attributes.push((name.to_owned(), value));
    }
    Ok(attributes)
}

/// Sets one.
///
/// # Errors
/// Those of fsetxattr(2).
pub fn set_attribute(of: &impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let fd = of.as_fd().as_raw_fd();
    // SAFETY: the name ends with NUL, and the pointer is to `value`, of the given length.
    Errno::result(unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })?;
    Ok(())
}

/// Removes one.
///
/// # Errors
/// Those of fremovexattr(2).
pub fn remove_attribute(of: &impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: the name ends with NUL.
    Errno::result(unsafe { libc::fremovexattr(of.as_fd().as_raw_fd(), name.as_ptr()) })?;
    Ok(())
}

/// The kernel bounds a list and a value to 64 KiB each (XATTR_LIST_MAX, XATTR_SIZE_MAX).
fn filled(call: impl FnOnce(*mut c_void, usize) -> isize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 65536];
    let length = Errno::result(call(buffer.as_mut_ptr().cast(), buffer.len()))?;
    buffer.truncate(length as usize);
    Ok(buffer)
}
