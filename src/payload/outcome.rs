//! How a job ended, and what it used.

use std::fmt;

use nix::libc;
use serde::Serialize;

use super::error::JobError;
use super::reason::{Coded, Reason};
use super::result::ResultError;
use crate::cgroup;
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
    /// The site forbids its owner's work; the text is the decision.
    Banned(String),
    /// A step towards its program failed.
    NotStarted {
        /// The step, and what the kernel said.
        why: String,
        /// The kernel's number, where it said one.
        errno: Option<i32>,
    },
    /// The token names no program of the image's; the text says what it names.
    UnknownWord(String),
    /// It exited well, but its result cannot be taken.
    BadResult {
        /// File and fault.
        why: String,
        /// The number that fits.
        errno: Option<i32>,
    },
    /// It exited well, but the user's disk did not take what it wrote.
    DiskLost(String),
    /// It could not be watched any longer.
    Unwatched {
        /// What went wrong on our side.
        why: String,
        /// The kernel's number, where it said one.
        errno: Option<i32>,
    },
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

/// What a job used, as the report has it. What the kernel did not tell is absent, which is not the same as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// CPU time of all processes, milliseconds.
    pub cpu_millis: Option<u64>,
    /// The part of it outside the kernel.
    pub cpu_user_millis: Option<u64>,
    /// The part of it inside the kernel.
    pub cpu_system_millis: Option<u64>,
    /// Time that its processes had to wait for `cpu_percent`, milliseconds, summed over processors.
    pub throttled_millis: Option<u64>,
    /// Largest amount of memory at one time, KiB.
    pub memory_kib: Option<u64>,
    /// Processes killed for lack of memory.
    pub oom_kills: Option<u64>,
    /// How often a process could not be made because of the limit.
    pub pids_refused: Option<u64>,
    /// Bytes that reached drives while it ran.
    pub disk_written_bytes: Option<u64>,
    /// Bytes that lay in its own directory at the end.
    pub scratch_bytes: Option<u64>,
}

impl Usage {
    /// What the kernel counted, and what lay in the job's directory.
    pub fn new(counted: cgroup::Usage, scratch_bytes: Option<u64>) -> Self {
        let millis = |micros: Option<u64>| micros.map(|micros| micros / 1000);
        Self {
            cpu_millis: millis(counted.cpu_micros),
            cpu_user_millis: millis(counted.user_micros),
            cpu_system_millis: millis(counted.system_micros),
            throttled_millis: millis(counted.throttled_micros),
            memory_kib: counted.memory_peak.map(|bytes| bytes / 1024),
            oom_kills: counted.oom_kills,
            pids_refused: counted.pids_refused,
            disk_written_bytes: counted.disk_written,
            scratch_bytes,
        }
    }
}

impl Outcome {
    /// Whether the result counts.
    pub fn success(&self) -> bool {
        matches!(self.end, End::Exited(exit) if exit.success())
    }
}

impl End {
    /// The end, seen together with the kernel's count of kills for lack of memory. The whole group dies of one, so all
    /// that is seen of it is a first process that did not end well; what we ended ourselves has its reason.
    pub fn after_oom_kills(self, oom_kills: u64) -> Self {
        match self {
            Self::Exited(exit) if oom_kills > 0 && !exit.success() => Self::OutOfMemory,
            end => end,
        }
    }

    /// Whether another try, here or elsewhere, may come to another end, whatever the image says of exit codes.
    pub fn again(&self) -> bool {
        !matches!(self, Self::UnknownWord(_))
    }

    /// Whether the program, on this token, is the reason: a machine that gives up or a site that forbids is not.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Exited(exit) => !exit.success(),
            Self::TooLong(_) | Self::OutOfMemory | Self::BadResult { .. } | Self::UnknownWord(_) => true,
            Self::Stopped | Self::LeaseLost(_) | Self::Banned(_) => false,
            Self::NotStarted { .. } | Self::DiskLost(_) | Self::Unwatched { .. } => false,
        }
    }

    /// By number.
    pub fn coded(&self) -> Coded {
        let (reason, subcode) = match self {
            Self::Exited(Exit::Code(code)) => (Reason::Exited, Some(*code)),
            Self::Exited(Exit::Signal(number)) => (Reason::Signalled, Some(*number)),
            Self::OutOfMemory => (Reason::OutOfMemory, None),
            Self::TooLong(_) => (Reason::WallTime, None),
            Self::LeaseLost(_) => (Reason::LeaseLost, None),
            Self::Stopped => (Reason::MachineEnds, None),
            Self::Banned(_) => (Reason::Banned, None),
            Self::NotStarted { errno, .. } => (Reason::NotStarted, *errno),
            Self::BadResult { errno, .. } => (Reason::BadResult, *errno),
            Self::DiskLost(_) => (Reason::DiskLost, None),
            Self::Unwatched { errno, .. } => (Reason::Unwatched, *errno),
            Self::UnknownWord(_) => (Reason::UnknownWord, None),
        };
        Coded { code: reason.code(), subcode, name: reason.name() }
    }
}

impl From<JobError> for End {
    fn from(error: JobError) -> Self {
        if let JobError::UnknownWord(unknown) = error {
            return Self::UnknownWord(unknown.to_string());
        }
        Self::NotStarted { why: error.to_string(), errno: error.errno() }
    }
}

impl From<ResultError> for End {
    fn from(error: ResultError) -> Self {
        let errno = match &error {
            ResultError::File { error, .. } => error.raw_os_error(),
            ResultError::Irregular { .. } => Some(libc::EINVAL),
            ResultError::TooLarge { .. } => Some(libc::EFBIG),
        };
        Self::BadResult { why: error.to_string(), errno }
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
            Self::NotStarted { why, .. } | Self::UnknownWord(why) => write!(f, "not started: {why}"),
            Self::Banned(why) | Self::BadResult { why, .. } | Self::DiskLost(why) | Self::Unwatched { why, .. } => {
                f.write_str(why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::starting::{SpawnError, StageError};

    #[test]
    fn ends_have_numbers() {
        let step = SpawnError::from(StageError { stage: "setgroups".to_owned(), errno: Errno::EPERM });
        let large = ResultError::TooLarge { path: "/r".to_owned(), limit: 5 };
        let cases = [
            (End::Exited(Exit::Code(0)), "exit 0", "reason 1/0"),
            (End::Exited(Exit::Code(3)), "exit 3", "reason 1/3"),
            (End::Exited(Exit::Signal(37)), "killed by signal 37", "reason 2/37"),
            (End::OutOfMemory, "killed for lack of memory", "reason 3"),
            (End::TooLong(7), "stopped after 7 s", "reason 4"),
            (End::LeaseLost("x".to_owned()), "stopped, as the lease was lost: x", "reason 5"),
            (End::Stopped, "stopped, as the machine ends", "reason 6"),
            (End::Banned("banned by line 2: /atlas".to_owned()), "banned by line 2: /atlas", "reason 9"),
            (JobError::from(step).into(), "not started: setgroups: EPERM: Operation not permitted", "reason 7/1"),
            (large.into(), "/r is larger than 5 bytes", "reason 8/27"),
            (End::DiskLost("gone".to_owned()), "gone", "reason 10"),
            (End::Unwatched { why: "gone".to_owned(), errno: None }, "gone", "reason 11"),
            (End::UnknownWord("x".to_owned()), "not started: x", "reason 12"),
        ];
        for (end, text, code) in cases {
            assert_eq!((end.to_string(), end.coded().to_string()), (text.to_owned(), code.to_owned()));
            // A token that no machine can run is not handed out for ever.
            assert_eq!(end.again(), code != "reason 12", "{text}");
        }
    }

    #[test]
    fn lack_of_memory_explains_only_what_died_of_it() {
        let killed = End::Exited(Exit::Signal(9));
        assert_eq!(killed.clone().after_oom_kills(1), End::OutOfMemory);
        assert_eq!(killed.clone().after_oom_kills(0), killed);
        // A daemon that it left behind; and a machine that ends must not forget it over that.
        for end in [End::Exited(Exit::Code(0)), End::Stopped, End::TooLong(1)] {
            assert_eq!(end.clone().after_oom_kills(1), end);
        }
    }
}
