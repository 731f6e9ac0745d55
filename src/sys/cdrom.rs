//! What only an optical drive can be asked (linux/cdrom.h).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod request {
    nix::ioctl_none_bad!(eject, 0x5309);
    nix::ioctl_write_int_bad!(drive_status, 0x5326);
}

/// CDSL_CURRENT: the slot that is in use; only changers have more.
const CURRENT_SLOT: i32 = i32::MAX;

/// CDROM_DRIVE_STATUS: one of the numbers `CDS_*`.
///
/// # Errors
/// Those of ioctl(2), ENOTTY for what is no optical drive.
pub fn drive_status(drive: &File) -> io::Result<i32> {
    // SAFETY: the descriptor is open, and the argument is a plain number.
    Ok(unsafe { request::drive_status(drive.as_raw_fd(), CURRENT_SLOT) }?)
}

/// CDROMEJECT; returns when the tray is out.
///
/// # Errors
/// Those of ioctl(2), EBUSY while anybody else has the drive open.
pub fn eject(drive: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open, and there is no argument.
    unsafe { request::eject(drive.as_raw_fd()) }?;
    Ok(())
}
