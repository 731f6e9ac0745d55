//! A tree of files below a descriptor, looked at without following links.
//!
//! Everybody who may change the tree meanwhile is root: a path is resolved by openat2(2), which never leaves the tree.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

/// As much is read at a time.
const CHUNK: usize = 64 * 1024;

/// A directory and all below it.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// Below this directory.
    pub fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// The same tree by a descriptor of its own.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// A directory of the tree, by its path from the tree's root; `None` if there is no directory.
    ///
    /// # Errors
    /// Those of openat2(2) but that there is none.
    pub fn directory(&self, path: &Path) -> nix::Result<Option<OwnedFd>> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.0, path, how) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// The names in a directory.
///
/// # Errors
/// Those of getdents(2).
pub fn names(directory: &OwnedFd) -> nix::Result<BTreeSet<OsString>> {
    // A descriptor of its own, so that reading always begins at the start.
    let mut names = BTreeSet::new();
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    for entry in Dir::openat(directory, ".", flags, Mode::empty())?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Opens a file or directory for reading. A pipe that was put in its place does not block.
///
/// # Errors
/// Those of openat(2).
pub fn open(directory: impl AsFd, name: &OsStr) -> nix::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map(File::from)
}

/// Whether two files hold the same bytes. Holes that both have are not read.
///
/// # Errors
/// Those of read(2), lseek(2) and stat(2).
pub fn same_content(one: &mut File, other: &mut File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        at = match (data(one, at), data(other, at)) {
            (None, None) => return Ok(true),
            (Some(at), None) | (None, Some(at)) => at,
            (Some(left), Some(right)) => left.min(right),
        };
        one.seek(SeekFrom::Start(at))?;
        other.seek(SeekFrom::Start(at))?;
        let count = fill(one, &mut left)?;
        if fill(other, &mut right)? != count || left.get(..count) != right.get(..count) {
            return Ok(false);
        }
        if count < CHUNK {
            return Ok(true);
        }
        at += count as u64;
    }
}

/// Where the next byte is that is not in a hole; `None` if all that follows is one. lseek(2): where a file system does
/// not know, nothing is a hole.
fn data(file: &File, at: u64) -> Option<u64> {
    match lseek(file, at as i64, Whence::SeekData) {
        Ok(data) => Some(data.unsigned_abs().max(at)),
        Err(Errno::ENXIO) => None,
        Err(_) => Some(at),
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// SHA-256 of what a file holds, hexadecimal. `between` is told where each chunk was, and how long.
///
/// # Errors
/// Those of read(2).
pub fn sha256(mut file: impl Read, mut between: impl FnMut(u64, usize)) -> io::Result<String> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let count = fill(&mut file, &mut buffer)?;
        hash.update(buffer.get(..count).unwrap_or_default());
        between(at, count);
        at += count as u64;
        if count < CHUNK {
            return Ok(hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_not_left() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("tree/sub")).unwrap();
        fs::create_dir(at("outside")).unwrap();
        symlink(at("outside"), at("tree/link")).unwrap();
        let tree = Tree::new(File::open(at("tree")).unwrap().into());
        assert!(tree.directory(Path::new("")).unwrap().is_some());
        assert!(tree.directory(Path::new("sub")).unwrap().is_some());
        assert!(tree.directory(Path::new("link")).unwrap().is_none());
        assert!(tree.directory(Path::new("none")).unwrap().is_none());
        assert!(tree.directory(Path::new("../outside")).is_err());
        let root = tree.directory(Path::new("")).unwrap().unwrap();
        assert_eq!(names(&root).unwrap(), ["link", "sub"].map(OsString::from).into());
    }

    #[test]
    fn contents_are_compared_to_their_end() {
        let place = tempfile::tempdir().unwrap();
        let long = vec![7; CHUNK + 3];
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        for (name, bytes) in [("a", &long), ("b", &other), ("c", &long[..CHUNK].to_vec()), ("empty", &Vec::new())] {
            fs::write(place.path().join(name), bytes).unwrap();
        }
        let file = |name: &str| File::open(place.path().join(name)).unwrap();
        let same = |one: &str, two: &str| same_content(&mut file(one), &mut file(two)).unwrap();
        assert!(same("a", "a") && same("empty", "empty") && same("c", "c"));
        // Equal where the first has a hole, and not behind it.
        for (name, last) in [("hole", b"x"), ("other", b"y")] {
            let mut file = File::create(place.path().join(name)).unwrap();
            file.seek(SeekFrom::Start(1 << 42)).unwrap();
            io::Write::write_all(&mut file, last).unwrap();
        }
        assert!(same("hole", "hole") && !same("hole", "other"));
        assert!(!same("a", "b") && !same("a", "c") && !same("c", "a") && !same("empty", "a"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(file("empty"), |_, _| {}).unwrap(), empty);
        assert_ne!(sha256(file("a"), |_, _| {}).unwrap(), sha256(file("b"), |_, _| {}).unwrap());
    }
}
