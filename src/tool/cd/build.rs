//! `ctxtool cd build`: a context CD from a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::finding::{Findings, Level};
use super::sign::{self, Promise};
use super::tree::Tree;
use super::{CdError, Outcome, at, check, files, iso};

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

/// Checks the directory as `cd check` does, and writes the volume. Returns a line that tells of it.
///
/// # Errors
/// Everything that a guest would refuse, or what keeps the volume from being written.
pub fn build(options: &Build) -> Result<Outcome, CdError> {
    outside(&options.dir, &options.output)?;
    let warnings = examined(&options.dir)?.lines(Level::Warning, false);
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
    let text = format!("{}: {size} bytes{signed}", options.output.display());
    Ok(Outcome { text, warnings, ..Outcome::default() })
}

/// The copy is made beside the output, so within the directory it would be copied into itself, without an end.
fn outside(dir: &Path, output: &Path) -> Result<(), CdError> {
    let beside = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let inside = beside.canonicalize().map_err(at(beside))?.starts_with(dir.canonicalize().map_err(at(dir))?);
    if inside { Err(CdError::Inside { output: output.to_owned(), dir: dir.to_owned() }) } else { Ok(()) }
}

/// What a machine would take. Which limits its image has is not known here, so the default ones count.
fn examined(dir: &Path) -> Result<Findings, CdError> {
    let tree = Tree::of_directory(dir)?;
    let findings = check::look(&tree, None)?;
    if findings.count(Level::Error) > 0 {
        return Err(CdError::Refused { dir: dir.to_owned(), findings });
    }
    Ok(findings)
}
