//! The device that the image lies on: nothing may write to it, and at the end it is shown that nothing has.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;

use super::tree;
use crate::devices::entries;
use crate::sys::block;

/// For the report: whether the image is what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageDevice {
    /// Kernel name, `vda`.
    pub device: String,
    /// Written or discarded by anybody in this machine since before the image was mounted, 512 bytes each.
    pub sectors_written: u64,
    /// Of the whole device when the machine started, hexadecimal; only if the policy wants it.
    pub sha256_before: Option<String>,
    /// The same at the end.
    pub sha256_after: Option<String>,
    /// No write was counted, and it is the same device.
    #[serde(skip)]
    pub no_write: bool,
    /// What the hashes say.
    pub hashes: Hashes,
    /// No write was counted, it is the same device, and if hashes are wanted, both are there and equal.
    pub unchanged: bool,
}

/// What two hashes of the device say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hashes {
    /// The policy does not want any.
    Off,
    /// It holds what it held.
    Equal,
    /// It does not.
    Different,
    /// One of them was not made, so nobody knows.
    Unknown,
}

impl ImageDevice {
    /// What is known of it, in two or three words.
    pub fn state(&self) -> &'static str {
        match (self.unchanged, self.hashes) {
            (true, Hashes::Off) => "no write counted",
            (true, _) => "unchanged",
            (false, Hashes::Unknown) if self.no_write => "no write counted, but not hashed",
            (false, _) => "CHANGED",
        }
    }

    /// Whether there is a reason to think that it is not what it was.
    pub fn is_suspect(&self) -> bool {
        !(self.unchanged || self.hashes == Hashes::Unknown && self.no_write)
    }
}

/// The device, from before the image is mounted.
#[derive(Debug)]
pub struct Device {
    name: String,
    file: File,
    written: u64,
    sequence: String,
}

impl Device {
    /// Opens `/dev/name` and has the kernel refuse writes to it.
    ///
    /// # Errors
    /// Those of open(2), and of a kernel that counts nothing. A device that cannot be made read-only is told in the
    /// log: what is written to it is still counted.
    pub fn open(node: &str) -> io::Result<Self> {
        let name = node.rsplit('/').next().unwrap_or_default().to_owned();
        let file = File::open(node)?;
        if let Err(error) = block::set_read_only(&file) {
            log::warn!("{node}: cannot be made read-only: {error}");
        }
        Ok(Self { written: written(&name)?, sequence: sequence(&name), name, file })
    }

    /// Kernel name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Brings to the device what somebody wrote and memory still holds; else it is not counted.
    pub fn flush(&self) {
        // EIO is somebody else's lost write; a device that is gone is seen by its number.
        let _ = self.file.sync_all();
    }

    /// Sectors written since it was opened. A device whose count cannot be read is gone, which is as bad.
    pub fn sectors_written(&self) -> u64 {
        written(&self.name).map_or(u64::MAX, |now| now.wrapping_sub(self.written))
    }

    /// SHA-256 of everything on it, hexadecimal. What was read is not kept in memory, so that the next time asks
    /// the device again.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn sha256(&self) -> io::Result<String> {
        let mut file = &self.file;
        file.rewind()?;
        tree::sha256(file, |at, length| {
            let _ = posix_fadvise(file, at as i64, length as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        })
    }

    /// What the report says; `hashes` are before and after, if they are wanted.
    pub fn report(&self, hashes: Option<[Option<String>; 2]>) -> ImageDevice {
        let sectors_written = self.sectors_written();
        let no_write = sectors_written == 0 && sequence(&self.name) == self.sequence;
        let compared = match &hashes {
            None => Hashes::Off,
            Some([Some(before), Some(after)]) if before == after => Hashes::Equal,
            Some([Some(_), Some(_)]) => Hashes::Different,
            Some(_) => Hashes::Unknown,
        };
        let unchanged = no_write && matches!(compared, Hashes::Off | Hashes::Equal);
        let [sha256_before, sha256_after] = hashes.unwrap_or_default();
        let device = self.name.clone();
        ImageDevice { device, sectors_written, sha256_before, sha256_after, no_write, hashes: compared, unchanged }
    }
}

/// Every insertion of a disk has its own number (Linux 5.15): another one in the same place is noticed.
fn sequence(name: &str) -> String {
    let read = |path: &str| fs::read_to_string(format!("/sys/class/block/{name}/{path}"));
    // A partition's is its disk's.
    read("diskseq").or_else(|_| read("../diskseq")).unwrap_or_default()
}

/// Sectors written to a device; for a partition also what was written to its disk around all partitions.
fn written(name: &str) -> io::Result<u64> {
    let own = format!("/sys/class/block/{name}");
    let count = |path: &str| {
        let stat = fs::read_to_string(format!("{path}/stat"))?;
        sectors(&stat).ok_or_else(|| io::Error::other(format!("{path}/stat: not as the kernel writes it")))
    };
    if !Path::new(&own).join("partition").exists() {
        return count(&own);
    }
    let disk = format!("{own}/..");
    let partitions = entries(&disk).into_iter().filter(|path| Path::new(path).join("partition").exists());
    let of_all = partitions.map(|path| count(&path)).sum::<io::Result<u64>>()?;
    Ok(count(&own)? + around(count(&disk)?, of_all))
}

/// The kernel counts what goes to a partition for its disk, too.
fn around(disk: u64, partitions: u64) -> u64 {
    disk.saturating_sub(partitions)
}

/// kernel: block/stat.rst, the seventh number; and, since 4.19, the fourteenth: what is discarded is lost as well.
fn sectors(stat: &str) -> Option<u64> {
    let number = |at| stat.split_whitespace().nth(at).map(|number| number.parse::<u64>().ok());
    number(6)??.checked_add(number(13).unwrap_or(Some(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_was_not_made_is_no_change() {
        let device = |no_write: bool, hashes| ImageDevice {
            device: "vda".to_owned(),
            sectors_written: u64::from(!no_write),
            sha256_before: None,
            sha256_after: None,
            no_write,
            hashes,
            unchanged: no_write && matches!(hashes, Hashes::Off | Hashes::Equal),
        };
        for (no_write, hashes, state) in [
            (true, Hashes::Off, "no write counted"),
            (true, Hashes::Equal, "unchanged"),
            (true, Hashes::Unknown, "no write counted, but not hashed"),
            (true, Hashes::Different, "CHANGED"),
            (false, Hashes::Off, "CHANGED"),
            (false, Hashes::Equal, "CHANGED"),
            (false, Hashes::Unknown, "CHANGED"),
        ] {
            let device = device(no_write, hashes);
            assert_eq!((device.state(), device.is_suspect()), (state, state == "CHANGED"));
        }
    }

    #[test]
    fn what_is_written_and_what_is_discarded_counts() {
        let stat =
            "     471        3    28218       60        9        1       72        5        0       68       65\n";
        assert_eq!(sectors(stat), Some(72));
        assert_eq!(sectors("1 2 3"), None);
        let discarded = " 471 3 28218 60 9 1 72 5 0 68 65 2 0 2048 1 4 3\n";
        assert_eq!(sectors(discarded), Some(72 + 2048));
        assert_eq!((around(72, 70), around(0, 0)), (2, 0));
    }
}
