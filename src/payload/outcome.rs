//! How a job ended.

use std::fmt;

use serde::Serialize;

use crate::sys::process::Exit;

/// Why a job is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The program ended by itself.
    Exited(Exit),
    /// It ran for longer than the image allows, seconds.
    TooLong(u32),
    /// The kernel killed it for lack of memory.
    OutOfMemory,
    /// The machine was asked to end.
    Stopped,
    /// The token's lease was lost.
    LeaseLost(String),
    /// It was never started, or its result could not be taken.
    Failed(String),
}

/// An ended job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why it is over.
    pub end: End,
    /// Milliseconds from its start.
    pub wall_millis: u64,
    /// What it used.
    pub usage: Usage,
    /// Processes that its first one left behind, and that were killed.
    pub left_behind: usize,
    /// Its last lines of output.
    pub tail: Vec<String>,
}

/// What a job used, as the report has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// CPU time of all processes, milliseconds.
    pub cpu_millis: u64,
    /// Largest amount of memory at one time, KiB.
    pub memory_kib: u64,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// How often a process could not be made because of the limit.
    pub pids_refused: u64,
}

impl Outcome {
    /// Whether the result counts.
    pub fn success(&self) -> bool {
        matches!(self.end, End::Exited(exit) if exit.success())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(exit) => exit.fmt(f),
            Self::TooLong(secs) => write!(f, "stopped after {secs} s"),
            Self::OutOfMemory => f.write_str("killed for lack of memory"),
            Self::Stopped => f.write_str("stopped, as the machine ends"),
            Self::LeaseLost(why) => write!(f, "stopped, as the lease was lost: {why}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}
