//! `ctxtool cd build`: a context CD from a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::sign::{self, Promise};
use super::{CdError, at, files, iso};
use crate::config;
use crate::context::shell;
use crate::context::site::Site;
use crate::script;

/// Options of `ctxtool cd build`.
#[derive(Debug, clap::Args)]
pub struct Build {
    /// Directory with prolog.sh, epilog.sh, context.json and whatever they need; it is left as it is
    dir: PathBuf,
    /// The ISO image to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Sign it with this secret key (ctxtool cd keygen, or minisign -G)
    #[arg(long, value_name = "KEY", requires_all = ["image", "expires"])]
    sign: Option<PathBuf>,
    /// The image that it is for: its uuid, or any
    #[arg(long, value_name = "UUID|any", value_parser = sign::parse_image, requires = "sign")]
    image: Option<String>,
    /// Until when the signature holds: 2027-01-01, 2027-01-01T12:00:00Z, or a time from now like 90days
    #[arg(long, value_name = "DATE|DURATION", value_parser = sign::parse_expires, requires = "sign")]
    expires: Option<SystemTime>,
    /// Take the key's password from the first line of this file, not from the terminal
    #[arg(long, value_name = "FILE", requires = "sign")]
    password_file: Option<PathBuf>,
}

/// Checks the directory as the guest will, and writes the volume. Returns a line that tells of it.
///
/// # Errors
/// The first thing that a guest would refuse, or that keeps the volume from being written.
pub fn build(options: &Build) -> Result<String, CdError> {
    check(&options.dir)?;
    // Beside the result, where there is room for it. A copy, so that what was hashed is what is written, and so that
    // hard links make no difference: xorriso would write their content once.
    let copy = iso::scratch(&options.output)?;
    files::copy(&options.dir, copy.path())?;
    let mut signed = String::new();
    if let (Some(key), Some(image), Some(expires)) = (&options.sign, &options.image, options.expires) {
        let promise = Promise { key, password_file: options.password_file.as_deref(), image, expires };
        signed = format!("; {}", sign::sign_dir(copy.path(), &options.dir, &promise)?);
    }
    iso::write(copy.path(), iso::LABEL, &options.output)?;
    let size = fs::metadata(&options.output).map_err(at(&options.output))?.len();
    Ok(format!("{}: {size} bytes{signed}", options.output.display()))
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
