//! `ctxtool cd check`: everything that a machine would refuse or warn of, before it is booted.
//!
//! What the guest reads is read here by the guest's own parsers; the rest is what a careful colleague would see
//! on a look through the files. Nothing of the CD is run.

mod bans;
mod commands;
mod files;
mod nebula;
mod network;
mod payload;
mod place;
mod scripts;
mod secrets;
pub mod settings;
mod syntax;
mod writes;

use std::fs;
use std::path::{Path, PathBuf};

pub use self::secrets::is_secret;
use super::finding::{Findings, Level};
use super::tree::Tree;
use super::{CdError, Outcome, at};
use crate::config;
use crate::image::policy::Policy;

/// Say what a machine would refuse or warn of, before it is booted
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Check {
    /// Directory of a CD to be, or an ISO image (read by xorriso, neither mounted nor run)
    #[arg(value_name = "DIR|ISO")]
    what: PathBuf,
    /// The image's image.json, so that its limits count and not the default ones
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// Findings as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
One line each: LEVEL FILE:LINE: KEY: what.
  error    a machine refuses the CD, or ends with code 500
  warning  a machine takes it, and something is probably not as it was meant
  hint     worth a thought; shellcheck's are among them if it is installed (SC1234)

Exit codes: 0 no error, 3 errors (with --strict also warnings); 1 if it cannot be read

Example:
  $ ctxtool cd check my-cd
  error context.json:3: sylog: unknown field `sylog`, expected one of `hostname`, `syslog`, ...
  warning prolog.sh:7: /usr/lib/x.so: may be written by cp: not in site_writable
  1 error, 1 warning: a machine refuses this CD or fails with it";

/// Checks a directory or an image.
///
/// # Errors
/// If it, or the image's policy, cannot be read at all.
pub fn check(options: &Check) -> Result<Outcome, CdError> {
    let policy = policy(options.image.as_deref())?;
    let tree = Tree::open(&options.what)?;
    let findings = look(&tree, policy.as_ref())?;
    let passed = findings.count(Level::Error) == 0 && !(options.strict && findings.count(Level::Warning) > 0);
    let text = if options.json {
        serde_json::to_string_pretty(&findings).unwrap_or_default()
    } else {
        let coloured = crate::text::in_colours();
        format!("{}{}: {}", findings.lines(Level::Hint, coloured), tree.name, findings.summary())
    };
    Ok(Outcome { text, code: if passed { 0 } else { 3 }, ..Outcome::default() })
}

/// The image's policy, if the user has it.
///
/// # Errors
/// Names the file, and what is wrong with it.
pub fn policy(path: Option<&Path>) -> Result<Option<Policy>, CdError> {
    let Some(path) = path else { return Ok(None) };
    let text = fs::read(path).map_err(at(path))?;
    Ok(Some(config::parse(&path.display().to_string(), &text)?))
}

/// All that is to be said of a CD. Without the image's policy the default limits count.
///
/// # Errors
/// If a file of it cannot be read.
pub fn look(tree: &Tree, image: Option<&Policy>) -> Result<Findings, CdError> {
    let policy = &image.map_or_else(Policy::unread, Policy::clone);
    let mut findings = files::check(tree, policy);
    let settings = settings::check(tree, policy, &mut findings)?;
    bans::check(tree, &mut findings)?;
    network::check(&settings, &mut findings);
    payload::check(&settings, image, &mut findings);
    scripts::check(tree, policy, &settings, &mut findings)?;
    secrets::check(tree, &settings, &mut findings)?;
    Ok(findings.into())
}

#[cfg(test)]
mod tests;
