//! Optical drives: what they say of themselves.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;

use crate::sys::cdrom;

/// What a drive answers to CDROM_DRIVE_STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// Nothing in it.
    NoDisc,
    /// Open, so nothing in it that could be read.
    TrayOpen,
    /// It does not know yet.
    NotReady,
    /// With a disc, or a drive that cannot say: reading will show.
    Disc,
}

impl Drive {
    /// The numbers of linux/cdrom.h; 0 is CDS_NO_INFO, 4 CDS_DISC_OK.
    fn from_status(status: i32) -> Self {
        match status {
            1 => Self::NoDisc,
            2 => Self::TrayOpen,
            3 => Self::NotReady,
            _ => Self::Disc,
        }
    }
}

/// Asks the drive at this node.
///
/// # Errors
/// Those of open(2). A drive that does not know the question counts as one with a disc.
pub fn ask(node: &str) -> io::Result<Drive> {
    let drive = open(node)?;
    Ok(cdrom::drive_status(&drive).map_or(Drive::Disc, Drive::from_status))
}

/// Opens the tray.
///
/// # Errors
/// Those of open(2) and ioctl(2).
pub fn eject(node: &str) -> io::Result<()> {
    cdrom::eject(&open(node)?)
}

/// With O_NONBLOCK a drive can be opened without a disc, and no tray is pulled in by it.
fn open(node: &str) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(node)
}

/// Has the kernel itself look for a disc that is put into any drive, now or later plugged in, and send a uevent then;
/// `None` ends that. Without it (the kernel's default; udev turns it on elsewhere) a disc comes without a word.
///
/// # Errors
/// Those of writing the kernel's parameter.
pub fn announce_discs(every: Option<Duration>) -> io::Result<()> {
    let millis = every.unwrap_or_default().as_millis();
    fs::write("/sys/module/block/parameters/events_dfl_poll_msecs", millis.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers() {
        let drives = [0, 1, 2, 3, 4, 100].map(Drive::from_status);
        assert_eq!(drives, [Drive::Disc, Drive::NoDisc, Drive::TrayOpen, Drive::NotReady, Drive::Disc, Drive::Disc]);
    }

    #[test]
    fn what_is_no_drive_counts_as_one_with_a_disc() {
        assert_eq!(ask("/dev/null").unwrap(), Drive::Disc);
        assert_eq!(eject("/dev/null").unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
