//! By what a script is run, decided after a look at everything that will run.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::check::{self, Fault, Interpreter, examine};
use super::{CONTEXT_DIR, Script, Way};

/// A file that cannot be run or sourced; nothing has run yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// The script's name, or `init.sh`.
    pub file: String,
    /// As [`Fault`] says it.
    pub why: String,
}

/// How a script is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Program and arguments.
    pub words: Vec<String>,
    /// Whether a shell reads the variables of `context.sh` before it.
    pub sourced: bool,
}

/// How to start a script's `start` or `stop`. Hangs where a file system does, so a child asks.
///
/// # Errors
/// The first file with a fault.
pub fn ready(script: &Script, action: &str) -> Result<Ready, Unfit> {
    let dir = Path::new(&script.dir);
    let unfit = |fault: Fault| Unfit { file: script.name.clone(), why: fault.to_string() };
    let interpreter = examine(dir, &script.path).map_err(unfit)?;
    let sourced = interpreter == Interpreter::Shell && script.way == Way::Sourced;
    if sourced && script.dir == CONTEXT_DIR {
        examine_init(dir)?;
    }
    if interpreter == Interpreter::Shell && script.way == Way::Executed {
        let text = fs::read(dir.join(&script.path)).map_err(|error| unfit(Fault::Unreadable(error.to_string())))?;
        let own = check::first_line(&text);
        // Shells have other names elsewhere; the image's is better than none.
        if !own.is_empty() && check::missing(&own, dir).is_none() {
            return Ok(Ready { words: own.into_iter().chain([script.path.clone()]).collect(), sourced });
        }
    }
    Ok(Ready { words: script.words(interpreter, action), sourced })
}

/// It is sourced before the script, so that its faults would be looked for in there. Its `#!` line means nothing.
fn examine_init(dir: &Path) -> Result<(), Unfit> {
    const INIT: &str = "init.sh";
    // What is no file is not sourced; an empty one does nothing.
    if !fs::metadata(dir.join(INIT)).is_ok_and(|of| of.is_file() && of.len() > 0) {
        return Ok(());
    }
    match examine(dir, INIT) {
        Ok(_) | Err(Fault::NoInterpreter(_)) => Ok(()),
        Err(fault) => Err(Unfit { file: INIT.to_owned(), why: fault.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::policy::ScriptLimits;

    #[test]
    fn a_program_is_run_by_its_own_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("start-script").display().to_string();
        let script = Script {
            path: path.clone(),
            dir: dir.path().display().to_string(),
            way: Way::Executed,
            ..Script::of_context("start", ScriptLimits::default())
        };
        let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
        let cases: &[(&str, &[&str])] = &[
            ("#!/bin/sh -e\necho\n", &["/bin/sh", "-e"]),
            ("#! /usr/bin/env sh\n", &["/usr/bin/env", "sh"]),
            ("#!/opt/none/bash -e\n", &[shell]),
            ("#!/usr/bin/env -S no-such-thing/ksh -e\n", &[shell]),
            ("#!\n", &[shell]),
            ("echo\n", &[shell]),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            let expected: Vec<String> = expected.iter().map(|&word| word.to_owned()).chain([path.clone()]).collect();
            assert_eq!(ready(&script, "start").map(|ready| ready.words), Ok(expected), "{text}");
        }
        for (text, sourced) in [("echo\n", true), ("#!/bin/ls\n", false)] {
            fs::write(&path, text).unwrap();
            let script = Script { way: Way::Sourced, ..script.clone() };
            assert_eq!(ready(&script, "start").map(|ready| ready.sourced), Ok(sourced), "{text}");
        }
        fs::write(&path, "echo\r\n").unwrap();
        assert_eq!(ready(&script, "start").unwrap_err().file, "start.sh");
    }

    #[test]
    fn an_init_is_named_by_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(examine_init(dir.path()), Ok(()));
        let large = "#".repeat(check::MAX_BYTES as usize + 1);
        let cases = [
            ("A=b\n", None),
            ("", None),
            ("#!/opt/none/perl\nA=b\n", None),
            ("A=b\r\n", Some("line 1 ends in CR LF: the file has DOS line ends")),
            ("A\0\n", Some("line 1 holds a NUL byte (byte 1 of the file), so this is not a script")),
            (&large, Some("1048577 bytes; a script may have 1048576")),
        ];
        for (text, expected) in cases {
            fs::write(dir.path().join("init.sh"), text).unwrap();
            let expected = expected.map(|why| Unfit { file: "init.sh".to_owned(), why: why.to_owned() });
            assert_eq!(examine_init(dir.path()).err(), expected, "{text:.40}");
        }
    }
}
