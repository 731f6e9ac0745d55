//! The files of a CD while it is a directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use ring::digest::{Context, SHA256};

use super::tree::{Entry, Kind, list};
use super::{CdError, at};
use crate::context::signature::{Hash, NOT_A_FILE};

/// Copies what is in `from` into `to`, which is there and empty. Links are copied as links.
pub fn copy(from: &Path, to: &Path) -> Result<(), CdError> {
    for Entry { place, kind, .. } in list(from)? {
        let (source, target) = (from.join(&place), to.join(&place));
        match kind {
            Kind::Directory => fs::create_dir(&target).map_err(at(&target))?,
            Kind::Link(aim) => symlink(aim, &target).map_err(at(&target))?,
            Kind::File(_) => fs::copy(&source, &target).map(drop).map_err(at(&source))?,
            Kind::Special => return Err(CdError::Special(source)),
        }
    }
    Ok(())
}

/// The hashes of everything in `dir`, for [`crate::context::signature::judge`]. A directory is told by what is in it.
pub fn hashes(dir: &Path) -> Result<BTreeMap<String, Hash>, CdError> {
    let mut files = BTreeMap::new();
    let mut entries = list(dir)?.into_iter().peekable();
    while let Some(Entry { place, kind, .. }) = entries.next() {
        let has_some = entries.peek().is_some_and(|next| next.place.parent() == Some(&place));
        match (place.to_str(), kind) {
            // With the quotes and backslashes of this form, which no listed path has.
            (None, _) => drop(files.insert(format!("{place:?}"), NOT_A_FILE)),
            (Some(_), Kind::Directory) if has_some => {}
            (Some(path), Kind::File(_)) => drop(files.insert(path.to_owned(), hash(&dir.join(&place))?)),
            (Some(path), _) => drop(files.insert(path.to_owned(), NOT_A_FILE)),
        }
    }
    Ok(files)
}

fn hash(path: &Path) -> Result<Hash, CdError> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk).map_err(at(path))? {
            0 => break,
            count => context.update(chunk.get(..count).unwrap_or_default()),
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_directory_is_told_by_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a", "empty", "z"] {
            fs::create_dir(dir.path().join(path)).unwrap();
        }
        // `-` comes before `/`.
        for path in ["a-b", "a/x", "z/y"] {
            fs::write(dir.path().join(path), path).unwrap();
        }
        symlink("a-b", dir.path().join("link")).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"\xff")), "").unwrap();
        let copy = tempfile::tempdir().unwrap();
        super::copy(dir.path(), copy.path()).unwrap();
        let files = hashes(copy.path()).unwrap();
        let told: Vec<(&str, bool)> = files.iter().map(|(path, hash)| (path.as_str(), *hash != NOT_A_FILE)).collect();
        let others = [("a-b", true), ("a/x", true), ("empty", false), ("link", false), ("z/y", true)];
        assert_eq!(told, [vec![("\"\\xFF\"", false)], others.to_vec()].concat());
    }
}
