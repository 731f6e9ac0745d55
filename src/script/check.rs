//! What can be a script: looked at before anything of it runs, so that its fault has a name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use thiserror::Error;

use crate::launch;

/// Bytes of a script. It is read whole before it runs, and the longest of sites' scripts have 50 kB; what is larger is
/// an archive or a program by a wrong name.
pub const MAX_BYTES: u64 = 1024 * 1024;

/// Bytes of a `#!` line. Linux reads 256 of them, the last one for its NUL (BINPRM_BUF_SIZE); an interpreter that works
/// here must not be cut elsewhere.
const MAX_FIRST_LINE: usize = 255;

/// How a script is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// By the image's shell.
    Shell,
    /// Run by the program of its `#!` line, with that line's arguments.
    Other(Vec<String>),
}

/// Why a file cannot be run as a script.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Those of stat(2), open(2) and read(2).
    #[error("{0}")]
    Unreadable(String),
    /// A link to nothing.
    #[error("a link to {0}, which is not there")]
    Dangling(String),
    /// A directory, a device, a pipe, a socket.
    #[error("{0}, not a regular file")]
    NotAFile(&'static str),
    /// More than [`MAX_BYTES`].
    #[error("{0} bytes; a script may have {MAX_BYTES}")]
    TooLarge(u64),
    /// A program, an archive, or UTF-16.
    #[error("line {line} holds a NUL byte (byte {offset} of the file), so this is not a script")]
    Nul {
        /// From 1.
        line: usize,
        /// From 0.
        offset: usize,
    },
    /// A shell would look for commands that end in a carriage return, and fail in ways that nobody understands.
    #[error("line {0} ends in CR LF: the file has DOS line ends")]
    CrLf(usize),
    /// A `#!` line that the kernel would cut.
    #[error("line 1 has {0} bytes; a #! line may have {MAX_FIRST_LINE}")]
    LongFirstLine(usize),
    /// The image lacks what the `#!` line names.
    #[error("line 1 names the interpreter {0}, which the image does not have")]
    NoInterpreter(String),
}

/// Looks at the file and at its interpreter; `dir` is where it will run.
///
/// # Errors
/// The first fault of [`Fault`].
pub fn examine(dir: &Path, path: &str) -> Result<Interpreter, Fault> {
    let interpreter = examine_file(&dir.join(path))?;
    match &interpreter {
        Interpreter::Other(words) => {
            missing(words, dir).map_or(Ok(interpreter), |name| Err(Fault::NoInterpreter(name)))
        }
        Interpreter::Shell => Ok(interpreter),
    }
}

/// Looks at the file alone, wherever it will run.
///
/// # Errors
/// The first fault of [`Fault`], but for [`Fault::NoInterpreter`].
pub fn examine_file(path: &Path) -> Result<Interpreter, Fault> {
    let unreadable = |error: io::Error| Fault::Unreadable(error.to_string());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let target = fs::read_link(path).map_err(|_| unreadable(error))?;
            return Err(Fault::Dangling(target.display().to_string()));
        }
        Err(error) => return Err(unreadable(error)),
    };
    // Before it is opened: a pipe would hold us until somebody writes to it.
    if let Some(kind) = special(metadata.file_type()) {
        return Err(Fault::NotAFile(kind));
    }
    if metadata.len() > MAX_BYTES {
        return Err(Fault::TooLarge(metadata.len()));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut text)).map_err(unreadable)?;
    fault(&text).map_or_else(|| Ok(interpreter(&text)), Err)
}

/// Why this text cannot be a script. An empty one can: it does nothing, as StratusLab's CDs have one.
pub fn fault(text: &[u8]) -> Option<Fault> {
    if text.len() as u64 > MAX_BYTES {
        return Some(Fault::TooLarge(text.len() as u64));
    }
    if let Some(offset) = text.iter().position(|&byte| byte == 0) {
        return Some(Fault::Nul { line: line_at(text, offset), offset });
    }
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    match interpreter(text) {
        // Python and Perl take such lines; only the first one is ours to read.
        Interpreter::Other(_) if first.ends_with(b"\r") => Some(Fault::CrLf(1)),
        Interpreter::Other(_) => (first.len() > MAX_FIRST_LINE).then_some(Fault::LongFirstLine(first.len())),
        Interpreter::Shell => {
            let at = text.windows(2).position(|pair| pair == b"\r\n")?;
            Some(Fault::CrLf(line_at(text, at)))
        }
    }
}

fn line_at(text: &[u8], offset: usize) -> usize {
    text.iter().take(offset).filter(|&&byte| byte == b'\n').count() + 1
}

/// Reads a script's first line.
pub fn interpreter(script: &[u8]) -> Interpreter {
    const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh"];
    let words = first_line(script);
    match program(&words) {
        Some(program) if !SHELLS.contains(&base(program)) => Interpreter::Other(words),
        _ => Interpreter::Shell,
    }
}

/// The words of a `#!` line; none without one.
pub(super) fn first_line(script: &[u8]) -> Vec<String> {
    let line = script.strip_prefix(b"#!").and_then(|rest| rest.split(|&byte| byte == b'\n').next());
    String::from_utf8_lossy(line.unwrap_or_default()).split_whitespace().map(str::to_owned).collect()
}

/// The program that a `#!` line means: `#!/usr/bin/env -S LANG=C python3 -u` means `python3`.
fn program(words: &[String]) -> Option<&str> {
    let (first, rest) = words.split_first()?;
    if base(first) != "env" {
        return Some(first);
    }
    rest.iter().map(String::as_str).find(|word| !word.starts_with('-') && !word.contains('='))
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The word of a `#!` line that is no program here: itself, or what env(1) would look for.
pub(super) fn missing(words: &[String], dir: &Path) -> Option<String> {
    let runs = |path: &Path| fs::metadata(path).is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
    let found = |word: &str| match word.contains('/') {
        true => runs(&dir.join(word)),
        false => launch::PATH.split(':').any(|each| runs(&Path::new(each).join(word))),
    };
    // The kernel does not search for the first word; env does for the other.
    let first = words.first().filter(|word| !runs(&dir.join(word)));
    first.map(String::as_str).or_else(|| program(words).filter(|word| !found(word))).map(str::to_owned)
}

fn special(kind: fs::FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn other(words: &[&str]) -> Interpreter {
        Interpreter::Other(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn first_lines() {
        let cases = [
            ("echo x\n", Interpreter::Shell),
            ("#!/bin/sh -e\n", Interpreter::Shell),
            ("#! /usr/bin/env bash\n", Interpreter::Shell),
            ("#!/usr/bin/env -S bash -e\n", Interpreter::Shell),
            ("#!/usr/bin/python3 -u\nx", other(&["/usr/bin/python3", "-u"])),
            ("#!/usr/bin/env perl\n", other(&["/usr/bin/env", "perl"])),
            ("#!\n", Interpreter::Shell),
            ("", Interpreter::Shell),
        ];
        for (script, expected) in cases {
            assert_eq!(interpreter(script.as_bytes()), expected, "{script:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_script() {
        let long = format!("#!/usr/bin/perl {}\n", "x".repeat(300));
        let large = "#".repeat(MAX_BYTES as usize + 1);
        let cases: &[(&str, Option<&str>)] = &[
            ("echo x\n", None),
            ("", None),
            ("a\nb\0\0", Some("line 2 holds a NUL byte (byte 3 of the file), so this is not a script")),
            ("#!/bin/sh\r\necho\r\n", Some("line 1 ends in CR LF: the file has DOS line ends")),
            ("#!/bin/sh\necho\r\n", Some("line 2 ends in CR LF: the file has DOS line ends")),
            ("printf 'a\\r\\n' \r x\n", None),
            ("#!/usr/bin/perl\r\n", Some("line 1 ends in CR LF: the file has DOS line ends")),
            ("#!/usr/bin/perl\nprint;\r\n", None),
            (&long, Some("line 1 has 316 bytes; a #! line may have 255")),
            (&long.replace("perl", "bash"), None),
            (&large, Some("1048577 bytes; a script may have 1048576")),
            (&large[1..], None),
        ];
        for (text, expected) in cases {
            let found = fault(text.as_bytes()).map(|fault| fault.to_string());
            assert_eq!(found.as_deref(), *expected, "{:.40?}", text);
        }
    }

    #[test]
    fn what_lies_where_a_script_should() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| examine(dir.path(), name).map_err(|fault| fault.to_string());
        fs::create_dir(dir.path().join("directory")).unwrap();
        symlink("/dev/zero", dir.path().join("device")).unwrap();
        symlink("../gone", dir.path().join("dangling")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::write(dir.path().join("good"), "#!/usr/bin/env sh\n").unwrap();
        symlink("good", dir.path().join("link")).unwrap();
        File::create(dir.path().join("large")).unwrap().set_len(10_485_760).unwrap();
        fs::write(dir.path().join("lost"), "#!/opt/none/python9 -u\n").unwrap();
        fs::write(dir.path().join("env"), "#!/usr/bin/env -S A=b no-such-program x\n").unwrap();
        fs::write(dir.path().join("bare"), "#!perl\n").unwrap();

        assert_eq!(at("directory").unwrap_err(), "a directory, not a regular file");
        assert_eq!(at("device").unwrap_err(), "a device, not a regular file");
        assert_eq!(at("pipe").unwrap_err(), "a pipe, not a regular file");
        assert_eq!(at("dangling").unwrap_err(), "a link to ../gone, which is not there");
        assert_eq!(at("nothing").unwrap_err(), "No such file or directory (os error 2)");
        assert_eq!(at("large").unwrap_err(), "10485760 bytes; a script may have 1048576");
        let lost = |name: &str| format!("line 1 names the interpreter {name}, which the image does not have");
        assert_eq!(at("lost").unwrap_err(), lost("/opt/none/python9"));
        assert_eq!(at("env").unwrap_err(), lost("no-such-program"));
        assert_eq!(at("bare").unwrap_err(), lost("perl"));
        assert_eq!(at("good"), Ok(Interpreter::Shell));
        assert_eq!(at("link"), Ok(Interpreter::Shell));
    }
}
