//! The context CD: found by its content, read whole into memory, and let go.
//!
//! Everything here runs in a child of the agent with mounts of its own: a drive that never answers holds
//! that child and not the agent, and no other process ever sees the CD mounted. A mount that succeeded
//! proves nothing (a truncated image mounts, lists, and fails at each read), so a script runs only from a
//! medium that was read to its end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::devices::block::Block;
use crate::devices::content::Content;
use crate::mounts;

/// Where the copy lies; a tmpfs that the agent has mounted.
pub const COPY: &str = "/run/ctxinit/context";

/// One of these in its root makes a volume a context CD, whatever its label and its device.
const MARKS: &[&str] = &["prolog.sh", "epilog.sh", "context.sh", "context.json"];

/// Deeper nesting than any site's CD has, and files than any needs.
const MAX_DEPTH: usize = 16;
const MAX_FILES: usize = 10_000;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Kernel name of the device.
    pub device: String,
    /// ISO 9660 volume identifier.
    pub volume: String,
    /// Regular files copied.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What one look at the candidates gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// One context CD, and its copy is whole.
    Found(Medium),
    /// No context CD now; what was seen instead, a phrase a device.
    Nothing(Vec<String>),
    /// A context CD that could not be read; it may be a passing fault of the drive.
    Broken(String),
    /// Two or more; all of them named.
    Several(Vec<String>),
}

/// Looks at every read-only device, and copies the one context CD to [`COPY`]. Runs in its own process.
pub fn look(limit: u64) -> Look {
    let own_mounts = unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from);
    let own_mounts = own_mounts.and_then(|()| mounts::make_private().map_err(io::Error::other));
    if let Err(error) = own_mounts {
        return Look::Broken(format!("no mount namespace to read the CD in: {error}"));
    }
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for block in Block::all().into_iter().filter(|block| block.read_only) {
        match candidate(&block) {
            Ok(Candidate::Context { volume, mounted }) => found.push((block.name, volume, mounted)),
            Ok(Candidate::Other(what)) => seen.push(format!("{}: {what}", block.name)),
            Err(Trouble::Empty(why)) => seen.push(format!("{}: {why}", block.name)),
            Err(Trouble::Unreadable(why)) => return Look::Broken(format!("{}: {why}", block.node())),
        }
    }
    match found.as_slice() {
        [] => Look::Nothing(seen),
        [(device, volume, mounted)] => match Copier::new(limit).run(mounted) {
            Ok((files, bytes)) => Look::Found(Medium { device: device.clone(), volume: volume.clone(), files, bytes }),
            Err(why) => Look::Broken(format!("/dev/{device}: {why}")),
        },
        several => {
            Look::Several(several.iter().map(|(device, volume, _)| format!("/dev/{device} ({volume})")).collect())
        }
    }
}

enum Candidate {
    /// With one of the marks in its root.
    Context {
        volume: String,
        mounted: PathBuf,
    },
    Other(String),
}

enum Trouble {
    /// No disc, or not ready: not a CD, for now.
    Empty(String),
    /// An ISO 9660 volume that cannot be mounted or listed.
    Unreadable(String),
}

fn candidate(block: &Block) -> Result<Candidate, Trouble> {
    let volume = match block.content() {
        Ok(Content::Iso9660(volume)) => volume,
        Ok(_) => return Ok(Candidate::Other("not ISO 9660".to_owned())),
        // No disc, or none yet; anything else is a disc that cannot be read, which may pass.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEDIUM | libc::ENXIO | libc::ENOENT)) => {
            return Err(Trouble::Empty(error.to_string()));
        }
        Err(error) => return Err(Trouble::Unreadable(error.to_string())),
    };
    let mounted = PathBuf::from(format!("/run/ctxinit/cd-{}", block.name));
    let unreadable = |error: io::Error| Trouble::Unreadable(error.to_string());
    fs::create_dir_all(&mounted).map_err(unreadable)?;
    mounts::medium(&block.node(), &mounted.to_string_lossy(), "iso9660")
        .map_err(|error| Trouble::Unreadable(error.to_string()))?;
    let names = fs::read_dir(&mounted).and_then(|dir| dir.map(|entry| Ok(entry?.file_name())).collect());
    let names: Vec<std::ffi::OsString> = names.map_err(unreadable)?;
    if names.iter().any(|name| MARKS.iter().any(|mark| name == mark)) {
        Ok(Candidate::Context { volume, mounted })
    } else {
        Ok(Candidate::Other(format!("ISO 9660 volume {volume:?} without a context")))
    }
}

/// Copies a tree within bounds.
struct Copier {
    left: u64,
    limit: u64,
    files: usize,
}

impl Copier {
    fn new(limit: u64) -> Self {
        Self { left: limit, limit, files: 0 }
    }

    fn run(mut self, root: &Path) -> Result<(usize, u64), String> {
        empty(Path::new(COPY)).map_err(|error| format!("{COPY}: {error}"))?;
        self.directory(root, Path::new(COPY), 0)?;
        Ok((self.files, self.limit - self.left))
    }

    fn directory(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", from.display());
        if depth > MAX_DEPTH {
            return Err(format!("{}: more than {MAX_DEPTH} directories deep", from.display()));
        }
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let failed = |error: io::Error| format!("{}: {error}", source.display());
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                fs::create_dir(&target).map_err(failed)?;
                self.directory(&source, &target, depth + 1)?;
            } else if kind.is_symlink() {
                symlink(fs::read_link(&source).map_err(failed)?, &target).map_err(failed)?;
            } else if kind.is_file() {
                self.file(&source, &target)?;
            }
            // Devices, sockets and pipes have no place on a context CD and are left behind.
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", from.display());
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(format!("more than {MAX_FILES} files"));
        }
        let mut source = File::open(from).map_err(failed)?;
        let expected = source.metadata().map_err(failed)?.len();
        // Mode 700, as the HEPiX copy has it: a script may run its helpers, nobody else may read them.
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o700).open(to).map_err(failed)?;
        let mut chunk = [0; 64 * 1024];
        let mut copied = 0;
        loop {
            let count = source.read(&mut chunk).map_err(failed)?;
            if count == 0 {
                break;
            }
            copied += count as u64;
            let Some(left) = self.left.checked_sub(count as u64) else {
                return Err(format!("its files take more than the image's medium.size_mb, {} bytes", self.limit));
            };
            self.left = left;
            target.write_all(chunk.get(..count).unwrap_or_default()).map_err(failed)?;
        }
        if copied != expected {
            return Err(format!("{}: {copied} bytes of {expected} could be read", from.display()));
        }
        Ok(())
    }
}

/// A second attempt must not find the first one's remains.
fn empty(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}
