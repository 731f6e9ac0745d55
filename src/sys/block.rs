//! Block devices.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

mod ioctl {
    // linux/fs.h
    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), nix::libc::c_int);
}

/// Has the kernel refuse every write to this device from now on, by mounts and by programs. Root can take it back.
///
/// # Errors
/// Those of ioctl(2) BLKROSET.
pub fn set_read_only(device: &File) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the pointer is to a live int that the call only reads.
    unsafe { ioctl::blkroset(device.as_raw_fd(), &raw const on) }?;
    Ok(())
}
