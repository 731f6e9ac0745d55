//! Control groups, version 2: a job is its cgroup, not its process group.
//!
//! `setsid` leaves a process group; nothing that a job can do leaves its cgroup. A limit that cannot be
//! set, or reads back otherwise, is an error: nothing runs with less than was asked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

/// Everything that the agent starts for others lives below.
const BASE: &str = "/sys/fs/cgroup/ctxinit";
const CONTROLLERS: &str = "+memory +pids +cpu";

/// A cgroup file that could not be read or written as meant.
#[derive(Debug, Error)]
#[error("cgroup {path}: {why}")]
pub struct CgroupError {
    path: String,
    why: String,
}

/// Limits of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; none of it in swap.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What a job used and ran into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its processes, microseconds.
    pub cpu_micros: u64,
    /// Largest amount of memory at one time, bytes.
    pub memory_peak: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// How often a process could not be made because of the limit.
    pub pids_refused: u64,
}

/// A cgroup of ours; empty ones are removed when it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// Makes the base and hands the controllers down to it. Once, before the first [`Cgroup::create`].
///
/// # Errors
/// A kernel without one of the controllers.
pub fn prepare() -> Result<(), CgroupError> {
    write(Path::new("/sys/fs/cgroup/cgroup.subtree_control"), CONTROLLERS)?;
    let base = Path::new(BASE);
    fs::create_dir_all(base).map_err(|error| failed(base, &error))?;
    write(&base.join("cgroup.subtree_control"), CONTROLLERS)
}

impl Cgroup {
    /// A new, empty cgroup; a name that is in use is an error.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn create(name: &str) -> Result<Self, CgroupError> {
        let path = Path::new(BASE).join(name);
        fs::create_dir(&path).map_err(|error| failed(&path, &error))?;
        Ok(Self { path })
    }

    /// Sets the limits and reads them back.
    ///
    /// # Errors
    /// The first file that does not take its value.
    pub fn limit(&self, limits: Limits) -> Result<(), CgroupError> {
        self.set("memory.max", &limits.memory.to_string())?;
        // Where the kernel has no swap accounting there is no such file, and the images have no swap.
        if self.path.join("memory.swap.max").exists() {
            self.set("memory.swap.max", "0")?;
        }
        self.set("memory.oom.group", "1")?;
        self.set("pids.max", &limits.pids.to_string())
    }

    fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        write(&path, value)?;
        let kept = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
        if kept.trim_end() == value {
            return Ok(());
        }
        let why = format!("{value} was written, {} is read back", kept.trim_end());
        Err(CgroupError { path: path.display().to_string(), why })
    }

    /// The file through which a freshly forked child enters: it writes `0`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn door(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).map_err(|error| failed(&path, &error))
    }

    /// Kills every process in it at once; a fork bomb has no way out.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn kill(&self) -> Result<(), CgroupError> {
        write(&self.path.join("cgroup.kill"), "1")
    }

    /// The file that tells whether anybody is left, ready (POLLPRI) when that changes.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn events(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.events");
        File::open(&path).map_err(|error| failed(&path, &error))
    }

    /// Process numbers in it and below: root's scripts may make cgroups of their own.
    pub fn members(&self) -> Vec<u32> {
        let procs = |path: &Path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let pids = self.tree().into_iter().map(|path| procs(&path));
        // 0 stands for a process that our pid namespace does not show; to kill(2) it would mean ourselves.
        let numbers = |text: String| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>();
        pids.flat_map(numbers).filter(|&pid| pid > 0).collect()
    }

    /// Asks every process in it to end; stopped ones go on, as they could not hear it.
    pub fn terminate(&self) {
        let pids: Vec<Pid> = self.members().into_iter().map(|pid| Pid::from_raw(pid as i32)).collect();
        // Those that are gone meanwhile have ended as they should.
        for signal in [Signal::SIGTERM, Signal::SIGCONT] {
            for &pid in &pids {
                let _ = kill(pid, signal);
            }
        }
    }

    /// Itself and all below, parents first.
    fn tree(&self) -> Vec<PathBuf> {
        let mut tree = vec![self.path.clone()];
        let mut next = 0;
        while let Some(path) = tree.get(next) {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let below: Vec<PathBuf> = entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect();
            tree.extend(below);
            next += 1;
        }
        tree
    }

    /// What was used so far. Files that the kernel does not have count as 0.
    pub fn usage(&self) -> Usage {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        Usage {
            cpu_micros: field(&read("cpu.stat"), "usage_usec").unwrap_or(0),
            memory_peak: read("memory.peak").trim_end().parse().unwrap_or(0),
            oom_kills: field(&read("memory.events"), "oom_kill").unwrap_or(0),
            pids_refused: field(&read("pids.events"), "max").unwrap_or(0),
        }
    }
}

/// Whether a process is left in the cgroup of this [`Cgroup::events`] or below. A file that was never read is ready
/// for ever: reading is what makes it wait for the next change.
pub fn populated(events: &File) -> bool {
    let mut text = [0; 256];
    let length = events.read_at(&mut text, 0).unwrap_or(0);
    field(&String::from_utf8_lossy(text.get(..length).unwrap_or_default()), "populated") != Some(0)
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // EBUSY while somebody lives in it: then it stays, and goes with the machine.
        for path in self.tree().iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> CgroupError {
    CgroupError { path: path.display().to_string(), why: error.to_string() }
}

/// The number behind `key` in a file of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories and files as in a cgroup file system, without the kernel behind them.
    #[test]
    fn members_of_inner_groups_count() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "7\n").unwrap();
        fs::write(inner.join("cgroup.procs"), "8\n0\n9\n").unwrap();
        let cgroup = Cgroup { path: dir.path().to_owned() };
        assert_eq!(cgroup.members(), [7, 8, 9]);
    }

    #[test]
    fn flat_files_are_read_by_key() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(field(text, "populated"), Some(1));
        assert_eq!(field(text, "frozen"), Some(0));
        assert_eq!(field(text, "pop"), None);
        assert_eq!(field("max x\n", "max"), None);
    }
}
