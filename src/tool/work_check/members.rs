//! The processes of a job where no cgroup tells: those of its pid namespace.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::payload::Job;
use crate::procfs;
use crate::sys::pidfd::Pidfd;

/// Processes of a job but its keeper.
#[derive(Debug)]
pub struct Members {
    keeper: u32,
    namespace: Option<PathBuf>,
}

impl Members {
    /// Of this job.
    pub fn of(job: &Job) -> Self {
        let keeper = job.keeper().pid().as_raw() as u32;
        Self { keeper, namespace: fs::read_link(format!("/proc/{keeper}/ns/pid")).ok() }
    }

    /// Their numbers, as this process sees them; zombies are none.
    pub fn now(&self) -> Vec<u32> {
        let Some(namespace) = &self.namespace else { return Vec::new() };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|&pid| pid != self.keeper && self.is_one(pid, namespace)).collect()
    }

    fn is_one(&self, pid: u32, namespace: &PathBuf) -> bool {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|found| found == *namespace)
            // A process that has ended has no program any more.
            && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
    }

    /// Asks all of them to end.
    pub fn terminate(&self) {
        let Some(namespace) = &self.namespace else { return };
        for pid in self.now() {
            let Ok(process) = Pidfd::open(Pid::from_raw(pid as i32)) else { continue };
            // The number may mean somebody else since it was read; from now on it cannot.
            if self.is_one(pid, namespace) {
                let _ = process.signal(Signal::SIGTERM).and_then(|()| process.signal(Signal::SIGCONT));
            }
        }
    }

    /// KiB of memory that is theirs alone; what several share is counted for each.
    pub fn memory_kib(&self) -> u64 {
        self.now()
            .into_iter()
            .map(|pid| own_kib(&procfs::text(format!("/proc/{pid}/status")).unwrap_or_default()))
            .sum()
    }
}

/// Of a text of `/proc/PID/status`: without files, which the kernel can drop.
fn own_kib(status: &str) -> u64 {
    let kib = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    ["RssAnon:", "RssShmem:"].into_iter().filter_map(kib).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_not_counted() {
        assert_eq!(own_kib("VmRSS:\t 900 kB\nRssAnon:\t     300 kB\nRssFile:\t 500 kB\nRssShmem:\t 100 kB\n"), 400);
        assert_eq!(own_kib(""), 0);
    }
}
