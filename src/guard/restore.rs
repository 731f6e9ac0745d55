//! Putting back what the image has, through the overlay.
//!
//! Never in its upper directory: an overlay whose layers change behind its back may show anything. So what is put
//! back is a copy in memory of what the image has, and a new file each: whoever holds the changed one open, or has a
//! hard link to it, holds nothing that the image's programs read.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstatat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};

use super::ChangeKind;
use super::compare::{Difference, Facts, Kind, Layers};
use super::tree::{self, Tree};
use crate::sys::inode;

/// What is put back is made under this name first.
const TEMPORARY: &str = ".ctxinit-guard";

/// Puts back all of these, as far as possible; a comparison afterwards tells how far that was. `differences` are in
/// the order of their paths.
pub fn restore(layers: &Layers, differences: &[&Difference]) {
    // Room first: a full memory layer takes no copy. What is inside a directory goes before it.
    for added in differences.iter().rev().filter(|each| each.kind == ChangeKind::Added) {
        told(added, remove(&layers.merged, &added.path));
    }
    for other in differences.iter().filter(|each| each.kind != ChangeKind::Added) {
        told(other, copy(layers, &other.path));
    }
}

fn told(difference: &Difference, result: io::Result<()>) {
    if let Err(error) = result {
        let path = crate::text::printable_bytes(difference.path.as_os_str().as_encoded_bytes());
        log::warn!("guard: /{path} cannot be put back: {error}");
    }
}

/// The directory that a path is in, and its name there; the root is in itself.
fn place<'a>(tree: &Tree, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = tree.directory(parent)?.ok_or(Errno::ENOENT)?;
    Ok((directory, path.file_name().unwrap_or(OsStr::new("."))))
}

fn remove(tree: &Tree, path: &Path) -> io::Result<()> {
    let (directory, name) = place(tree, path)?;
    clear(&directory, name)
}

/// Makes sure that nothing has this name. Only an empty directory is removed: what was in it has gone before.
fn clear(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let unlink = || match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => unlinkat(directory, name, UnlinkatFlags::RemoveDir),
        result => result,
    };
    match unlink() {
        Err(Errno::EPERM) => {
            unlock(directory);
            if let Ok(file) = tree::open(directory, name) {
                unlock(&file);
            }
            unlink()?;
            Ok(())
        }
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes away what chattr(1) has set. A file system without such flags has none to take.
fn unlock(file: &impl AsFd) {
    let flags = inode::flags(file);
    if flags & (inode::IMMUTABLE | inode::APPEND) != 0 {
        let _ = inode::set_flags(file, flags & !(inode::IMMUTABLE | inode::APPEND));
    }
}

/// Makes a path what the image has there, with everything below a directory that is not there.
fn copy(layers: &Layers, path: &Path) -> io::Result<()> {
    let (from, name) = place(&layers.lower, path)?;
    let (to, _) = place(&layers.merged, path)?;
    let image = Facts::read(&from, name)?;
    if image.kind != Kind::Directory {
        return copy_file(&image, &from, &to, name);
    }
    let there = Facts::read(&to, name).is_ok_and(|now| now.kind == Kind::Directory);
    if !there {
        clear(&to, name)?;
        unlocked(&to, || mkdirat(&to, name, Mode::S_IRWXU))?;
    }
    properties(&image, &tree::open(&to, name)?)?;
    if !there {
        let names = layers.lower.directory(path)?.as_ref().map(tree::names).transpose()?;
        for name in names.unwrap_or_default() {
            copy(layers, &path.join(name))?;
        }
    }
    times(&from, &to, name, name)
}

/// Anything but a directory: made under another name, then put in the place of what is there.
fn copy_file(image: &Facts, from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let temporary = OsStr::new(TEMPORARY);
    clear(to, temporary)?;
    match image.kind {
        Kind::File => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file: File = unlocked(to, || openat(to, temporary, flags, Mode::S_IRUSR))?.into();
            io::copy(&mut tree::open(from, name)?, &mut file)?;
            properties(image, &file)?;
        }
        Kind::Link => {
            let target = image.target.as_deref().unwrap_or_default();
            unlocked(to, || symlinkat(target, to, temporary))?;
            owner(image, to, temporary)?;
        }
        kind => {
            let kind = match kind {
                Kind::CharDevice => SFlag::S_IFCHR,
                Kind::BlockDevice => SFlag::S_IFBLK,
                Kind::Pipe => SFlag::S_IFIFO,
                _ => SFlag::S_IFSOCK,
            };
            // The umask is ctxinit's and may take something away.
            let mode = Mode::from_bits_truncate(image.mode);
            unlocked(to, || mknodat(to, temporary, kind, mode, image.device))?;
            owner(image, to, temporary)?;
            nix::sys::stat::fchmodat(to, temporary, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
        }
    }
    times(from, to, name, temporary)?;
    // A directory in its place cannot be replaced, and a file that chattr(1) has locked neither.
    if renameat(to, temporary, to, name).is_err() {
        clear(to, name)?;
        renameat(to, temporary, to, name)?;
    }
    Ok(())
}

/// Once more after the directory was unlocked, where that was in the way.
fn unlocked<T>(directory: &OwnedFd, act: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    match act() {
        Err(Errno::EPERM | Errno::EACCES) => {
            unlock(directory);
            act()
        }
        result => result,
    }
}

fn owner(image: &Facts, directory: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(image.uid), Gid::from_raw(image.gid));
    fchownat(directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Owner before mode: chown(2) takes the setuid bit away.
fn properties(image: &Facts, of: &File) -> io::Result<()> {
    unlock(of);
    fchown(of, Some(Uid::from_raw(image.uid)), Some(Gid::from_raw(image.gid)))?;
    of.set_permissions(Permissions::from_mode(image.mode))?;
    for (name, _) in Facts::attributes(of)?.iter().filter(|(name, _)| !image.attributes.contains_key(*name)) {
        inode::remove_attribute(of, name)?;
    }
    for (name, value) in &image.attributes {
        match inode::set_attribute(of, name, value) {
            // Memory that keeps no users' notes lost them already when the file was copied up.
            Err(error) if name.to_bytes().starts_with(b"user.") => log::debug!("{error}"),
            result => result?,
        }
    }
    Ok(())
}

fn times(from: &OwnedFd, to: &OwnedFd, name: &OsStr, copy: &OsStr) -> io::Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let (accessed, modified) =
        (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec));
    utimensat(to, copy, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}
