//! What the probe finds around it before its first attempt.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use nix::libc;
use nix::unistd::{getpid, getuid};

use super::raw::call;
use crate::guest::{read, status};

/// Recorded at the start: attempts open descriptors and make processes of their own.
pub struct Scene {
    /// The user that it was at the start.
    pub uid: u32,
    /// Its number, as it sees it.
    pub pid: i32,
    /// Descriptors that it was given, and what they are.
    pub descriptors: Vec<(u32, String)>,
    /// `/proc/self/status`.
    pub status: HashMap<String, String>,
    /// What it gets when its parent ends, a signal's number.
    pub death_signal: u32,
    /// Where it was started.
    pub directory: PathBuf,
    /// Where it may write.
    pub home: PathBuf,
    /// What the host half of the case has said, `key=value` each.
    pub told: HashMap<String, String>,
}

impl Scene {
    /// Before anything else is done.
    pub fn new(told: &[String]) -> Result<Self, String> {
        let told = told.iter().filter_map(|word| word.split_once('='));
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into());
        Ok(Self {
            uid: getuid().as_raw(),
            pid: getpid().as_raw(),
            descriptors: descriptors(),
            status: status()?,
            death_signal: death_signal(),
            directory: std::env::current_dir().unwrap_or_default(),
            home: home.into(),
            told: told.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        })
    }

    /// A line of `/proc/self/status`.
    pub fn status(&self, key: &str) -> &str {
        self.status.get(key).map(String::as_str).unwrap_or("absent")
    }

    /// Processes that are not this job's: every one that can be seen and is another user's, and those whose numbers
    /// everybody knows: init's, and the agent's, which is one of the first.
    pub fn foreign(&self) -> Vec<i32> {
        let visible: Vec<i32> = visible().into_iter().filter(|&pid| owner(pid) != Some(self.uid)).collect();
        // Numbers that exist and cannot be seen are tried as well; of a small machine these are all.
        let unseen = (1..=400).filter(|&pid| owner(pid).is_none());
        visible.iter().copied().chain(unseen).collect()
    }

    /// Those that can be seen.
    pub fn visible_foreign(&self) -> Vec<i32> {
        visible().into_iter().filter(|&pid| owner(pid) != Some(self.uid)).collect()
    }
}

/// It is this process's own: children have none.
fn death_signal() -> u32 {
    let mut signal = [0u8; 4];
    let _ = call!(libc::SYS_prctl, libc::PR_GET_PDEATHSIG, &mut signal[..], 0, 0, 0);
    u32::from_ne_bytes(signal)
}

fn descriptors() -> Vec<(u32, String)> {
    let entries: Vec<_> = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().collect();
    // Not the one that reads the directory.
    let is_this = |to: &PathBuf| to.starts_with("/proc") && to.ends_with("fd");
    let target = |entry: &fs::DirEntry| fs::read_link(entry.path()).ok().filter(|to| !is_this(to));
    let pair = |entry: &fs::DirEntry| {
        Some((entry.file_name().to_str()?.parse().ok()?, target(entry)?.to_string_lossy().into_owned()))
    };
    entries.iter().filter_map(pair).collect()
}

/// Numbers in `/proc`.
fn visible() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The real user of a process; `None` if it cannot be seen.
pub fn owner(pid: i32) -> Option<u32> {
    let status = read(&format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:\t")?.split('\t').next()?.parse().ok())
}
