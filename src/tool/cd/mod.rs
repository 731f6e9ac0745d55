//! `ctxtool cd build`: a context CD from a directory.
//!
//! The ISO 9660 volume is written by xorriso, with Rock Ridge and Joliet as OpenNebula's are, and with all
//! times and modes fixed: the same files give the same bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use thiserror::Error;

use crate::config::{self, ConfigError};
use crate::context::shell::{self, ShellError};
use crate::context::site::Site;
use crate::script;

/// Time stamps of everything on the CD: 2010-07-09, the day of the HEPiX status report, like any other.
const EPOCH: &str = "1278633600";

/// Build a context CD from a directory
#[derive(Debug, clap::Args)]
pub struct Build {
    /// Directory with prolog.sh, epilog.sh, context.json and whatever they need
    dir: PathBuf,
    /// The ISO image to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
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
    /// xorriso's own words.
    #[error("xorriso: {0}")]
    Xorriso(String),
}

/// Checks the directory as the guest will, and writes the volume. Returns a line that tells of it.
///
/// # Errors
/// The first thing that a guest would refuse, or that keeps the volume from being written.
pub fn build(options: &Build) -> Result<String, CdError> {
    check(&options.dir)?;
    let partial = options.output.with_extension("iso.new");
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| CdError::Io { path, error }
    };
    #[expect(clippy::disallowed_methods, reason = "a host tool with one child, which nobody else waits for")]
    let output = Command::new("xorriso")
        .args(["-report_about", "SORRY", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "CONTEXT"])
        .args(["-uid", "0", "-gid", "0", "-dir-mode", "0700", "-file-mode", "0700"])
        .args(["--modification-date=2010070900000000", "--set_all_file_dates", "2010070900000000"])
        .arg("-o")
        .args([&partial, &options.dir])
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .output()
        .map_err(|error| CdError::Xorriso(format!("{error} (Debian package xorriso)")))?;
    if !output.status.success() {
        let _ = fs::remove_file(&partial);
        return Err(CdError::Xorriso(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    fs::rename(&partial, &options.output).map_err(at(&options.output))?;
    let size = fs::metadata(&options.output).map_err(at(&options.output))?.len();
    Ok(format!("{}: {size} bytes", options.output.display()))
}

fn check(dir: &Path) -> Result<(), CdError> {
    let mut marks = 0;
    for name in ["prolog.sh", "epilog.sh", "context.sh", "context.json"] {
        let path = dir.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => continue,
            Err(error) => return Err(CdError::Io { path, error }),
        };
        marks += 1;
        let place = dir.display().to_string();
        match name {
            "context.json" => {
                config::parse::<Site>(name, &text).map_err(|error| CdError::Config { dir: place, error })?;
            }
            "context.sh" => {
                shell::parse(&String::from_utf8_lossy(&text)).map_err(|error| CdError::Shell { dir: place, error })?;
            }
            _ => {
                if let Some(fault) = script::fault(&text) {
                    return Err(CdError::Script { path, fault });
                }
            }
        }
    }
    if marks == 0 { Err(CdError::Empty(dir.to_owned())) } else { Ok(()) }
}
