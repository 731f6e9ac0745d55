//! The image's root: found by label, mounted read-only, with a bounded memory layer on top.
//!
//! The lower layer is never written, so the image is the same after every boot; what a machine changes
//! lies in the upper layer and goes with it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, fstatfs};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::devices::block::Block;
use crate::devices::content::Content;
use crate::mounts::{self, MountError};

/// The label of an image's file system unless the kernel command line says `root=LABEL=name`.
const LABEL: &str = "ctxroot";
/// The image alone, read-only.
const LOWER: &str = "/run/ctxinit/image/lower";
/// The memory that takes what is written.
pub const LAYER: &str = "/run/ctxinit/image/layer";
/// What is written, in it.
const UPPER: &str = "/run/ctxinit/image/layer/upper";
/// Where the upper layer is made read-only before it is let go.
const UPPER_VIEW: &str = "/run/ctxinit/image/upper";
/// Where the root is put together before everybody moves into it.
const NEW_ROOT: &str = "/sysroot";
/// Until the policy, which lies in the image, says how much.
const FIRST_LAYER_MB: u32 = 16;
/// Mounts that go along.
const MOVED: &[&str] = &["dev", "proc", "sys", "run"];

/// Why there is no root.
#[derive(Debug, Error)]
pub enum RootError {
    /// `root=` in a form that we do not know.
    #[error("kernel command line: root={0}: only root=LABEL=name and root=PARTLABEL=name are known")]
    Unknown(String),
    /// Which of them is the image cannot be told.
    #[error("{wanted} is on several devices: {}", .devices.join(", "))]
    Several {
        /// The label.
        wanted: String,
        /// All that bear it.
        devices: Vec<String>,
    },
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A step of the move failed.
    #[error("{step}: {error}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it did not work.
        error: std::io::Error,
    },
}

/// How the root is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// File system label.
    Label(String),
    /// GPT partition name, for file systems without a label (squashfs).
    PartitionLabel(String),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Label(label) => write!(f, "a file system with label {label}"),
            Self::PartitionLabel(label) => write!(f, "a partition named {label}"),
        }
    }
}

impl Wanted {
    /// From the value of `root=`, if there is one.
    ///
    /// # Errors
    /// [`RootError::Unknown`]: a device name is no identity, it changes with the hypervisor.
    pub fn parse(root: Option<&str>) -> Result<Self, RootError> {
        let Some(root) = root else { return Ok(Self::Label(LABEL.to_owned())) };
        if let Some(label) = root.strip_prefix("LABEL=") {
            Ok(Self::Label(label.to_owned()))
        } else if let Some(label) = root.strip_prefix("PARTLABEL=") {
            Ok(Self::PartitionLabel(label.to_owned()))
        } else {
            Err(RootError::Unknown(root.to_owned()))
        }
    }

    fn fits(&self, block: &Block, content: &Content) -> bool {
        match self {
            Self::Label(label) => *content == Content::Ext4(label.clone()),
            Self::PartitionLabel(label) => block.partition_label.as_ref() == Some(label),
        }
    }
}

/// A device that holds the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its node.
    pub node: String,
    /// What to mount it as.
    pub fstype: String,
}

/// Looks at the devices that are there now.
///
/// # Errors
/// [`RootError::Several`].
pub fn find(wanted: &Wanted) -> Result<Option<Found>, RootError> {
    let mut found = Vec::new();
    for block in Block::all() {
        // Optical drives hold contexts, not images, and are slow to ask.
        if block.optical {
            continue;
        }
        let Ok(content) = block.content() else { continue };
        if !matches!(content, Content::Ext4(_) | Content::Squashfs) {
            continue;
        }
        if wanted.fits(&block, &content) {
            found.push(Found { node: block.node(), fstype: content.fstype().to_owned() });
        }
    }
    if found.len() > 1 {
        let devices = found.into_iter().map(|found| found.node).collect();
        return Err(RootError::Several { wanted: wanted.to_string(), devices });
    }
    Ok(found.pop())
}

/// The root of the initramfs, which cannot be unmounted: its files take memory until they are removed.
#[derive(Debug)]
pub struct Initramfs(OwnedFd);

/// Puts the root together, takes the mounts along, and makes it this process's root.
///
/// # Errors
/// The step that failed.
pub fn enter(found: &Found) -> Result<Initramfs, RootError> {
    for dir in [LOWER, LAYER, NEW_ROOT] {
        make_dir(dir)?;
    }
    mounts::read_only(&found.node, LOWER, &found.fstype)?;
    mounts::tmpfs(LAYER, FIRST_LAYER_MB, "mode=0700")?;
    let work = format!("{LAYER}/work");
    make_dir(UPPER)?;
    make_dir(&work)?;
    like_the_image(UPPER)?;
    mounts::overlay(LOWER, UPPER, &work, NEW_ROOT)?;
    for name in MOVED {
        let target = format!("{NEW_ROOT}/{name}");
        make_dir(&target)?;
        mounts::move_to(&format!("/{name}"), &target)?;
    }
    switch()
}

/// An overlay shows its root with owner and mode of the upper layer's.
fn like_the_image(upper: &str) -> Result<(), RootError> {
    let copied = fs::metadata(LOWER).and_then(|of| {
        std::os::unix::fs::chown(upper, Some(of.uid()), Some(of.gid()))?;
        fs::set_permissions(upper, of.permissions())
    });
    copied.map_err(|error| RootError::Step { step: format!("make {upper} like the image's root"), error })
}

/// The two layers, at no place: only these descriptors and the overlay itself know them.
#[derive(Debug)]
pub struct Layers {
    /// The image alone, read-only.
    pub lower: OwnedFd,
    /// What was written, read-only too.
    pub upper: OwnedFd,
}

/// Takes the layers out of everybody's sight; `None` if the root is no overlay of ours. After the last change of the
/// memory's size.
///
/// Whoever gets at one of the descriptors (root does, by `/proc/PID/fd`) gets a read-only mount of no namespace: the
/// kernel neither remounts nor binds it.
///
/// # Errors
/// The step that failed.
pub fn take_layers() -> Result<Option<Layers>, RootError> {
    if !Path::new(UPPER).exists() {
        return Ok(None);
    }
    make_dir(UPPER_VIEW)?;
    mounts::bind(UPPER, UPPER_VIEW)?;
    mounts::remount(UPPER_VIEW, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    let open = |path: &str| {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| RootError::Step { step: format!("open {path}"), error: errno.into() })
    };
    let layers = Layers { lower: open(LOWER)?, upper: open(UPPER_VIEW)? };
    for (path, mounted) in [(UPPER_VIEW, true), (LAYER, true), (LOWER, true), ("/run/ctxinit/image", false)] {
        if mounted {
            mounts::unmount(path)?;
        }
        let _ = fs::remove_dir(path);
    }
    Ok(Some(layers))
}

/// pivot_root(2) gives EINVAL on an initramfs, so the new root is moved over it.
fn switch() -> Result<Initramfs, RootError> {
    let step =
        |step: &'static str| move |error: nix::Error| RootError::Step { step: step.to_owned(), error: error.into() };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old = nix::fcntl::open("/", flags, Mode::empty()).map_err(step("open the initramfs"))?;
    nix::unistd::chdir(NEW_ROOT).map_err(step("enter the image"))?;
    mounts::move_to(".", "/")?;
    nix::unistd::chroot(".").map_err(step("chroot into the image"))?;
    nix::unistd::chdir("/").map_err(step("enter the image"))?;
    Ok(Initramfs(old))
}

impl Initramfs {
    /// Removes everything in it. Once no module is needed any more.
    pub fn discard(self) {
        let in_memory = fstatfs(self.0.as_fd()).is_ok_and(|fs| is_initramfs(fs.filesystem_type()));
        if in_memory {
            remove_files(Path::new(&format!("/proc/self/fd/{}", self.0.as_raw_fd())));
        }
    }
}

/// rootfs is a ramfs or a tmpfs; anything else is somebody's disk and keeps its files.
fn is_initramfs(kind: FsType) -> bool {
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    kind == RAMFS_MAGIC || kind == nix::sys::statfs::TMPFS_MAGIC
}

/// Removes everything on this file system, and nothing on those mounted below it.
fn remove_files(dir: &Path) {
    let device = |path: &Path| nix::sys::stat::lstat(path).map(|stat| stat.st_dev).ok();
    let entries = || fs::read_dir(dir).into_iter().flatten().flatten();
    let Ok(own) = nix::sys::stat::stat(dir) else { return };
    for entry in entries().filter(|entry| device(&entry.path()) == Some(own.st_dev)) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_files(&entry.path());
            let _ = fs::remove_dir(entry.path());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn make_dir(path: &str) -> Result<(), RootError> {
    fs::create_dir_all(path).map_err(|error| RootError::Step { step: format!("mkdir {path}"), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_known_by_label_only() {
        assert_eq!(Wanted::parse(None).unwrap(), Wanted::Label("ctxroot".to_owned()));
        assert_eq!(Wanted::parse(Some("LABEL=x")).unwrap(), Wanted::Label("x".to_owned()));
        assert_eq!(Wanted::parse(Some("PARTLABEL=x")).unwrap(), Wanted::PartitionLabel("x".to_owned()));
        assert!(Wanted::parse(Some("/dev/vda")).is_err());
    }
}
