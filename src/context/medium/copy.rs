//! A medium read to its end: copied within bounds, and hashed on the way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use ring::digest::{Context, SHA256, digest};
use thiserror::Error;

use crate::context::signature::{Hash, NOT_A_FILE, SIGNATURE, SIGNATURE_LIMIT, SUMS, SUMS_LIMIT};

/// Deeper nesting than any site's CD has, and more files, directories and links than any needs.
const MAX_DEPTH: usize = 16;
const MAX_ENTRIES: usize = 10_000;
/// Scripts that the log names one by one; no site has so many.
const MAX_NAMED: usize = 100;
/// What is read and hashed at a time; a larger piece makes nothing faster.
const CHUNK: usize = 64 * 1024;

/// Why a medium was not copied; it names the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub enum CopyError {
    /// A fault of the drive or of the disc, which may pass.
    Unreadable(String),
    /// Something that is on it, and stays.
    Refused(String),
}

/// A whole copy.
#[derive(Debug, Default)]
pub struct Copied {
    /// Bytes of all files.
    pub bytes: u64,
    /// By the bytes of their paths: of a regular file its hash, nothing of anything else that has no content.
    entries: BTreeMap<Vec<u8>, Option<Hash>>,
}

/// Copies the tree `from` to the directory `to`, which is emptied first: a second attempt must not find the first one's
/// remains.
///
/// # Errors
/// Names the file, by its path on the medium.
pub fn copy(from: &Path, to: &Path, limit: u64) -> Result<Copied, CopyError> {
    empty(to).map_err(|error| CopyError::Unreadable(format!("{}: {error}", to.display())))?;
    let mut copier = Copier { limit, entries: 0, copied: Copied::default() };
    copier.directory(from, to, Vec::new(), 0)?;
    copier.copied.check_links(to).map_err(CopyError::Refused)?;
    Ok(copier.copied)
}

struct Copier {
    limit: u64,
    entries: usize,
    copied: Copied,
}

impl Copier {
    /// `path` is that on the medium, empty for its root.
    fn directory(&mut self, from: &Path, to: &Path, path: Vec<u8>, depth: usize) -> Result<(), CopyError> {
        let failed = |error: io::Error| unreadable(&path, &error);
        if depth > MAX_DEPTH {
            return Err(refused(&path, &format!("more than {MAX_DEPTH} directories deep")));
        }
        let mut is_empty = true;
        for entry in fs::read_dir(from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            is_empty = false;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(CopyError::Refused(format!("more than {MAX_ENTRIES} files and directories")));
            }
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let path = below(&path, entry.file_name().as_bytes());
            if path.contains(&b'\n') {
                return Err(refused(&path, &"the name holds a line break"));
            }
            let failed = |error: io::Error| unreadable(&path, &error);
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                DirBuilder::new().mode(0o700).create(&target).map_err(failed)?;
                self.directory(&source, &target, path, depth + 1)?;
            } else if kind.is_file() {
                let hash = self.file(&source, &target, &path)?;
                self.copied.entries.insert(path, Some(hash));
            } else {
                if kind.is_symlink() {
                    symlink(fs::read_link(&source).map_err(failed)?, &target).map_err(failed)?;
                }
                // Devices, sockets and pipes have no place on a context CD and are left behind.
                self.copied.entries.insert(path, None);
            }
        }
        if is_empty && depth > 0 {
            self.copied.entries.insert(path, None);
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path, path: &[u8]) -> Result<Hash, CopyError> {
        let failed = |error: io::Error| unreadable(path, &error);
        let mut source = File::open(from).map_err(failed)?;
        let expected = source.metadata().map_err(failed)?.len();
        // Mode 700, as the HEPiX copy has it: a script may run its helpers, nobody else may read them.
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o700).open(to).map_err(failed)?;
        let mut chunk = [0; CHUNK];
        let mut hash = Context::new(&SHA256);
        let mut copied = 0;
        loop {
            let count = source.read(&mut chunk).map_err(failed)?;
            if count == 0 {
                break;
            }
            copied += count as u64;
            self.copied.bytes += count as u64;
            if self.copied.bytes > self.limit {
                let why = format!("its files take more than the image's medium.size_mb, {} bytes", self.limit);
                return Err(CopyError::Refused(why));
            }
            let read = chunk.get(..count).unwrap_or_default();
            hash.update(read);
            target.write_all(read).map_err(failed)?;
        }
        if copied != expected {
            return Err(unreadable(path, &format!("{copied} bytes of {expected} could be read")));
        }
        Ok(bytes(&hash.finish()))
    }
}

impl Copied {
    /// Regular files.
    pub fn files(&self) -> usize {
        self.entries.values().flatten().count()
    }

    /// Hexadecimal SHA-256 of the list of all regular files but the list and its signature themselves.
    pub fn identity(&self) -> String {
        let mut list = Vec::new();
        for (path, hash) in &self.entries {
            let Some(hash) = hash else { continue };
            if path != SUMS.as_bytes() && path != SIGNATURE.as_bytes() {
                list.extend(hex(hash).as_bytes());
                list.extend(b"  ");
                list.extend(path);
                list.push(b'\n');
            }
        }
        hex(digest(&SHA256, &list).as_ref())
    }

    /// Path and hexadecimal SHA-256 of the files that `wanted` picks, at most [`MAX_NAMED`].
    pub fn hashes(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let named = |(path, hash): (&Vec<u8>, &Option<Hash>)| {
            let path = std::str::from_utf8(path).ok().filter(|path| wanted(path))?;
            Some((path.to_owned(), hex(hash.as_ref()?)))
        };
        self.entries.iter().filter_map(named).take(MAX_NAMED).collect()
    }

    /// As [`crate::context::signature::judge`] takes it.
    pub fn judged(&self) -> BTreeMap<String, Hash> {
        let entry = |(path, hash): (&Vec<u8>, &Option<Hash>)| match (std::str::from_utf8(path), hash) {
            (Ok(path), Some(hash)) => (path.to_owned(), *hash),
            // Escaped, it holds a backslash, so no signed list can name it.
            _ => (path.escape_ascii().to_string(), NOT_A_FILE),
        };
        self.entries.iter().map(entry).collect()
    }

    /// The text of a file in the root, if it is there, and one byte more than the longest that its reader takes.
    ///
    /// # Errors
    /// Names the file.
    pub fn text(&self, copy: &Path, name: &str) -> Result<Option<Vec<u8>>, String> {
        if !matches!(self.entries.get(name.as_bytes()), Some(Some(_))) {
            return Ok(None);
        }
        let mut text = Vec::new();
        let limit = SUMS_LIMIT.max(SIGNATURE_LIMIT) as u64 + 1;
        let read = File::open(copy.join(name)).and_then(|file| file.take(limit).read_to_end(&mut text));
        read.map_err(|error| format!("{name}: {error}"))?;
        Ok(Some(text))
    }

    /// Whoever follows a link of the copy must come out in the copy. Only the whole copy can tell: a link may lead over
    /// others.
    fn check_links(&self, copy: &Path) -> Result<(), String> {
        let root = fs::canonicalize(copy).map_err(|error| format!("{}: {error}", copy.display()))?;
        for path in self.entries.iter().filter_map(|(path, hash)| hash.is_none().then_some(path)) {
            let link = copy.join(OsStr::from_bytes(path));
            let Ok(target) = fs::read_link(&link) else { continue };
            let complaint = |what: &str| named(path, &format!("a link to {}, {what}", target.display()));
            if target.is_absolute() {
                return Err(complaint("which is not on the medium"));
            }
            match fs::canonicalize(&link) {
                Ok(end) if end.starts_with(&root) => {}
                Ok(_) => return Err(complaint("which is not on the medium")),
                Err(_) => return Err(complaint("which leads nowhere")),
            }
        }
        Ok(())
    }
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn named(path: &[u8], why: &dyn std::fmt::Display) -> String {
    let path = if path.is_empty() { "the root directory".into() } else { String::from_utf8_lossy(path) };
    format!("{}: {why}", crate::text::printable(&path))
}

fn unreadable(path: &[u8], why: &dyn std::fmt::Display) -> CopyError {
    CopyError::Unreadable(named(path, why))
}

fn refused(path: &[u8], why: &dyn std::fmt::Display) -> CopyError {
    CopyError::Refused(named(path, why))
}

fn bytes(digest: &ring::digest::Digest) -> Hash {
    let mut hash = Hash::default();
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn empty(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A medium and the place of its copy.
    fn dirs() -> (tempfile::TempDir, tempfile::TempDir) {
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
    }

    /// Nothing that is not text can stand for a file that is: a list names `a\u{fffd}`, the CD holds `a\x80` beside it.
    #[test]
    fn a_name_that_is_no_text_hides_behind_no_other() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in [&b"a\xef\xbf\xbd"[..], b"a\x80"] {
            fs::write(from.path().join(OsStr::from_bytes(name)), "x").unwrap();
        }
        let judged = copy(from.path(), to.path(), MIB).unwrap().judged();
        assert_eq!(judged.len(), 2);
        assert_eq!(judged.get("a\\x80"), Some(&NOT_A_FILE));
    }

    #[test]
    fn the_identity_is_that_of_sha256sum() {
        let (from, to) = dirs();
        fs::create_dir_all(from.path().join("a/b")).unwrap();
        fs::write(from.path().join("prolog.sh"), "echo\n").unwrap();
        fs::write(from.path().join("a/b/c"), "").unwrap();
        // Sorted by bytes this stands before a/b, though not by directories.
        fs::write(from.path().join("a-b"), vec![7; 200_000]).unwrap();
        fs::write(from.path().join(OsStr::from_bytes(b"z\xff")), "x").unwrap();
        let copied = copy(from.path(), to.path(), MIB).unwrap();
        assert_eq!((copied.files(), copied.bytes), (4, 200_006));
        // find -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
        assert_eq!(copied.identity(), "f4bbeca1dc2efa0a17c99d9b8466f170a38c63327db27bbd7f034bf6beeb69eb");
        fs::write(from.path().join("SHA256SUMS"), "1").unwrap();
        fs::write(from.path().join("SHA256SUMS.minisig"), "2").unwrap();
        let signed = copy(from.path(), to.path(), MIB).unwrap();
        assert_eq!((signed.identity(), signed.files()), (copied.identity(), 6));
        assert_eq!(signed.text(to.path(), "SHA256SUMS").unwrap().unwrap(), b"1");
        assert_eq!(signed.text(to.path(), "SHA256").unwrap(), None);
        let mode = fs::metadata(to.path().join("a/b/c")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn what_is_no_file_is_judged_as_such() {
        let (from, to) = dirs();
        fs::create_dir_all(from.path().join("full/empty")).unwrap();
        fs::write(from.path().join("full/file"), "x").unwrap();
        symlink("full/file", from.path().join("link")).unwrap();
        nix::unistd::mkfifo(&from.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let copied = copy(from.path(), to.path(), MIB).unwrap();
        let strange: Vec<_> = copied.judged().into_iter().filter(|(_, hash)| *hash == NOT_A_FILE).collect();
        let names: Vec<&str> = strange.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["full/empty", "link", "pipe"]);
        assert_eq!(fs::read_to_string(to.path().join("link")).unwrap(), "x");
        assert!(!to.path().join("pipe").exists());
    }

    #[test]
    fn links_stay_inside() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("link", "/etc/passwd")], "link: a link to /etc/passwd, which is not on the medium"),
            (&[("dir/link", "../../etc")], "dir/link: a link to ../../etc, which leads nowhere"),
            (&[("link", "..")], "link: a link to .., which is not on the medium"),
            (&[("link", "nothing")], "link: a link to nothing, which leads nowhere"),
            // Each of these stays inside by its words.
            (&[("dir/up", ".."), ("out", "dir/up/..")], "out: a link to dir/up/.., which is not on the medium"),
        ];
        for (links, complaint) in cases {
            let (from, to) = dirs();
            fs::create_dir(from.path().join("dir")).unwrap();
            fs::write(from.path().join("dir/file"), "").unwrap();
            for (link, target) in links {
                symlink(target, from.path().join(link)).unwrap();
            }
            assert_eq!(copy(from.path(), to.path(), MIB).unwrap_err(), CopyError::Refused(complaint.to_owned()));
        }
    }

    #[test]
    fn bounds_are_kept() {
        let (from, to) = dirs();
        fs::write(from.path().join("file"), vec![0; 1000]).unwrap();
        assert_eq!(copy(from.path(), to.path(), 1000).unwrap().bytes, 1000);
        let complaint = copy(from.path(), to.path(), 999).unwrap_err().to_string();
        assert_eq!(complaint, "its files take more than the image's medium.size_mb, 999 bytes");
        let deep = from.path().join("d/".repeat(MAX_DEPTH + 1));
        fs::create_dir_all(deep).unwrap();
        assert!(
            copy(from.path(), to.path(), MIB).unwrap_err().to_string().ends_with("d/d: more than 16 directories deep")
        );
        let (from, to) = dirs();
        fs::write(from.path().join("two\nlines"), "").unwrap();
        assert_eq!(
            copy(from.path(), to.path(), MIB).unwrap_err().to_string(),
            "two\\nlines: the name holds a line break"
        );
    }
}
