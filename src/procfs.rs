//! Texts of the kernel's own file systems.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than most of them have; a longer one is read on.
const USUAL: usize = 4096;

/// All of such a text. These files say that they have no length, so the standard library begins with 32 bytes and takes
/// eight calls for what is here one.
///
/// # Errors
/// Those of open(2) and read(2), and a text that is not UTF-8.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    rest(File::open(path)?)
}

/// What is left of one that is open.
///
/// # Errors
/// Those of read(2), and a text that is not UTF-8.
pub fn rest(mut file: File) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL);
    file.read_to_string(&mut text)?;
    Ok(text)
}
