//! `ctxtool log`: what a site's log server has received, and what waits for one.

mod check;
mod input;
mod machine;
mod numbers;
pub mod record;
mod show;
pub mod spool;
mod trail;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use self::check::{Check, Checker, check};
pub use self::show::{Findings, Found, Verdict};
use super::Outcome;

/// What is done with a log.
#[derive(Debug, clap::Subcommand)]
pub enum Log {
    /// Prove that nothing is missing in what a log server received, and name the owner of any job
    Check(Check),
    /// Make a spool, on which records wait that no server took; or show what waits in one
    Spool(spool::Options),
}

/// Does it.
///
/// # Errors
/// See [`LogError`].
pub fn run(what: &Log) -> Result<Outcome, LogError> {
    match what {
        Log::Check(options) => check(options),
        Log::Spool(options) => Ok(Outcome::from(spool::run(options)?)),
    }
}

/// Why nothing can be said of a log.
#[derive(Debug, Error)]
pub enum LogError {
    /// One that cannot be made or read.
    #[error(transparent)]
    Spool(#[from] spool::ToolError),
    /// A file that cannot be read.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which; `-` for standard input.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No record by which a machine could be known: an empty file proves nothing.
    #[error(
        "{names}: no record of a machine in {} that were read; does the server keep structured data? docs/log.md has \
         settings for rsyslog and syslog-ng{first}",
        crate::text::count(*.read, "line")
    )]
    Nothing {
        /// What was read.
        names: String,
        /// Lines or frames in it.
        read: u64,
        /// The first that is no record, if there is one.
        first: String,
    },
}
