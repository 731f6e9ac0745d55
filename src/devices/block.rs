//! Block devices, known by what they hold and never by their name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::libc;

use super::entries;

/// A whole disk, a drive or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Kernel name, `vda`, `sr0`, `xvdb1`.
    pub name: String,
    /// Whether nobody in this machine can write to it: the kernel's `ro`, or an optical drive.
    pub read_only: bool,
    /// GPT partition name, where it has one.
    pub partition_label: Option<String>,
}

impl Block {
    /// Every block device that can hold data, sorted by name; memory disks and floppies left out.
    pub fn all() -> Vec<Self> {
        entries("/sys/class/block").iter().filter_map(|path| Self::read(path)).collect()
    }

    fn read(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?.to_owned();
        // A floppy without a disc keeps its reader waiting for seconds; the others hold nothing before we fill them.
        if ["loop", "ram", "fd", "zram", "dm-"].iter().any(|prefix| name.starts_with(prefix)) {
            return None;
        }
        let optical = name.starts_with("sr");
        let read_only = optical || fs::read_to_string(format!("{path}/ro")).ok()?.trim_end() == "1";
        let uevent = fs::read_to_string(format!("{path}/uevent")).unwrap_or_default();
        let partition_label = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")).map(str::to_owned);
        Some(Self { name, read_only, partition_label })
    }

    /// Its node; devtmpfs makes one for every device.
    pub fn node(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Opens it for reading. O_NONBLOCK is not given: on an optical drive it would hide a missing disc.
    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(self.node())
    }

    /// What its first sectors say.
    ///
    /// # Errors
    /// Those of open(2) and read(2): ENOMEDIUM for a drive without a disc, EIO for a bad one.
    pub fn content(&self) -> io::Result<Content> {
        let file = self.open()?;
        let mut head = [0; 2048];
        file.read_exact_at(&mut head, 0).or_else(too_small)?;
        let mut descriptor = [0; 2048];
        file.read_exact_at(&mut descriptor, VOLUME_DESCRIPTOR).or_else(too_small)?;
        Ok(Content::parse(&head, &descriptor))
    }
}

/// A device that ends before the sector is no file system of ours, but no error either.
fn too_small(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) }
}

/// Sector 16 of 2048 bytes (ECMA-119 6.2.1).
const VOLUME_DESCRIPTOR: u64 = 16 * 2048;

/// File systems that we know by their superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// ext2, ext3 or ext4, with its label.
    Ext4(String),
    /// squashfs, which has no label.
    Squashfs,
    /// ISO 9660, with its volume identifier.
    Iso9660(String),
    /// Anything else, nothing among it.
    Unknown,
}

impl Content {
    /// `head` is the first 2048 bytes, `descriptor` the sector at 32768.
    fn parse(head: &[u8; 2048], descriptor: &[u8; 2048]) -> Self {
        // Offsets from the superblock at 1024: magic 0x38, volume name 0x78 (kernel: fs/ext4/ext4.h).
        if head.get(1080..1082) == Some(&[0x53, 0xef]) {
            return Self::Ext4(text(head.get(1144..1160)));
        }
        if head.get(..4) == Some(b"hsqs") {
            return Self::Squashfs;
        }
        // Type 1 is the primary descriptor; the identifier stands at byte 41 (ECMA-119 8.4).
        if descriptor.get(..6) == Some(b"\x01CD001") {
            return Self::Iso9660(text(descriptor.get(40..72)));
        }
        Self::Unknown
    }
}

/// A label: up to the first NUL, without padding, made printable.
fn text(field: Option<&[u8]>) -> String {
    let field = field.unwrap_or_default();
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let label = String::from_utf8_lossy(field.get(..end).unwrap_or_default());
    crate::logging::printable(label.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(at: usize, bytes: &[u8]) -> [u8; 2048] {
        let mut sector = [0; 2048];
        sector[at..at + bytes.len()].copy_from_slice(bytes);
        sector
    }

    #[test]
    fn file_systems_are_known_by_their_superblocks() {
        let zero = [0; 2048];
        let mut ext4 = with(1080, &[0x53, 0xef]);
        ext4[1144..1151].copy_from_slice(b"ctxroot");
        assert_eq!(Content::parse(&ext4, &zero), Content::Ext4("ctxroot".to_owned()));
        assert_eq!(Content::parse(&with(0, b"hsqs"), &zero), Content::Squashfs);
        let mut iso = with(0, b"\x01CD001\x01");
        iso[40..72].copy_from_slice(b"CONTEXT                         ");
        assert_eq!(Content::parse(&zero, &iso), Content::Iso9660("CONTEXT".to_owned()));
        assert_eq!(Content::parse(&zero, &with(0, b"\x02CD001")), Content::Unknown);
        assert_eq!(Content::parse(&zero, &zero), Content::Unknown);
    }
}
