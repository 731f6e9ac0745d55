//! `ctxtool cd new`: a directory to begin with, which works as it is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use super::{CdError, at};

/// Begin a context CD: a directory with scripts that work as they are
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct New {
    /// Where; made if it is not there. Nothing in it is overwritten
    dir: PathBuf,
}

const HELP: &str = "\
Writes prolog.sh and epilog.sh (they tell what they may count on, source nothing, and run in bash and in sh), a
context.json, and a README with an example of everything else.

Example:
  ctxtool cd new my-cd
  ctxtool cd check my-cd && ctxtool cd build my-cd -o my-cd.iso && scripts/vm --cd my-cd.iso";

/// Name and text of each file.
const FILES: &[(&str, &str)] = &[
    ("prolog.sh", include_str!("templates/prolog.sh")),
    ("epilog.sh", include_str!("templates/epilog.sh")),
    ("context.json", include_str!("templates/context.json")),
    ("README", include_str!("templates/README")),
];

/// Writes the files. Returns what to do next.
///
/// # Errors
/// Names the file; if one is there already, nothing was written.
pub fn new(options: &New) -> Result<String, CdError> {
    let dir = &options.dir;
    if let Some((name, _)) = FILES.iter().find(|(name, _)| dir.join(name).symlink_metadata().is_ok()) {
        return Err(CdError::Exists(dir.join(name)));
    }
    fs::create_dir_all(dir).map_err(at(dir))?;
    for (name, text) in FILES {
        let path = dir.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(at(&path))?;
    }
    let iso = image(dir).map_err(at(dir))?;
    let (dir, iso) = (dir.display(), iso.display());
    Ok(format!(
        "{dir}: prolog.sh, epilog.sh, context.json, and a README that tells of them. Next:\n\
        \x20 ctxtool cd check {dir}\n\
        \x20 ctxtool cd build {dir} -o {iso}\n\
        \x20 scripts/vm --cd {iso}        (a machine that boots with it)"
    ))
}

/// A name for the image, beside the directory: `.` has no name of its own, and an image within it could not be built.
fn image(dir: &Path) -> io::Result<PathBuf> {
    let mut name = dir.canonicalize()?.file_name().unwrap_or("cd".as_ref()).to_owned();
    name.push(".iso");
    let plain = dir.components().next_back().is_some_and(|last| matches!(last, Component::Normal(_)));
    if plain {
        return Ok(dir.with_file_name(name));
    }
    let beside = dir.join("..").join(name);
    Ok(beside.strip_prefix(".").unwrap_or(&beside).to_owned())
}
