//! What is different between the image and what the machine sees of it.
//!
//! Only directories of which the overlay's upper layer holds something can be different, so only these are looked
//! at: what is in the upper layer by name, and what is missing by the names of both. An unread file costs nothing.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::ChangeKind;
use super::tree::{self, Tree};
use crate::sys::inode;

/// So many bytes of a file may be holes before its content is not hashed: a linker leaves some.
const HOLES: u64 = 64 * 1024;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
        })
    }
}

/// Everything of a name but its content. Times do not count: they change when somebody looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Which device, for a device node.
    pub device: u64,
    /// Bytes of a regular file.
    pub size: u64,
    /// Whether a regular file has far more of them than anybody has written: nobody reads to the end of that.
    pub sparse: bool,
    /// Where a link points to.
    pub target: Option<OsString>,
    /// Capabilities, access lists and what users have noted.
    pub attributes: BTreeMap<CString, Vec<u8>>,
    /// Immutable, append only.
    pub flags: i32,
}

/// One difference.
#[derive(Clone, Debug)]
pub struct Difference {
    /// From the root, without a `/` in front.
    pub path: PathBuf,
    /// How it differs.
    pub kind: ChangeKind,
    /// What is there now.
    pub now: Option<Facts>,
    /// In words.
    pub what: String,
    /// Of a regular file's content as it is now, but not of a sparse one's.
    pub sha256: Option<String>,
    /// Why it could not be looked at: then nobody knows what it is.
    pub fault: Option<String>,
}

/// Image, upper layer, and what the machine sees.
#[derive(Debug)]
pub struct Layers {
    /// The image alone.
    pub lower: Tree,
    /// What was written.
    pub upper: Tree,
    /// Both.
    pub merged: Tree,
}

impl Facts {
    /// Of something without any property; the rest for whoever needs some.
    pub fn nothing(kind: Kind) -> Self {
        Self {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            device: 0,
            size: 0,
            sparse: false,
            target: None,
            attributes: BTreeMap::new(),
            flags: 0,
        }
    }

    /// Of a name in a directory.
    ///
    /// # Errors
    /// Those of stat(2), open(2), readlink(2) and of reading extended attributes.
    pub fn read(directory: &OwnedFd, name: &OsStr) -> io::Result<Self> {
        let facts = Self::from_stat(&fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)?;
        match facts.kind {
            Kind::File | Kind::Directory => {
                let file = tree::open(directory, name)?;
                // Of what was opened, should it be another by now.
                let facts = Self::from_stat(&fstat(&file)?)?;
                let attributes = Self::attributes(&file)?;
                Ok(Self { attributes, flags: inode::flags(&file) & (inode::IMMUTABLE | inode::APPEND), ..facts })
            }
            Kind::Link => Ok(Self { target: Some(readlinkat(directory, name)?), ..facts }),
            _ => Ok(facts),
        }
    }

    /// Extended attributes, as far as they count: the overlay's own are hidden, and others have no meaning here.
    ///
    /// # Errors
    /// Those of reading them.
    pub fn attributes(of: &impl AsFd) -> io::Result<BTreeMap<CString, Vec<u8>>> {
        const COUNT: [&[u8]; 3] = [b"security.", b"system.posix_acl_", b"user."];
        let counts = |name: &[u8]| COUNT.iter().any(|prefix| name.starts_with(prefix));
        Ok(inode::attributes(of)?.into_iter().filter(|(name, _)| counts(name.to_bytes())).collect())
    }

    fn from_stat(stat: &FileStat) -> io::Result<Self> {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link,
            SFlag::S_IFCHR => Kind::CharDevice,
            SFlag::S_IFBLK => Kind::BlockDevice,
            SFlag::S_IFIFO => Kind::Pipe,
            SFlag::S_IFSOCK => Kind::Socket,
            _ => return Err(io::Error::other("of a kind that nobody knows")),
        };
        let device = if matches!(kind, Kind::CharDevice | Kind::BlockDevice) { stat.st_rdev } else { 0 };
        let size = if kind == Kind::File { stat.st_size.unsigned_abs() } else { 0 };
        // stat(2): blocks of 512 bytes, whatever the file system's are.
        let sparse = size > stat.st_blocks.unsigned_abs().saturating_mul(512) + HOLES;
        let (mode, uid, gid) = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
        Ok(Self { mode, uid, gid, device, size, sparse, ..Self::nothing(kind) })
    }

    /// What it is, in words.
    fn told(&self) -> String {
        let mut words = match (&self.target, self.kind) {
            (Some(target), _) => format!("link to {}", crate::text::printable_bytes(target.as_encoded_bytes())),
            (None, kind) => format!("{kind}, mode {:o}", self.mode),
        };
        words += &format!(", owner {}:{}", self.uid, self.gid);
        if !self.attributes.is_empty() {
            words += &format!(", {}", attribute_names(self.attributes.keys()));
        }
        if self.sparse {
            words += ", sparse";
        }
        words + flag_words(self.flags)
    }
}

fn attribute_names<'a>(names: impl Iterator<Item = &'a CString>) -> String {
    names.map(|name| crate::text::printable_bytes(name.to_bytes())).collect::<Vec<_>>().join(" ")
}

fn flag_words(flags: i32) -> &'static str {
    match (flags & inode::IMMUTABLE != 0, flags & inode::APPEND != 0) {
        (false, false) => "",
        (true, false) => ", immutable",
        (false, true) => ", append only",
        (true, true) => ", immutable, append only",
    }
}

/// What is different of two facts, in words; empty if nothing is.
fn differing(image: &Facts, now: &Facts) -> String {
    if image.kind != now.kind {
        return format!("{} in place of a {}", now.told(), image.kind);
    }
    let mut words = Vec::new();
    // A link's mode means nothing, and an overlay in memory shows another than a disk.
    if image.mode != now.mode && now.kind != Kind::Link {
        words.push(format!("mode {:o} in place of {:o}", now.mode, image.mode));
    }
    if (image.uid, image.gid) != (now.uid, now.gid) {
        words.push(format!("owner {}:{} in place of {}:{}", now.uid, now.gid, image.uid, image.gid));
    }
    if image.device != now.device {
        words.push("another device".to_owned());
    }
    if let (true, Some(target)) = (image.target != now.target, &now.target) {
        words.push(format!("link to {}", crate::text::printable_bytes(target.as_encoded_bytes())));
    }
    // A user's note that the memory below the overlay cannot keep is lost when the file is copied up.
    let lost = |name: &CString| name.to_bytes().starts_with(b"user.") && !now.attributes.contains_key(name);
    let image_has = image.attributes.iter().filter(|(name, _)| !lost(name));
    let changed = image_has.filter(|(name, value)| now.attributes.get(*name) != Some(value)).map(|(name, _)| name);
    let names: Vec<_> =
        changed.chain(now.attributes.keys().filter(|name| !image.attributes.contains_key(*name))).collect();
    if !names.is_empty() {
        words.push(attribute_names(names.into_iter()));
    }
    if image.flags != now.flags {
        words.push(flag_words(now.flags).strip_prefix(", ").unwrap_or("not immutable").to_owned());
    }
    words.join(", ")
}

/// Everything that is different, in the order of the paths.
///
/// # Errors
/// A root that cannot be read. Whatever else cannot be read is a difference with a fault.
pub fn differences(layers: &Layers) -> io::Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    let root = Path::new("");
    let of_root = |tree: &Tree| Ok::<_, io::Error>(tree.directory(root)?.ok_or(nix::Error::ENOTDIR)?);
    let facts = |tree: &Tree| Facts::read(&of_root(tree)?, OsStr::new("."));
    let (image, now) = (facts(&layers.lower)?, facts(&layers.merged)?);
    let what = differing(&image, &now);
    if !what.is_empty() {
        found.push(Difference { what, now: Some(now), ..Difference::new(PathBuf::new(), ChangeKind::Changed) });
    }
    while let Some(path) = pending.pop() {
        if let Err(error) = directory(layers, &path, &mut found, &mut pending) {
            found.push(Difference::unknown(path, &error));
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// One directory that image and machine have. Those below it that may differ come to `pending`.
fn directory(layers: &Layers, path: &Path, found: &mut Vec<Difference>, pending: &mut Vec<PathBuf>) -> io::Result<()> {
    let open = |tree: &Tree| tree.directory(path);
    let (Some(lower), Some(upper), Some(merged)) = (open(&layers.lower)?, open(&layers.upper)?, open(&layers.merged)?)
    else {
        // It was a directory in all three a moment ago.
        found.push(Difference::moving(path.to_owned()));
        return Ok(());
    };
    let (of_image, of_upper, now) = (tree::names(&lower)?, tree::names(&upper)?, tree::names(&merged)?);
    for name in of_image.difference(&now) {
        let what = Facts::read(&lower, name).map_or_else(|error| error.to_string(), |facts| facts.kind.to_string());
        found.push(Difference { what, ..Difference::new(path.join(name), ChangeKind::Removed) });
    }
    for name in &now {
        if !of_image.contains(name) {
            if let Some(new) = added(&layers.merged, path.join(name)) {
                with_all_below(&layers.merged, new, found);
            }
        } else if of_upper.contains(name) {
            match changed(&lower, &merged, path.join(name), name) {
                Ok(Pair::Directories(difference)) => {
                    found.extend(difference);
                    pending.push(path.join(name));
                }
                Ok(Pair::Other(Some(difference))) => with_all_below(&layers.merged, difference, found),
                Ok(Pair::Other(None)) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => found.push(Difference::moving(path.join(name))),
                Err(error) => found.push(Difference::unknown(path.join(name), &error)),
            }
        }
    }
    Ok(())
}

/// What became of a name that image and machine have.
enum Pair {
    Directories(Option<Difference>),
    Other(Option<Difference>),
}

fn changed(lower: &OwnedFd, merged: &OwnedFd, path: PathBuf, name: &OsStr) -> io::Result<Pair> {
    let (image, now) = (Facts::read(lower, name)?, Facts::read(merged, name)?);
    let mut what = differing(&image, &now);
    let both = |kind| image.kind == kind && now.kind == kind;
    let mut sha256 = None;
    if both(Kind::File) {
        let same = image.size == now.size
            && tree::same_content(&mut tree::open(lower, name)?, &mut tree::open(merged, name)?)?;
        if !same {
            what = if what.is_empty() { "content".to_owned() } else { format!("content, {what}") };
        }
    }
    if now.kind == Kind::File && !what.is_empty() {
        sha256 = hash(merged, name, &now)?;
        if now.sparse && image.kind == Kind::File {
            what += ", sparse";
        }
    }
    let directories = both(Kind::Directory);
    let difference = Difference { what, now: Some(now), sha256, ..Difference::new(path, ChangeKind::Changed) };
    let difference = Some(difference).filter(|difference| !difference.what.is_empty());
    Ok(if directories { Pair::Directories(difference) } else { Pair::Other(difference) })
}

/// Of a regular file's content. Nothing of a sparse one: 4 TB of it are made in no time, and read in hours.
fn hash(directory: &OwnedFd, name: &OsStr, now: &Facts) -> io::Result<Option<String>> {
    if now.kind != Kind::File || now.sparse {
        return Ok(None);
    }
    // It may have grown since; as much as it had is enough to tell it from others.
    let content = tree::open(directory, name)?.take(now.size);
    tree::sha256(content, |_, _| {}).map(Some)
}

/// Something that only the machine has; `None` if it is gone by now, as a daemon's files are.
fn added(merged: &Tree, path: PathBuf) -> Option<Difference> {
    let look = || {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let directory = merged.directory(parent)?.ok_or(nix::Error::ENOENT)?;
        let now = Facts::read(&directory, name)?;
        let sha256 = hash(&directory, name, &now)?;
        Ok::<_, io::Error>((now, sha256))
    };
    match look() {
        Ok((now, sha256)) => {
            let what = now.told();
            Some(Difference { what, now: Some(now), sha256, ..Difference::new(path, ChangeKind::Added) })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(Difference { kind: ChangeKind::Added, ..Difference::unknown(path, &error) }),
    }
}

/// A difference, and all below it if it is a directory that the image does not have. Not by recursion: a tree may
/// be deeper than a stack.
fn with_all_below(merged: &Tree, top: Difference, found: &mut Vec<Difference>) {
    let mut pending: Vec<PathBuf> = top.is_directory().then(|| top.path.clone()).into_iter().collect();
    found.push(top);
    while let Some(path) = pending.pop() {
        let names = merged.directory(&path).and_then(|directory| directory.as_ref().map(tree::names).transpose());
        match names {
            Ok(names) => {
                for name in names.unwrap_or_default() {
                    let Some(new) = added(merged, path.join(name)) else { continue };
                    if new.is_directory() {
                        pending.push(new.path.clone());
                    }
                    found.push(new);
                }
            }
            Err(errno) => found.push(Difference::unknown(path, &errno.into())),
        }
    }
}

impl Difference {
    fn new(path: PathBuf, kind: ChangeKind) -> Self {
        Self { path, kind, now: None, what: String::new(), sha256: None, fault: None }
    }

    /// What it is by now is seen with the next look; where it lies tells whether it may change.
    fn moving(path: PathBuf) -> Self {
        Self { what: "changed while it was looked at".to_owned(), ..Self::new(path, ChangeKind::Changed) }
    }

    fn unknown(path: PathBuf, error: &io::Error) -> Self {
        let fault = Some(format!("cannot be looked at: {error}"));
        Self { fault, ..Self::new(path, ChangeKind::Changed) }
    }

    fn is_directory(&self) -> bool {
        self.now.as_ref().is_some_and(|now| now.kind == Kind::Directory)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_directory_that_vanishes_under_the_look_is_a_difference() {
        let place = tempfile::tempdir().unwrap();
        let tree = |name: &str| {
            fs::create_dir(place.path().join(name)).unwrap();
            Tree::new(File::open(place.path().join(name)).unwrap().into())
        };
        let layers = Layers { lower: tree("lower"), upper: tree("upper"), merged: tree("merged") };
        fs::create_dir(place.path().join("lower/usr")).unwrap();
        let mut found = Vec::new();
        directory(&layers, Path::new("usr"), &mut found, &mut Vec::new()).unwrap();
        assert_eq!((found.len(), found[0].what.as_str()), (1, "changed while it was looked at"));
    }
}
