//! The disk in its place.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use crate::sys::grow;
use crate::sys::idmap as view;
use crate::{ids, mounts};

use super::find::Volume;
use super::{OWNER, idmap};

/// Where the disk is mounted, in the agent's namespace; the end of the machine unmounts it. What lies above is root's
/// alone: what the world may read on the disk, other users of this machine must not.
pub const PLACE: &str = "/run/ctxinit/disk/mounted";
/// Less is what makers of file systems leave over.
const WORTH_GROWING: u64 = 1024 * 1024;

/// What was found and done while it was mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Bytes of the file system now.
    pub bytes: u64,
    /// The same before it was grown to its device, if it was.
    pub grown_from: Option<u64>,
    /// What is not as it should be and does no harm.
    pub warnings: Vec<String>,
}

/// A disk that is mounted and good.
#[derive(Debug)]
pub struct UserDisk(());

/// Mounts it, grows it to its device, and makes sure that jobs can use it. Every step may hang with the disk, so this runs
/// in a child; the mount is the agent's too, as they share a namespace.
///
/// # Errors
/// Why the disk is bad; it is not mounted then.
pub fn mount(volume: &Volume) -> Result<Mounted, String> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(PLACE);
    made.map_err(|error| format!("{PLACE}: {error}"))?;
    mounts::user_disk(&volume.node(), PLACE, &volume.fstype, volume.read_only).map_err(|error| error.to_string())?;
    let ready = make_ready(volume);
    if ready.is_err()
        && let Err(error) = mounts::unmount(PLACE)
    {
        log::warn!("{error}");
    }
    ready
}

fn make_ready(volume: &Volume) -> Result<Mounted, String> {
    // A job's user is another one each time, so without this the user's files would be a stranger's.
    view_for(ids::PAYLOAD.start)
        .map_err(|error| format!("this kernel does not give its files to a job's user (idmapped mounts): {error}"))?;
    let mut mounted = Mounted { bytes: volume.bytes, grown_from: None, warnings: Vec::new() };
    if !volume.read_only {
        match grow_to_device(volume) {
            Ok(true) => {
                mounted.grown_from = Some(volume.bytes);
                mounted.bytes = volume.room / volume.block * volume.block;
            }
            Ok(false) => {}
            Err(error) => mounted.warnings.push(format!("not grown to its device: {error}")),
        }
    }
    match give_to_owner(volume.read_only) {
        Ok(None) => {}
        Ok(Some(other)) => mounted.warnings.push(format!(
            "its top directory belongs to user {other} and not to {OWNER}, so jobs may not be able to write there"
        )),
        Err(error) => return Err(format!("its top directory: {error}")),
    }
    Ok(mounted)
}

/// Whether it is larger now.
fn grow_to_device(volume: &Volume) -> io::Result<bool> {
    if volume.room < volume.bytes.saturating_add(WORTH_GROWING) {
        return Ok(false);
    }
    let blocks = || statvfs(PLACE).map(|of| of.blocks());
    let (before, top, wanted) = (blocks()?, File::open(PLACE)?, volume.room / volume.block);
    match volume.fstype.as_str() {
        "ext4" => grow::ext4(&top, wanted)?,
        _ => grow::xfs(&top, wanted, volume.inode_percent)?,
    }
    Ok(blocks()? > before)
}

/// A file system that nobody has used yet belongs to root. Returns who else owns the top directory, if somebody does.
fn give_to_owner(read_only: bool) -> io::Result<Option<u32>> {
    let owner = fs::metadata(PLACE)?.uid();
    if owner == OWNER {
        return Ok(None);
    }
    let unused = || -> io::Result<bool> {
        let mut entries = fs::read_dir(PLACE)?;
        entries.try_fold(true, |unused, entry| Ok(unused && entry?.file_name() == "lost+found"))
    };
    if owner != 0 || read_only || !unused()? {
        return Ok(Some(owner));
    }
    chown(PLACE, Some(OWNER), Some(OWNER))?;
    Ok(None)
}

fn view_for(uid: u32) -> io::Result<OwnedFd> {
    let users = idmap::users(uid)?;
    view::view(&CString::new(PLACE)?, users.as_fd())
}

impl UserDisk {
    /// After [`mount`] has answered.
    pub fn taken() -> Self {
        Self(())
    }

    /// The disk as the home of a job of this user: a mount at no place, nosuid and nodev, in which what the disk's owner
    /// has is this user's and everything else is nobody's. Whoever makes the job's file system gives it a place there
    /// ([`attach`]).
    ///
    /// # Errors
    /// Those of fork(2), open_tree(2) and mount_setattr(2).
    pub fn view_for(&self, uid: u32) -> io::Result<OwnedFd> {
        view_for(uid)
    }
}

/// Gives a view its place, in the mount namespace of the caller.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach(view: &OwnedFd, target: &str) -> io::Result<()> {
    view::attach(view.as_fd(), &CString::new(target)?)
}

/// Has everything that was written reach the disk. It may hang, so this runs in a child.
///
/// # Errors
/// Those of syncfs(2): EIO if anything since the last time was lost.
pub fn sync() -> io::Result<()> {
    nix::unistd::syncfs(File::open(PLACE)?)?;
    Ok(())
}
