//! What the report says of one phase, and of the scripts that ran in it.

use std::fs;

use serde::Serialize;

use crate::guard::Change;

/// One phase.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: &'static str,
    /// Why it ran, or why it did not.
    pub cause: String,
    /// Milliseconds from the kernel's start to its start.
    pub start_ms: u64,
    /// Milliseconds that it took.
    pub millis: u64,
    /// Milliseconds that it might have taken; none for a phase that waits for nothing as a whole.
    pub limit_ms: Option<u64>,
    /// `ok`, `skipped`, `failed` or `stopped`.
    pub outcome: &'static str,
    /// What was done, found or wrong.
    pub note: String,
    /// What the whole machine spent meanwhile.
    pub spent: Spent,
    /// In the order in which they ran.
    pub scripts: Vec<ScriptReport>,
    /// What is different from the image since the phase before, by path.
    pub changes: Vec<Change>,
}

/// The cause of a phase that no machine leaves out.
pub const ALWAYS: &str = "it always does";

impl PhaseReport {
    /// One that ran outside the list of phases from `start_ms` on, and is done now.
    pub fn done(name: &'static str, start_ms: u64, spent: Spent, note: String) -> Self {
        let millis = super::now_ms().saturating_sub(start_ms);
        Self { name, cause: ALWAYS.to_owned(), start_ms, millis, outcome: "ok", note, spent, ..Self::default() }
    }
}

/// What phases leave behind for the report while they run.
#[derive(Debug, Default)]
pub struct Details {
    /// For [`PhaseReport::scripts`].
    pub scripts: Vec<ScriptReport>,
    /// For [`PhaseReport::changes`].
    pub changes: Vec<Change>,
}

/// One run of one script.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScriptReport {
    /// File name on the CD or in the image.
    pub name: String,
    /// Its first argument: `start` or `stop`.
    pub action: String,
    /// Milliseconds from the kernel's start to its start.
    pub start_ms: u64,
    /// Milliseconds that it took.
    pub millis: u64,
    /// How it ended: `exit 0`, `killed by SIGKILL`, the limit that it met, or `not started: ` and why.
    pub end: String,
    /// Its exit code, if it exited.
    pub exit: Option<i32>,
    /// CPU time of it and all that it started, milliseconds.
    pub cpu_ms: u64,
    /// The largest amount of memory that these had at one time, KiB; 0 where the kernel does not say.
    pub memory_kib: u64,
    /// Processes of it that go on, `name (pid)`.
    pub left_running: Vec<String>,
    /// Its last lines of output.
    pub tail: Vec<String>,
    /// Bytes of output beyond its limit, which nobody kept.
    pub output_dropped: u64,
}

/// What the machine spent: differences of the kernel's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Processes made, the kernel's own among them.
    pub forks: u64,
    /// CPU time of all processors, milliseconds.
    pub cpu_ms: u64,
}

impl Spent {
    /// Since the machine's start; zero where `/proc` is not.
    pub fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// From then to now.
    pub fn since(then: Self) -> Self {
        let now = Self::now();
        Self { forks: now.forks.saturating_sub(then.forks), cpu_ms: now.cpu_ms.saturating_sub(then.cpu_ms) }
    }

    /// proc(5): `cpu user nice system idle iowait irq softirq ...` in hundredths of a second, and `processes N`.
    fn parse(stat: &str) -> Self {
        let numbers = |key: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>()
        };
        let cpu = numbers("cpu ");
        let busy = cpu.iter().take(7).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks);
        Self { forks: numbers("processes ").first().copied().unwrap_or(0), cpu_ms: busy.sum::<u64>() * 10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_spent() {
        let stat = "cpu  1 2 3 400 500 6 7 8 9 10\ncpu0 1 1 1 1\nprocesses 77\n";
        assert_eq!(Spent::parse(stat), Spent { forks: 77, cpu_ms: 190 });
        assert_eq!(Spent::parse(""), Spent::default());
    }
}
