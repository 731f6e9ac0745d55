//! Why a job did not start.

use std::io;

use nix::libc;
use thiserror::Error;

use super::choice::UnknownWord;
use crate::cgroup::CgroupError;
use crate::mounts::MountError;
use crate::starting::SpawnError;

/// Why a job was not started. None of its program has run.
#[derive(Debug, Error)]
pub enum JobError {
    /// No program of the image's is meant.
    #[error(transparent)]
    UnknownWord(#[from] UnknownWord),
    /// Its cgroup, or a limit of it.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its directory.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A file in its directory.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A step of the drop, or the exec.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A limit of its directory that the kernel does not have.
    #[error("verify {step}: {path}: {what} is {found} and not {wanted}")]
    Scratch {
        /// Which step has set it.
        step: &'static str,
        /// Which directory.
        path: String,
        /// `size` or `files`.
        what: &'static str,
        /// The kernel's word.
        found: u64,
        /// Ours.
        wanted: u64,
    },
    /// A user that is not the job's alone.
    #[error("verify fresh uid: {uid}: the last was {last}")]
    Stale {
        /// Its number.
        uid: u32,
        /// Of the job before.
        last: u32,
    },
    /// Every user of the range was used.
    #[error("no payload user is left of {start}-{end}")]
    NoUser {
        /// First.
        start: u32,
        /// Last.
        end: u32,
    },
}

impl JobError {
    /// The kernel's number, where it said one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Cgroup(error) => error.errno(),
            Self::Mount(error) => Some(error.errno()).filter(|&errno| errno != 0),
            Self::File { error, .. } | Self::Spawn(SpawnError::Fork(error)) => error.raw_os_error(),
            Self::Spawn(SpawnError::Stage(step)) => Some(step.errno as i32),
            Self::UnknownWord(_) | Self::Scratch { .. } | Self::Stale { .. } | Self::NoUser { .. } => None,
        }
    }

    /// Whether it may be otherwise in a moment.
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(libc::EBUSY)
    }
}
