//! Users' disks on the host: made, looked at, and the programs for them that a tiny image may hold.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::machine::Machine;
use crate::process;

/// On a loaded host.
const LIMIT: Duration = Duration::from_secs(60);
/// Of the cases' disks, but for XFS, whose maker refuses less than 300 MiB.
pub const SIZE: u64 = 48 << 20;
pub const SIZE_XFS: u64 = 320 << 20;

/// A disk that the host lets a machine write to.
pub struct Disk(PathBuf);

impl Disk {
    /// Nothing but zeroes, without taking room on the host.
    pub fn blank(dir: &Path, name: &str, bytes: u64) -> Result<Self, String> {
        let disk = Self(dir.join(name));
        disk.open()?.set_len(bytes).map_err(|error| disk.told(&error))?;
        Ok(disk)
    }

    /// An ext4 with these words for mke2fs.
    pub fn ext4(dir: &Path, name: &str, words: &[&str]) -> Result<Self, String> {
        let disk = Self::blank(dir, name, SIZE)?;
        process::make(Command::new("mke2fs").args(["-q", "-t", "ext4"]).args(words).arg(&disk.0), LIMIT)?;
        Ok(disk)
    }

    /// An XFS with this label.
    pub fn xfs(dir: &Path, name: &str, label: &str) -> Result<Self, String> {
        let disk = Self::blank(dir, name, SIZE_XFS)?;
        process::make(Command::new("mkfs.xfs").args(["-q", "-L", label]).arg(&disk.0), LIMIT)?;
        Ok(disk)
    }

    fn open(&self) -> Result<File, String> {
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&self.0);
        options.map_err(|error| self.told(&error))
    }

    fn told(&self, error: &dyn std::fmt::Display) -> String {
        format!("{}: {error}", self.0.display())
    }

    /// Writes there.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        let mut file = self.open()?;
        let written = file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes));
        written.map_err(|error| self.told(&error))
    }

    /// Makes it larger.
    pub fn extend(&self, bytes: u64) -> Result<(), String> {
        self.open()?.set_len(bytes).map_err(|error| self.told(&error))
    }

    /// Everything on it, to be compared with later.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes).map_err(|error| self.told(&error))?;
        Ok(bytes)
    }

    /// What debugfs says.
    pub fn debugfs(&self, command: &str) -> Result<String, String> {
        process::output(Command::new("debugfs").args(["-R", command]).arg(&self.0), LIMIT)
    }

    /// Has debugfs change something.
    pub fn change(&self, command: &str) -> Result<(), String> {
        process::make(Command::new("debugfs").args(["-w", "-R", command]).arg(&self.0), LIMIT)
    }

    /// Checks that an ext4 was let go in order: nothing in its journal, and no fault.
    pub fn expect_clean(&self) -> Result<(), String> {
        let header = process::output(Command::new("dumpe2fs").arg("-h").arg(&self.0), LIMIT)?;
        if header.contains("needs_recovery") || !header.contains("Filesystem state:         clean") {
            return Err(self.told(&"expected a clean file system with an empty journal"));
        }
        process::make(Command::new("e2fsck").args(["-f", "-n"]).arg(&self.0), LIMIT)
    }

    /// Hangs it on a machine.
    pub fn of(&self, machine: Machine) -> Machine {
        self.with(machine, "")
    }

    /// The same as a disk that the machine cannot write to.
    pub fn read_only(&self, machine: Machine) -> Machine {
        self.with(machine, ",readonly=on")
    }

    fn with(&self, machine: Machine, more: &str) -> Machine {
        let id = self.0.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let drive = format!("if=none,id={id},format=raw,file={}{more}", self.0.display());
        machine.qemu(["-drive", &drive, "-device", &format!("virtio-blk-pci,drive={id}")])
    }
}

/// Programs of the host and the libraries that they need, each with its place in an image.
pub fn programs(names: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut files = Vec::new();
    for name in names {
        let path =
            ["/usr/sbin", "/sbin"].iter().map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).exists());
        let path = path.ok_or_else(|| format!("no {name} on this host; scripts/setup installs it"))?;
        files.push((path.clone(), format!("usr/sbin/{name}")));
        let libraries = process::output(Command::new("ldd").arg(&path), LIMIT)?;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = library.trim_start_matches('/').to_owned();
            // One library may have two names.
            if fs::exists(library).unwrap_or(false) && !files.iter().any(|(_, known)| *known == place) {
                files.push((library.to_owned(), place));
            }
        }
    }
    Ok(files)
}
