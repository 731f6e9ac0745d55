//! The files of a CD while it is a directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use ring::digest::{Context, SHA256};

use super::{CdError, at};
use crate::context::signature::{Hash, NOT_A_FILE};

/// Copies what is in `from` into `to`, which is there and empty. Links are copied as links.
pub fn copy(from: &Path, to: &Path) -> Result<(), CdError> {
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(at(&source))?;
        if kind.is_dir() {
            fs::create_dir(&target).map_err(at(&target))?;
            copy(&source, &target)?;
        } else if kind.is_symlink() {
            let aim = fs::read_link(&source).map_err(at(&source))?;
            symlink(aim, &target).map_err(at(&target))?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(at(&source))?;
        } else {
            return Err(CdError::Special(source));
        }
    }
    Ok(())
}

/// The hashes of everything in `dir`, for [`crate::context::signature::judge`].
pub fn hashes(dir: &Path) -> Result<BTreeMap<String, Hash>, CdError> {
    let mut files = BTreeMap::new();
    collect(dir, "", &mut files)?;
    Ok(files)
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Hash>) -> Result<(), CdError> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            // With the quotes and backslashes of this form, which no listed path has.
            files.insert(format!("{prefix}{:?}", entry.file_name()), NOT_A_FILE);
            continue;
        };
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(at(&path))?;
        if kind.is_dir() {
            let before = files.len();
            collect(&path, &format!("{name}/"), files)?;
            if files.len() == before {
                files.insert(name, NOT_A_FILE);
            }
        } else {
            files.insert(name, if kind.is_file() { hash(&path)? } else { NOT_A_FILE });
        }
    }
    Ok(())
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
