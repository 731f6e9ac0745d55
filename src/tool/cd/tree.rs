//! What is on a CD, from the directory that it will be made of or from the ISO image that it is.

use std::fs;
use std::path::{Path, PathBuf};

use super::volume::Volume;
use super::{CdError, at, iso};

/// Deeper than any guest goes; a loop of bind mounts must not keep us for ever.
const MAX_DEPTH: usize = 64;

/// A CD's files.
#[derive(Debug)]
pub struct Tree {
    /// What the user named.
    pub name: String,
    /// Of an ISO image.
    pub volume: Option<Volume>,
    /// In the order of their paths, without the root itself.
    pub entries: Vec<Entry>,
    root: PathBuf,
    /// Removed with this.
    _copy: Option<tempfile::TempDir>,
}

/// A file, directory, link or something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path on the CD, `lib/helper.sh`; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// The same, as it is.
    pub place: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With its size in bytes.
    File(u64),
    /// Whose entries are entries of the tree.
    Directory,
    /// With what it holds.
    Link(PathBuf),
    /// Device, pipe or socket.
    Special,
}

impl Tree {
    /// Lists a directory, or extracts an ISO image and lists that.
    ///
    /// # Errors
    /// If it cannot be read at all. A truncated image is no error: it has a volume and no entries.
    pub fn open(path: &Path) -> Result<Self, CdError> {
        if fs::metadata(path).map_err(at(path))?.is_dir() {
            return Self::of_directory(path);
        }
        let volume = Volume::open(path)?;
        let copy = tempfile::Builder::new().prefix("ctxtool-").tempdir().map_err(at(&std::env::temp_dir()))?;
        let mut entries = Vec::new();
        if volume.present >= volume.size {
            iso::extract(path, copy.path())?;
            entries = list(copy.path())?;
        }
        let root = copy.path().to_owned();
        Ok(Self { name: path.display().to_string(), volume: Some(volume), entries, root, _copy: Some(copy) })
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn of_directory(path: &Path) -> Result<Self, CdError> {
        let entries = list(path)?;
        Ok(Self { name: path.display().to_string(), volume: None, entries, root: path.to_owned(), _copy: None })
    }

    /// What the guest sees under this name, links not followed.
    pub fn get(&self, path: &str) -> Option<&Kind> {
        self.entries.iter().find(|entry| entry.path == path).map(|entry| &entry.kind)
    }

    /// Whether a file of this name can be read, directly or by links that stay on the CD.
    pub fn has_file(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// The content of a file, `None` if there is none of this name.
    ///
    /// # Errors
    /// Those of reading, with the path.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, CdError> {
        let Some(path) = self.resolve(path) else { return Ok(None) };
        fs::read(&path).map(Some).map_err(at(&path))
    }

    fn resolve(&self, path: &str) -> Option<PathBuf> {
        self.place(path).filter(|real| real.is_file())
    }

    /// Where something lies, here. Follows links, but never out of the CD: what lies there is ours and not the guest's.
    pub fn place(&self, path: &str) -> Option<PathBuf> {
        let root = self.root.canonicalize().ok()?;
        let real = root.join(path).canonicalize().ok()?;
        real.starts_with(&root).then_some(real)
    }

    /// Where the files lie, here.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The regular files, with their sizes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().filter_map(|entry| match entry.kind {
            Kind::File(size) => Some((entry.path.as_str(), size)),
            _ => None,
        })
    }
}

/// Everything in a directory, in the order of the paths: a directory comes before what is in it.
pub fn list(root: &Path) -> Result<Vec<Entry>, CdError> {
    let mut entries = Vec::new();
    walk(root, Path::new(""), 0, &mut entries)?;
    entries.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(entries)
}

fn walk(root: &Path, below: &Path, depth: usize, entries: &mut Vec<Entry>) -> Result<(), CdError> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).map_err(at(&dir))? {
        let entry = entry.map_err(at(&dir))?;
        let place = below.join(entry.file_name());
        let metadata = entry.metadata().map_err(at(&entry.path()))?;
        let kind = if metadata.is_dir() {
            if depth < MAX_DEPTH {
                walk(root, &place, depth + 1, entries)?;
            }
            Kind::Directory
        } else if metadata.is_symlink() {
            Kind::Link(fs::read_link(entry.path()).map_err(at(&entry.path()))?)
        } else if metadata.is_file() {
            Kind::File(metadata.len())
        } else {
            Kind::Special
        };
        entries.push(Entry { path: place.to_string_lossy().into_owned(), place, kind });
    }
    Ok(())
}
