//! `ctxtool cd`: context CDs made, signed and looked at, on the side of the site.

mod build;
mod files;
mod iso;
mod keys;
mod sign;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::build::{Build, build};
pub use self::keys::{Keygen, keygen};
pub use self::sign::{Sign, sign};
pub use self::verify::{Verify, verify};
use crate::config::ConfigError;
use crate::context::shell::ShellError;
use crate::context::signature::PathError;
use crate::script;

/// What is done with a CD.
#[derive(Debug, clap::Subcommand)]
pub enum Cd {
    /// Build a context CD from a directory
    Build(Build),
    /// Sign a context CD, or the directory of one, in its place
    Sign(Sign),
    /// Say whether a signature holds, as a machine would
    Verify(Verify),
    /// Make a key pair to sign with
    Keygen(Keygen),
}

/// What came of it, for the user.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// One or more lines for standard output.
    pub text: String,
    /// Exit code.
    pub code: u8,
}

impl From<String> for Outcome {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Does it.
///
/// # Errors
/// Why it could not be done; nothing is left half done.
pub fn run(what: &Cd) -> Result<Outcome, CdError> {
    match what {
        Cd::Build(options) => build(options).map(Outcome::from),
        Cd::Sign(options) => sign(options).map(Outcome::from),
        Cd::Verify(options) => verify(options),
        Cd::Keygen(options) => keygen(options).map(Outcome::from),
    }
}

/// Why there is no CD.
#[derive(Debug, Error)]
pub enum CdError {
    /// A file or directory that cannot be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// `context.json` as the guest would refuse it.
    #[error("{dir}/{error}")]
    Config {
        /// Where it lies.
        dir: String,
        /// File, line and key.
        error: ConfigError,
    },
    /// `context.sh` as the guest would refuse it.
    #[error("{dir}/{error}")]
    Shell {
        /// Where it lies.
        dir: String,
        /// File and line.
        error: ShellError,
    },
    /// A script as the guest would refuse it.
    #[error("{}: {fault}", .path.display())]
    Script {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        fault: script::Fault,
    },
    /// Nothing that makes a volume a context CD.
    #[error("{}: none of prolog.sh, epilog.sh, context.sh and context.json is in it, so no machine would take it for a context CD", .0.display())]
    Empty(PathBuf),
    /// Neither a file, a directory nor a link.
    #[error("{}: neither a file, a directory nor a link, so it cannot be on a CD", .0.display())]
    Special(PathBuf),
    /// Something that a signature cannot cover.
    #[error("{}: {error}", .dir.display())]
    Unsignable {
        /// The directory of the CD.
        dir: PathBuf,
        /// What in it, and why.
        error: PathError,
    },
    /// A file that should be an ISO image.
    #[error("{}: neither a directory nor an ISO 9660 volume", .0.display())]
    NoVolume(PathBuf),
    /// A key file.
    #[error("{}: {why}", .path.display())]
    Key {
        /// Which; of a key given by its text, the text.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A signature was made, and does not hold.
    #[error("{}: signed, but the signature does not hold: {why}", .path.display())]
    Unproved {
        /// The CD.
        path: PathBuf,
        /// As the guest would say it.
        why: String,
    },
    /// xorriso's own words.
    #[error("xorriso: {0}")]
    Xorriso(String),
}

/// For `map_err`: an error at this path.
fn at(path: &Path) -> impl Fn(io::Error) -> CdError + use<> {
    let path = path.to_owned();
    move |error| CdError::Io { path: path.clone(), error }
}
