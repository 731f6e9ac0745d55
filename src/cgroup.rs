//! Control groups, version 2: a job is its cgroup, not its process group.
//!
//! `setsid` leaves a process group; nothing that a job can do leaves its cgroup. A limit that cannot be
//! set, or reads back otherwise, is an error: nothing runs with less than was asked.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use thiserror::Error;

use crate::payload::mutation;
use crate::sys::pidfd::Pidfd;

/// Everything that the agent starts for others lives below.
const BASE: &str = "/sys/fs/cgroup/ctxinit";
const CONTROLLERS: &str = "+memory +pids +cpu";
/// Counts what reaches a drive. A kernel without it counts nothing, and nothing depends on it.
const COUNTERS: &str = "+io";
/// The kernel's own period of cpu.max, microseconds.
const CPU_PERIOD: u64 = 100_000;

/// A cgroup file that could not be read or written as meant.
#[derive(Debug, Error)]
#[error("cgroup {path}: {why}")]
pub struct CgroupError {
    path: String,
    why: io::Error,
}

impl CgroupError {
    /// The kernel's word, where it said one.
    pub fn errno(&self) -> Option<i32> {
        self.why.raw_os_error()
    }
}

/// Limits of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; none of it in swap.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Hundredths of a processor; as many as the machine has unless said.
    pub cpu_percent: Option<u32>,
}

impl Limits {
    /// Files and their values, in the order in which they are set.
    fn settings(self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("memory.max", self.memory.to_string()),
            ("memory.swap.max", "0".to_owned()),
            ("memory.oom.group", "1".to_owned()),
            ("pids.max", self.pids.to_string()),
        ];
        settings.extend(self.cpu_percent.map(|percent| {
            let quota = u64::from(percent) * CPU_PERIOD / 100;
            ("cpu.max", format!("{quota} {CPU_PERIOD}"))
        }));
        settings
    }
}

/// What a job used and ran into; none where the kernel does not count it or could not be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its processes, microseconds.
    pub cpu_micros: Option<u64>,
    /// The part of it outside the kernel.
    pub user_micros: Option<u64>,
    /// The part of it inside the kernel.
    pub system_micros: Option<u64>,
    /// Time that its processes were ready to run and had to wait for cpu.max, microseconds, summed over processors.
    pub throttled_micros: Option<u64>,
    /// Largest amount of memory at one time, bytes.
    pub memory_peak: Option<u64>,
    /// Processes killed for lack of memory.
    pub oom_kills: Option<u64>,
    /// How often a process could not be made because of the limit.
    pub pids_refused: Option<u64>,
    /// Bytes that have reached drives so far; files in memory never do.
    pub disk_written: Option<u64>,
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
    fs::create_dir_all(base).map_err(|error| failed(base, error))?;
    write(&base.join("cgroup.subtree_control"), CONTROLLERS)?;
    for dir in [Path::new("/sys/fs/cgroup"), base] {
        if let Err(error) = write(&dir.join("cgroup.subtree_control"), COUNTERS) {
            log::debug!("what jobs write to drives is not counted: {error}");
        }
    }
    Ok(())
}

impl Cgroup {
    /// A new, empty cgroup; a name that is in use is an error.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn create(name: &str) -> Result<Self, CgroupError> {
        let path = Path::new(BASE).join(name);
        fs::create_dir(&path).map_err(|error| failed(&path, error))?;
        Ok(Self { path })
    }

    /// Sets the limits and reads them back.
    ///
    /// # Errors
    /// The first file that does not take its value.
    pub fn limit(&self, limits: Limits) -> Result<(), CgroupError> {
        let settings = limits.settings();
        let mut due = settings.iter().filter(|(file, _)| !mutation::removed(file));
        due.try_for_each(|(file, value)| self.set(file, value))
    }

    fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        // A kernel without swap, or one that does not account for it, has no such file; only the first is as good.
        if file == "memory.swap.max" && !path.exists() {
            let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
            return if has_swap(&swaps) { Err(wrong(&path, "missing, and the machine has swap")) } else { Ok(()) };
        }
        if !mutation::skipped(file) {
            write(&path, value)?;
        }
        let kept = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        if kept.trim_end() == value {
            return Ok(());
        }
        Err(wrong(&path, format!("{value} was written, {} is read back", kept.trim_end())))
    }

    /// The file through which a freshly forked child enters: it writes `0`.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn door(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).map_err(|error| failed(&path, error))
    }

    /// Its directory, for a process that is to start in it.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn dir(&self) -> Result<File, CgroupError> {
        File::open(&self.path).map_err(|error| failed(&self.path, error))
    }

    /// Its number: whatever path leads to its directory, that has it.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn id(&self) -> Result<u64, CgroupError> {
        fs::metadata(&self.path).map(|of| of.ino()).map_err(|error| failed(&self.path, error))
    }

    /// As `/proc/PID/cgroup` of its processes has it, in the machine's own namespace.
    pub fn own_path(&self) -> String {
        let below = self.path.strip_prefix("/sys/fs/cgroup").unwrap_or(&self.path);
        format!("/{}", below.display())
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
        File::open(&path).map_err(|error| failed(&path, error))
    }

    /// Process numbers in it and below: root's scripts may make cgroups of their own.
    pub fn members(&self) -> Vec<u32> {
        let procs = |path: &Path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let pids = self.tree().into_iter().map(|path| procs(&path));
        // 0 stands for a process that our pid namespace does not show; to kill(2) it would mean ourselves.
        let numbers = |text: String| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>();
        pids.flat_map(numbers).filter(|&pid| pid > 0).collect()
    }

    /// Asks every process in it but `spared` to end; stopped ones go on, as they could not hear it.
    pub fn terminate(&self, spared: Option<Pid>) {
        for pid in self.members().into_iter().map(|pid| Pid::from_raw(pid as i32)) {
            // Those that are gone meanwhile have ended as they should.
            let Ok(process) = Pidfd::open(pid) else { continue };
            // The number may mean somebody else since it was read; from now on it cannot.
            if Some(pid) != spared && self.has_member(pid) {
                let _ = process.signal(Signal::SIGTERM).and_then(|()| process.signal(Signal::SIGCONT));
            }
        }
    }

    /// Whether a process is in it or below. Asked of the process and not of the group: that would be as long as the group.
    fn has_member(&self, pid: Pid) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let Ok(own) = self.path.strip_prefix("/sys/fs/cgroup") else { return false };
        text.lines().filter_map(|line| line.strip_prefix("0::/")).any(|path| Path::new(path).starts_with(own))
    }

    /// Removes it, with those that were made inside.
    ///
    /// # Errors
    /// `EBUSY` while somebody lives in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for path in self.tree().iter().rev() {
            fs::remove_dir(path).map_err(|error| failed(path, error))?;
        }
        Ok(())
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

    /// What was used so far.
    pub fn usage(&self) -> Usage {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).ok();
        let count = |file: &str, key: &str| field(&read(file)?, key);
        Usage {
            cpu_micros: count("cpu.stat", "usage_usec"),
            user_micros: count("cpu.stat", "user_usec"),
            system_micros: count("cpu.stat", "system_usec"),
            throttled_micros: count("cpu.stat", "throttled_usec"),
            memory_peak: read("memory.peak").and_then(|text| text.trim_end().parse().ok()),
            oom_kills: count("memory.events", "oom_kill"),
            pids_refused: count("pids.events", "max"),
            disk_written: read("io.stat").map(|text| written(&text)),
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
        let _ = self.remove();
    }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|error| failed(path, error))
}

fn failed(path: &Path, why: io::Error) -> CgroupError {
    CgroupError { path: path.display().to_string(), why }
}

fn wrong(path: &Path, why: impl Into<String>) -> CgroupError {
    failed(path, io::Error::other(why.into()))
}

/// Whether `/proc/swaps` lists any below its heading.
fn has_swap(swaps: &str) -> bool {
    swaps.lines().count() > 1
}

/// The number behind `key` in a file of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The bytes written of `io.stat`: a line a drive, `253:0 rbytes=4096 wbytes=8192 ...`.
fn written(text: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix("wbytes=")?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_reads_them_back() {
        let limits = Limits { memory: 1 << 20, pids: 7, cpu_percent: None };
        let files = |limits: Limits| limits.settings().into_iter().map(|(file, _)| file).collect::<Vec<_>>();
        assert_eq!(files(limits), ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max"]);
        let share = |percent| Limits { cpu_percent: Some(percent), ..limits }.settings().pop().unwrap();
        assert_eq!(share(1), ("cpu.max", "1000 100000".to_owned()));
        assert_eq!(share(250), ("cpu.max", "250000 100000".to_owned()));
    }

    #[test]
    fn a_limit_that_reads_back_otherwise_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { path: dir.path().to_owned() };
        cgroup.set("pids.max", "7").unwrap();
        // What is written there is gone when it is read.
        std::os::unix::fs::symlink("/dev/null", dir.path().join("cpu.max")).unwrap();
        let error = cgroup.set("cpu.max", "1 2").unwrap_err();
        assert!(error.to_string().ends_with("cpu.max: 1 2 was written,  is read back"), "{error}");
        assert_eq!(error.errno(), None);
        std::os::unix::fs::symlink("/nonexistent/file", dir.path().join("memory.max")).unwrap();
        assert_eq!(cgroup.set("memory.max", "1").unwrap_err().errno(), Some(2));
    }

    #[test]
    fn swap_without_a_limit_is_seen() {
        let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap(heading) && !has_swap(""));
        assert!(has_swap(&format!("{heading}/dev/vda2 partition 1048572 0 -2\n")));
    }

    #[test]
    fn counters_that_are_not_there_are_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { path: dir.path().to_owned() };
        assert_eq!(cgroup.usage(), Usage::default());
        fs::write(dir.path().join("cpu.stat"), "usage_usec 30\nuser_usec 20\nsystem_usec 10\n").unwrap();
        fs::write(dir.path().join("io.stat"), "8:0 rbytes=1 wbytes=20 rios=1 wios=2\n253:0 wbytes=1\n").unwrap();
        fs::write(dir.path().join("memory.peak"), "4096\n").unwrap();
        let used = cgroup.usage();
        assert_eq!((used.cpu_micros, used.user_micros, used.system_micros), (Some(30), Some(20), Some(10)));
        assert_eq!((used.throttled_micros, used.oom_kills, used.disk_written), (None, None, Some(21)));
        assert_eq!(used.memory_peak, Some(4096));
    }

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
