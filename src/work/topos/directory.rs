//! Results as files of a directory of the site.
//!
//! The worker writes with its own user: who may write there, and who may read what lies there, is the site's to say. A
//! file system that hangs holds up the worker alone, which the agent does not wait for beyond its limit.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{AccessFlags, faccessat};

use crate::work::source::Reply;

/// A directory, and the name of what is not yet whole.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    partial: String,
}

impl Directory {
    /// `who` is one word that nobody else who writes there has.
    pub fn new(path: &Path, who: &str) -> Self {
        Self { path: path.to_owned(), partial: format!(".partial-{who}") }
    }

    /// The path of a file of this name.
    pub fn place(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Whether a result could be stored now: better asked before somebody's work is done in vain.
    pub fn ready(&self) -> Reply {
        let access = || {
            let directory = self.open()?;
            faccessat(&directory, ".", AccessFlags::W_OK | AccessFlags::X_OK, nix::fcntl::AtFlags::empty())
        };
        access().map_or_else(|errno| self.fault(errno), Reply::Done)
    }

    /// Under this name, whole or not at all, also if the machine dies; what lay there before is gone.
    pub fn store(&self, name: &str, result: &[u8]) -> Reply {
        self.write(name, result).map_or_else(|errno| self.fault(errno), Reply::Done)
    }

    /// Whether a file of this name and length is there.
    pub fn has(&self, name: &str, result: &[u8]) -> Reply<bool> {
        let look = || fstatat(self.open()?, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW);
        match look() {
            Ok(stat) => {
                let file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
                Reply::Done(file && u64::try_from(stat.st_size) == Ok(result.len() as u64))
            }
            Err(Errno::ENOENT) => Reply::Done(false),
            Err(errno) => self.fault(errno),
        }
    }

    fn open(&self) -> nix::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(&self.path, flags, Mode::empty()).map(File::from)
    }

    fn write(&self, name: &str, result: &[u8]) -> nix::Result<()> {
        let directory = self.open()?;
        // A link that somebody else put there is not followed.
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // Not for all: other users' jobs may see the directory. A setgid one gives the files to a group.
        let mode = Mode::from_bits_truncate(0o640);
        let mut file = File::from(openat(directory.as_fd(), self.partial.as_str(), flags, mode)?);
        file.write_all(result).and_then(|()| file.sync_all()).map_err(errno)?;
        renameat(directory.as_fd(), self.partial.as_str(), directory.as_fd(), name)?;
        match directory.sync_all().map_err(errno) {
            // Some network file systems have nothing to do for a directory, and say it so.
            Err(Errno::EINVAL) => Ok(()),
            synced => synced,
        }
    }

    fn fault<T>(&self, errno: Errno) -> Reply<T> {
        let why = format!("{}: {}", self.path.display(), io::Error::from(errno));
        match errno {
            Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::ENOTDIR | Errno::ELOOP => Reply::Refused(why),
            // A disk may be emptied, a server come back, an automounter be slow.
            _ => Reply::Unsure { why, sent: true },
        }
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_result_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let results = Directory::new(dir.path(), "vm-0");
        assert_eq!(results.ready(), Reply::Done(()));
        assert_eq!(results.has("mc.1", b"one"), Reply::Done(false));
        assert_eq!(results.store("mc.1", b"one"), Reply::Done(()));
        assert_eq!(fs::read(dir.path().join("mc.1")).unwrap(), b"one");
        assert_eq!(fs::metadata(dir.path().join("mc.1")).unwrap().permissions().mode() & 0o7137, 0);
        assert_eq!(results.has("mc.1", b"one"), Reply::Done(true));
        assert_eq!(results.has("mc.1", b"four"), Reply::Done(false));
        // The same token again, and what a machine left that died at work.
        fs::write(dir.path().join(".partial-vm-0"), b"longer than that").unwrap();
        assert_eq!(results.store("mc.1", b"1"), Reply::Done(()));
        assert_eq!(fs::read(dir.path().join("mc.1")).unwrap(), b"1");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, b"mine").unwrap();
        let results = Directory::new(dir.path(), "vm-0");
        symlink(&victim, dir.path().join(".partial-vm-0")).unwrap();
        assert!(matches!(results.store("mc.1", b"x"), Reply::Refused(_)));
        fs::remove_file(dir.path().join(".partial-vm-0")).unwrap();
        // The link itself is replaced.
        symlink(&victim, dir.path().join("mc.1")).unwrap();
        assert_eq!(results.has("mc.1", b"mine"), Reply::Done(false));
        assert_eq!(results.store("mc.1", b"x"), Reply::Done(()));
        assert_eq!(fs::read(victim).unwrap(), b"mine");
        assert_eq!(fs::read(dir.path().join("mc.1")).unwrap(), b"x");
    }

    #[test]
    fn what_may_pass_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Directory::new(&dir.path().join("none"), "vm-0");
        let why = format!("{}: No such file or directory (os error 2)", dir.path().join("none").display());
        assert_eq!(missing.ready(), Reply::Unsure { why, sent: true });
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let why = format!("{}: Not a directory (os error 20)", file.display());
        assert_eq!(Directory::new(&file, "vm-0").store("mc.1", b"x"), Reply::Refused(why));
    }
}
