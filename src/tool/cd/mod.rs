//! `ctxtool cd`: context CDs made, signed and looked at, on the side of the site.

mod build;
mod check;
mod explain;
mod files;
mod finding;
mod iso;
mod keys;
mod new;
mod sign;
mod tree;
mod verify;
mod volume;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::build::{Build, build};
pub use self::check::{Check, check};
pub use self::explain::{Explain, explain};
use self::finding::{Findings, Level};
pub use self::keys::{Keygen, keygen};
pub use self::new::{New, new};
pub use self::sign::{Sign, sign};
pub use self::verify::{Verify, verify};
use super::Outcome;
use crate::config::ConfigError;
use crate::context::signature::PathError;

/// What is done with a CD.
#[derive(Debug, clap::Subcommand)]
pub enum Cd {
    /// Begin a context CD: a directory with scripts that work as they are
    New(New),
    /// Say what a machine would refuse or warn of, before it is booted
    Check(Check),
    /// Build a context CD from a directory
    Build(Build),
    /// Sign a context CD, or the directory of one, in its place
    Sign(Sign),
    /// Say whether a signature holds, as a machine would
    Verify(Verify),
    /// Say what a machine would do with a CD, phase by phase, without booting one
    Explain(Explain),
    /// Make a key pair to sign with
    Keygen(Keygen),
}

/// Does it.
///
/// # Errors
/// Why it could not be done; nothing is left half done.
pub fn run(what: &Cd) -> Result<Outcome, CdError> {
    match what {
        Cd::New(options) => new(options).map(Outcome::from),
        Cd::Check(options) => check(options),
        Cd::Build(options) => build(options),
        Cd::Explain(options) => explain(options).map(Outcome::from),
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
    /// A file of this name is there, and nothing was written.
    #[error("{}: is there already, and nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// The image would be a file of itself.
    #[error("{}: within {}, which is to be on it; write it somewhere else", .output.display(), .dir.display())]
    Inside {
        /// The image to write.
        output: PathBuf,
        /// The directory of the CD.
        dir: PathBuf,
    },
    /// `image.json` as a machine would refuse it.
    #[error(transparent)]
    Policy(#[from] ConfigError),
    /// What a machine would refuse, a line each.
    #[error("{}: {}\n{}", .dir.display(), .findings.summary(), .findings.lines(Level::Warning, false).trim_end())]
    Refused {
        /// The directory of the CD.
        dir: PathBuf,
        /// What is wrong with it.
        findings: Findings,
    },
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
