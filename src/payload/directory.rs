//! The directory of a job: a tmpfs of its own, of bounded size, that goes with the job.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};

use nix::libc;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid, chown};

use super::error::JobError;
use super::{isolation, mutation};
use crate::mounts;

/// Job directories, as the machine sees them; each is a tmpfs of its own.
const JOBS: &str = "/run/ctxinit/jobs";
/// Files and directories in a MiB of a job's directory: as many as there are pages.
const FILES_A_MIB: u64 = 256;
const MIB: u64 = 1024 * 1024;
/// In a job's directory: where the user's disk is put.
pub(super) const DISK: &str = "disk";

/// A job directory; unmounted when dropped, with everything in it. Empty once that is done.
#[derive(Debug)]
pub struct JobDir(String);

impl Drop for JobDir {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let removed = mounts::unmount(&self.0).map_err(JobError::from).and_then(|()| self.remove_place());
        if let Err(error) = removed {
            log::warn!("job directory: {error}");
        }
    }
}

impl JobDir {
    /// Mounts it.
    ///
    /// # Errors
    /// The mount, or a limit that reads back otherwise.
    pub fn make(name: &str, mebibytes: u32) -> Result<Self, JobError> {
        let path = format!("{JOBS}/{name}");
        fs::create_dir_all(&path).map_err(|error| JobError::File { path: path.clone(), error })?;
        let (size, files) = (u64::from(mebibytes) * MIB, u64::from(mebibytes) * FILES_A_MIB);
        let mut options = "mode=0755".to_owned();
        for (name, option) in
            [("scratch size", format!(",size={size}")), ("scratch inodes", format!(",nr_inodes={files}"))]
        {
            if mutation::taken(name) {
                options += &option;
            }
        }
        mounts::safe_tmpfs(&path, &options)?;
        let dir = Self(path);
        let found = statvfs(dir.0.as_str()).map_err(|errno| dir.failed("", errno.into()))?;
        let limits = [
            ("scratch size", "size", found.blocks() * found.fragment_size(), size),
            ("scratch inodes", "files", found.files(), files),
        ];
        for (step, what, found, wanted) in limits {
            if found != wanted && !mutation::removed(step) {
                return Err(JobError::Scratch { step, path: dir.0.clone(), what, found, wanted });
            }
        }
        Ok(dir)
    }

    /// Removes it with everything in it, if nobody holds any of it; again, if that has been done.
    pub(super) fn remove(&mut self) -> Result<(), JobError> {
        if self.0.is_empty() {
            return Ok(());
        }
        match mounts::unmount_free(&self.0) {
            // No mount: an earlier try took it off, and this one proves it.
            Err(error) if error.errno() == libc::EINVAL => {}
            unmounted => unmounted?,
        }
        self.remove_place()
    }

    /// A directory that something is mounted on cannot be removed, so this proves that nothing is.
    fn remove_place(&mut self) -> Result<(), JobError> {
        fs::remove_dir(&self.0).map_err(|error| self.failed("", error))?;
        self.0.clear();
        Ok(())
    }

    /// As the machine sees it.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Its file system.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn device(&self) -> Result<u64, JobError> {
        fs::metadata(&self.0).map(|of| of.dev()).map_err(|error| self.failed("", error))
    }

    /// What the program finds in it. The top is root's, so that none of these can be put elsewhere.
    ///
    /// # Errors
    /// The file.
    pub fn furnish(&self, uid: u32, token: Option<&[u8]>, disk: bool) -> Result<(), JobError> {
        for name in ["home", "tmp", "shm"] {
            self.make_dir(name, 0o700)?;
            self.give(name, uid)?;
        }
        self.make_dir("etc", 0o755)?;
        if disk {
            // Root's: without the disk on it nobody writes there.
            self.make_dir(DISK, 0o700)?;
        }
        let home = if disk { DISK } else { "home" };
        let account = format!("payload:x:{uid}:{uid}:payload:{}/{home}:/bin/sh", isolation::INSIDE);
        self.write("etc/passwd", 0o644, accounts("/etc/passwd", &account).as_bytes())?;
        self.write("etc/group", 0o644, accounts("/etc/group", &format!("payload:x:{uid}:")).as_bytes())?;
        self.write("etc/canary", 0o600, b"")?;
        // The token's value goes in a file and never near a shell: whoever knows a pool's name can write to it.
        if let Some(token) = token {
            self.write("home/token", 0o600, token)?;
            self.give("home/token", uid)?;
        }
        Ok(())
    }

    pub(super) fn make_dir(&self, name: &str, mode: u32) -> Result<(), JobError> {
        let made = DirBuilder::new().mode(mode).create(format!("{}/{name}", self.0));
        made.map_err(|error| self.failed(name, error))
    }

    pub(super) fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), JobError> {
        let path = format!("{}/{name}", self.0);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        file.and_then(|mut file| file.write_all(content)).map_err(|error| self.failed(name, error))
    }

    pub(super) fn give(&self, name: &str, uid: u32) -> Result<(), JobError> {
        let path = format!("{}/{name}", self.0);
        let given = chown(path.as_str(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
        given.map_err(|errno| self.failed(name, errno.into()))
    }

    pub(super) fn failed(&self, name: &str, error: io::Error) -> JobError {
        JobError::File { path: format!("{}/{name}", self.0), error }
    }
}

/// The image's accounts and the job's own.
fn accounts(path: &str, own: &str) -> String {
    with_account(&fs::read_to_string(path).unwrap_or_default(), own)
}

/// A file of accounts with one more line. Of a name that is there twice a program sees the first, so the image's goes.
fn with_account(text: &str, own: &str) -> String {
    let name = own.split(':').next().unwrap_or_default();
    let others = text.lines().filter(|line| line.split(':').next() != Some(name));
    others.chain([own]).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_an_account_of_its_own() {
        let own = "payload:x:66000:66000:payload:/run/ctxinit/home:/bin/sh";
        let cases = [
            ("", format!("{own}\n")),
            ("root:x:0:0::/:/bin/sh", format!("root:x:0:0::/:/bin/sh\n{own}\n")),
            ("payload:x:0:0::/:/bin/sh\npayloads:x:7:7::/:\n", format!("payloads:x:7:7::/:\n{own}\n")),
        ];
        for (image, expected) in cases {
            assert_eq!(with_account(image, own), expected);
        }
    }
}
