//! `SHA256SUMS`: every file of a CD with its SHA-256, in the one form that `sha256sum -c` accepts as well.
//!
//! `HEX  PATH` a line, sorted by the bytes of the path. One list has one form, so that two lists which say
//! the same are the same file. Not here: sha256sum's `*` for binary files, its escaped names (a name with a
//! line break or a backslash cannot be on a signed CD), upper case, comments.

use std::collections::BTreeMap;

use thiserror::Error;

/// Its name, in the root of the CD.
pub const SUMS: &str = "SHA256SUMS";
/// The name of its signature, beside it.
pub const SIGNATURE: &str = "SHA256SUMS.minisig";

/// 10,000 files of 200 bytes each, the most that a context CD may hold.
pub const SUMS_LIMIT: usize = 2 * 1024 * 1024;

/// A SHA-256.
pub type Hash = [u8; 32];

/// Paths relative to the root of the CD, and what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<String, Hash>);

/// What is wrong with a list.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{SUMS}:{line}: {why}")]
pub struct SumsError {
    /// From 1.
    pub line: usize,
    /// What was found, or is missing.
    pub why: String,
}

/// A file that cannot be in a list.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{}: {why}", .path.escape_debug())]
pub struct PathError {
    /// Relative to the root of the CD.
    pub path: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Sums {
    /// A list of these files; `SHA256SUMS` and its signature are left out.
    ///
    /// # Errors
    /// The first path that a list cannot hold.
    pub fn of(files: &BTreeMap<String, Hash>) -> Result<Self, PathError> {
        let files = files.iter().filter(|(path, _)| !is_own(path));
        let checked = files.map(|(path, hash)| match fault(path) {
            Some(why) => Err(PathError { path: path.clone(), why }),
            None => Ok((path.clone(), *hash)),
        });
        checked.collect::<Result<_, _>>().map(Self)
    }

    /// Reads a list strictly.
    ///
    /// # Errors
    /// The first line that is not as [`Sums::write`] would have it.
    pub fn parse(text: &[u8]) -> Result<Self, SumsError> {
        let mut files = BTreeMap::new();
        for (at, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let wrong = |why: String| SumsError { line: at + 1, why };
            let (path, hash) = entry(line).map_err(|why| wrong(why.to_owned()))?;
            match files.last_key_value() {
                Some((last, _)) if *last == path => return Err(wrong(format!("{path} a second time"))),
                Some((last, _)) if *last > path => {
                    return Err(wrong(format!("{path} after {last}: the lines are not sorted")));
                }
                _ => files.insert(path, hash),
            };
        }
        Ok(Self(files))
    }

    /// The text that [`Sums::parse`] reads.
    pub fn write(&self) -> String {
        let hex = |hash: &Hash| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.0.iter().map(|(path, hash)| format!("{}  {path}\n", hex(hash))).collect()
    }

    /// How many files it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first difference between the list and `files`, in the order of paths, as a sentence.
    pub fn difference(&self, files: &BTreeMap<String, Hash>) -> Option<String> {
        let listed = self.0.iter().filter_map(|(path, hash)| match files.get(path) {
            None => Some((path, "is in SHA256SUMS and not on the CD")),
            Some(found) if found != hash => Some((path, "is not what SHA256SUMS says")),
            Some(_) => None,
        });
        let added = files.keys().filter(|path| !is_own(path) && !self.0.contains_key(*path));
        let added = added.map(|path| (path, "is on the CD and not in SHA256SUMS"));
        let mut all: Vec<_> = listed.chain(added).collect();
        all.sort_unstable();
        let (path, what) = all.first()?;
        let more = if all.len() == 1 { String::new() } else { format!(", and {} more like it", all.len() - 1) };
        Some(format!("{} {what}{more}", path.escape_debug()))
    }
}

fn is_own(path: &str) -> bool {
    path == SUMS || path == SIGNATURE
}

fn entry(line: &[u8]) -> Result<(String, Hash), &'static str> {
    const FORM: &str = "not 64 hexadecimal digits in lower case, two blanks and a path";
    let line = line.strip_suffix(b"\n").ok_or("the line has no end")?;
    let line = str::from_utf8(line).map_err(|_| "not UTF-8")?;
    let (hex, path) = line.split_once("  ").ok_or(FORM)?;
    let hash = parse_hex(hex).ok_or(FORM)?;
    if is_own(path) {
        return Err("the list does not hold itself, nor its signature");
    }
    fault(path).map_or_else(|| Ok((path.to_owned(), hash)), Err)
}

/// Why a path cannot be in a list. sha256sum escapes names with a line break or a backslash, and a terminal takes other
/// control characters for orders.
fn fault(path: &str) -> Option<&'static str> {
    if path.chars().any(|character| character.is_control() || character == '\\') {
        Some("a control character or a backslash in a path")
    } else if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        Some("not a plain relative path")
    } else {
        None
    }
}

fn parse_hex(text: &str) -> Option<Hash> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

    #[test]
    fn what_is_written_is_read() {
        let files = ["prolog.sh", "SHA256SUMS", "SHA256SUMS.minisig", "b/SHA256SUMS", "b.sh", "ä b  c", "*x"];
        let files: BTreeMap<_, _> = (1u8..).zip(files).map(|(byte, path)| (path.to_owned(), [byte; 32])).collect();
        let sums = Sums::of(&files).unwrap();
        let text = sums.write();
        assert_eq!(Sums::parse(text.as_bytes()), Ok(sums.clone()));
        let paths: Vec<_> = text.lines().map(|line| &line[66..]).collect();
        // By bytes: `.` comes before `/`, and a-umlaut after everything in ASCII.
        assert_eq!(paths, ["*x", "b.sh", "b/SHA256SUMS", "prolog.sh", "ä b  c"]);
        assert_eq!(sums.difference(&files), None);
        assert_eq!(Sums::parse(b""), Ok(Sums::default()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let form = "not 64 hexadecimal digits in lower case, two blanks and a path";
        let plain = "not a plain relative path";
        let control = "a control character or a backslash in a path";
        let cases = [
            (format!("{A}  a"), "SHA256SUMS:1: the line has no end".to_owned()),
            (format!("{A}  a\n\n"), format!("SHA256SUMS:2: {form}")),
            (format!("{A} a\n"), format!("SHA256SUMS:1: {form}")),
            (format!("{A} *a\n"), format!("SHA256SUMS:1: {form}")),
            (format!("{}  a\n", A.to_uppercase()), format!("SHA256SUMS:1: {form}")),
            (format!("{}  a\n", &A[1..]), format!("SHA256SUMS:1: {form}")),
            (format!("{A}00  a\n"), format!("SHA256SUMS:1: {form}")),
            (format!("g{}  a\n", &A[1..]), format!("SHA256SUMS:1: {form}")),
            (format!("{A}  a\n{A}  a\n"), "SHA256SUMS:2: a a second time".to_owned()),
            (format!("{A}  b\n{A}  a\n"), "SHA256SUMS:2: a after b: the lines are not sorted".to_owned()),
            (format!("{A}  \n"), format!("SHA256SUMS:1: {plain}")),
            (format!("{A}  ./a\n"), format!("SHA256SUMS:1: {plain}")),
            (format!("{A}  /a\n"), format!("SHA256SUMS:1: {plain}")),
            (format!("{A}  a//b\n"), format!("SHA256SUMS:1: {plain}")),
            (format!("{A}  a/../b\n"), format!("SHA256SUMS:1: {plain}")),
            (format!("{A}  a/\n"), format!("SHA256SUMS:1: {plain}")),
            (format!("{A}  a\\b\n"), format!("SHA256SUMS:1: {control}")),
            (format!("{A}  a\r\n"), format!("SHA256SUMS:1: {control}")),
            (format!("\\{A}  a\n"), format!("SHA256SUMS:1: {form}")),
            (format!("{A}  SHA256SUMS\n"), "SHA256SUMS:1: the list does not hold itself, nor its signature".to_owned()),
        ];
        for (text, complaint) in cases {
            assert_eq!(Sums::parse(text.as_bytes()).unwrap_err().to_string(), complaint, "{text:?}");
        }
        let not_text = [A.as_bytes(), b"  \xff\n"].concat();
        assert_eq!(Sums::parse(&not_text).unwrap_err().to_string(), "SHA256SUMS:1: not UTF-8");
        let files = BTreeMap::from([("a\nb".to_owned(), [0; 32])]);
        assert_eq!(Sums::of(&files).unwrap_err().to_string(), format!("a\\nb: {control}"));
    }

    #[test]
    fn differences_have_three_forms() {
        let files = |pairs: &[(&str, u8)]| -> BTreeMap<String, Hash> {
            pairs.iter().map(|(path, byte)| ((*path).to_owned(), [*byte; 32])).collect()
        };
        let sums = Sums::of(&files(&[("a", 1), ("b", 2)])).unwrap();
        let cases: [(&[(&str, u8)], &str); 4] = [
            (&[("a", 1)], "b is in SHA256SUMS and not on the CD"),
            (&[("a", 1), ("b", 3)], "b is not what SHA256SUMS says"),
            (&[("a", 1), ("b", 2), ("c\n", 2)], "c\\n is on the CD and not in SHA256SUMS"),
            (&[("a", 1), ("B", 2)], "B is on the CD and not in SHA256SUMS, and 1 more like it"),
        ];
        for (found, difference) in cases {
            assert_eq!(sums.difference(&files(found)).as_deref(), Some(difference));
        }
    }
}
