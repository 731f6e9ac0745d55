//! Block devices, known by what they hold and never by their name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

use super::content::Content;
use super::entries;

/// A whole disk, a drive or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Kernel name, `vda`, `sr0`, `xvdb1`.
    pub name: String,
    /// Whether it is an optical drive, which can be asked whether it holds a disc.
    pub optical: bool,
    /// Whether nobody in this machine can write to it: the kernel's `ro`, or an optical drive.
    pub read_only: bool,
    /// Kernel name of the whole disk, for a partition.
    pub whole: Option<String>,
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
        // A partition lies in the directory of its disk.
        let whole = fs::exists(format!("{path}/partition")).ok()?.then(|| fs::canonicalize(path).ok()).flatten();
        let whole = whole.and_then(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned()));
        let uevent = fs::read_to_string(format!("{path}/uevent")).unwrap_or_default();
        let partition_label = uevent.lines().find_map(|line| line.strip_prefix("PARTNAME=")).map(str::to_owned);
        Some(Self { name, optical, read_only, whole, partition_label })
    }

    /// Its node; devtmpfs makes one for every device.
    pub fn node(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// Opens it for reading. O_NONBLOCK is not given: on an optical drive it would hide a missing disc.
    fn open(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(self.node())
    }

    /// Opens it for reading as the only one who uses it.
    ///
    /// # Errors
    /// Those of open(2); EBUSY where it, a partition of it or the whole of it is mounted or otherwise in use.
    pub fn open_unused(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_EXCL).open(self.node())
    }

    /// Its size in bytes; 0 where the kernel does not say.
    pub fn bytes(&self) -> u64 {
        // Sectors of 512 bytes, whatever the device's own are (kernel: block/stat.rst).
        let sectors = fs::read_to_string(format!("/sys/class/block/{}/size", self.name)).unwrap_or_default();
        sectors.trim_end().parse::<u64>().unwrap_or(0).saturating_mul(512)
    }

    /// What its first sectors say.
    ///
    /// # Errors
    /// Those of open(2) and read(2): ENOMEDIUM for a drive without a disc, EIO for a bad one.
    pub fn content(&self) -> io::Result<Content> {
        let file = self.open()?;
        Content::find(|at, buffer| file.read_exact_at(buffer, at).or_else(too_small))
    }
}

/// A device that ends before the sector is no file system of ours, but no error either.
fn too_small(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) }
}

/// Xen block devices that no driver took, `vbd-51760`: xen-blkfront refuses one that is configured as a CD in PVH and
/// HVM guests, so a CD has to be given as a read-only disk there.
pub fn xen_without_driver() -> Vec<String> {
    let vbd = |path: &String| path.contains("/vbd-") && !Path::new(path).join("block").exists();
    let name = |path: String| path.rsplit('/').next().map(str::to_owned);
    entries("/sys/bus/xen/devices").into_iter().filter(vbd).filter_map(name).collect()
}
