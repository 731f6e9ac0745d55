//! `ctxtool pool results`: a pool of results as a directory of files. It can be stopped and started again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::answer::Row;
use super::client::Client;
use super::screen::{Screen, bar};
use super::{PoolError, at, name, nothing, pool_name};
use crate::context::site::PoolName;
use crate::text::count;
use crate::tool::Outcome;

/// Fetch a pool of results into a directory, a file each
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A file is called as its result, POOL.TOKEN by our machines; what would be a path or an option in that name becomes _. It is
there whole or not at all. A file that is there with the right size is not fetched again; of several results with one
name, all but the first get their number behind it.

With --delete a result is deleted once its file is on the disk; a file that is there already is compared first.

Examples:
  ctxtool pool results mc-results -o results
  ctxtool pool results mc-results -o results --delete"
)]
pub(super) struct Results {
    /// The pool of results
    #[arg(value_parser = pool_name)]
    pool: PoolName,
    /// Directory for the files; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Delete each result from the pool once it is stored
    #[arg(long)]
    delete: bool,
}

/// For a listing that does not say how long a token is.
const LARGEST: u64 = 4 << 30;

#[derive(Default)]
struct Tally {
    stored: u64,
    there: u64,
    gone: u64,
    deleted: u64,
}

pub(super) fn results(client: &Client, options: &Results) -> Result<Outcome, PoolError> {
    let pool = &options.pool;
    let rows = client.tokens(pool)?;
    if rows.is_empty() {
        return Ok(nothing(client, pool));
    }
    let dir = &options.output;
    fs::create_dir_all(dir).map_err(at(dir))?;
    let (mut tally, mut names) = (Tally::default(), BTreeSet::new());
    let total = rows.len() as u64;
    let mut screen = Screen::new();
    for (at, row) in rows.iter().enumerate() {
        screen.show(format!("{} {at} of {total}", bar(at as u64, total)));
        let files = candidates(dir, row, &mut names);
        one(client, options, row, &files, &mut tally)?;
    }
    drop(screen);
    let Tally { stored, there, gone, deleted } = tally;
    let mut text = format!("{}: {} stored", dir.display(), count(stored, "result"));
    for (number, what) in
        [(there, "there already"), (gone, "gone before it was fetched"), (deleted, "deleted from the pool")]
    {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    Ok(Outcome::from(text))
}

/// Where a result may be: under its name, unless another one of this listing has it, or under its name and number.
fn candidates(dir: &Path, row: &Row, names: &mut BTreeSet<String>) -> Vec<PathBuf> {
    let plain = name::safe(&row.name, &row.id);
    let numbered = format!("{plain}.{}", row.id);
    let first = names.insert(plain.clone()).then_some(plain);
    names.insert(numbered.clone());
    first.into_iter().chain([numbered]).map(|name| dir.join(name)).collect()
}

fn one(client: &Client, options: &Results, row: &Row, files: &[PathBuf], tally: &mut Tally) -> Result<(), PoolError> {
    let pool = &options.pool;
    // Its size is enough to leave a file alone, and not enough to delete the only other copy.
    let known = |file: &PathBuf| row.size().is_some() && length(file) == row.size();
    if !options.delete && files.iter().any(known) {
        tally.there += 1;
        return Ok(());
    }
    let Some(value) = client.fetch(pool, &row.id, row.size().unwrap_or(LARGEST))? else {
        tally.gone += 1;
        return Ok(());
    };
    if let Some(size) = row.size().filter(|size| *size != value.len() as u64) {
        let why = format!("token {} came with {} bytes, and the listing says {size}", row.id, value.len());
        return Err(at(&options.output)(io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    if keep(&options.output, files, &value)? {
        tally.stored += 1;
    } else {
        tally.there += 1;
    }
    if options.delete && client.delete(pool, &row.id)? {
        tally.deleted += 1;
    }
    Ok(())
}

/// Stores a value under the first name that is free, unless one of them has it. Whether it was stored.
fn keep(dir: &Path, files: &[PathBuf], value: &[u8]) -> Result<bool, PoolError> {
    let readable = fs::Permissions::from_mode(0o666); // less the umask
    let mut new: NamedTempFile =
        tempfile::Builder::new().prefix(".part-").permissions(readable).tempfile_in(dir).map_err(at(dir))?;
    new.write_all(value).and_then(|()| new.as_file().sync_all()).map_err(at(new.path()))?;
    for file in files {
        match new.persist_noclobber(file) {
            // The name is on the disk, too, before anything is deleted.
            Ok(_) => return File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir)).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                if length(file).is_some() && fs::read(file).map_err(at(file))? == value {
                    return Ok(false);
                }
                new = error.file;
            }
            Err(error) => return Err(at(file)(error.error)),
        }
    }
    let last = files.last().map_or(dir, PathBuf::as_path);
    Err(at(last)(io::Error::new(io::ErrorKind::AlreadyExists, "is there, and is another result; move it away")))
}

/// Of a plain file; a link may lead anywhere.
fn length(file: &Path) -> Option<u64> {
    fs::symlink_metadata(file).ok().filter(fs::Metadata::is_file).map(|meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_kept_once_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["a", "a.7"].map(|name| dir.path().join(name));
        assert!(keep(dir.path(), &files, b"one").unwrap());
        assert!(!keep(dir.path(), &files, b"one").unwrap());
        assert!(keep(dir.path(), &files, b"two").unwrap());
        assert_eq!(fs::read(&files[1]).unwrap(), b"two");
        let error = keep(dir.path(), &files, b"three").unwrap_err().to_string();
        assert!(error.ends_with("a.7: is there, and is another result; move it away"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no half of anything");
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        assert!(keep(dir.path(), &[dir.path().join("link")], b"one").is_err(), "a link is no file of ours");
    }
}
