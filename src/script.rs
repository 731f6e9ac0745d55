//! The site's scripts, by the HEPiX protocol.
//!
//! A script is sourced in a shell of its own by the image's bash (else sh), with the copy of the CD as
//! working directory, after `init.sh` and the variables of `context.sh`, and with `start` or `stop` as its
//! first argument. Neither the x-bit nor a shell's `#!` line matters; `return` and `exit` end only the
//! script. A `#!` line that names another interpreter (python) is honoured: that one runs the script.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::image::policy::ScriptLimits;
use crate::launch::{self, Program};
use crate::sys::process::{self, Child, SpawnError};

/// Where a guest of the HEPiX working group keeps the copy, and scripts expect it.
pub const CONTEXT_DIR: &str = "/var/lib/hepix/context";

/// The variables of `context.sh`, written by us with safe quoting.
pub const VARIABLES: &str = "/run/ctxinit/context.vars";

/// `$1` action, `$2` script, `$3` variables. `set --` is for shells whose `.` takes no arguments (dash).
const SOURCE: &str = r#"[ ! -f ./init.sh ] || . ./init.sh
. "$3"
_ctxinit=$2
set -- "$1"
. "$_ctxinit""#;

/// How a script is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// Sourced by the image's shell.
    Shell,
    /// Run by the program of its `#!` line, with that line's arguments.
    Other(Vec<String>),
}

/// Reads a script's first line.
pub fn interpreter(script: &[u8]) -> Interpreter {
    const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh"];
    let Some(line) = script.strip_prefix(b"#!").and_then(|rest| rest.split(|&byte| byte == b'\n').next()) else {
        return Interpreter::Shell;
    };
    let line = String::from_utf8_lossy(line);
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    // `#!/usr/bin/env python3` names its interpreter in the second word.
    let name = |word: &String| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = words.iter().map(name).find(|name| name != "env");
    match program {
        Some(name) if !SHELLS.contains(&name.as_str()) => Interpreter::Other(words),
        _ => Interpreter::Shell,
    }
}

/// Why a file cannot be run as a script.
pub fn fault(script: &[u8]) -> Option<&'static str> {
    if script.is_empty() {
        return Some("the file is empty");
    }
    if script.contains(&0) {
        return Some("the file holds a NUL byte, so it is not a script");
    }
    // A shell would look for commands that end in a carriage return, and fail in ways that nobody understands.
    let first = script.split(|&byte| byte == b'\n').next().unwrap_or_default();
    (first.last() == Some(&b'\r')).then_some("line 1 ends in CR LF: the file has DOS line ends")
}

/// A script to be run, whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// As the report, the log and a verdict name it: `prolog.sh`.
    pub name: String,
    /// APP-NAME of what it prints: `prolog`.
    pub tag: String,
    /// Where it lies: absolute, or from `dir` on. It sees itself under this name.
    pub path: String,
    /// Its working directory, absolute.
    pub dir: String,
    /// What it is to a shell.
    pub way: Way,
    /// Variables beside `PATH`, `HOME`, `LANG` and `CONTEXT_DIR`.
    pub environment: Vec<(String, String)>,
    /// What it may take; its time is bounded by whoever runs it.
    pub limits: ScriptLimits,
}

/// Two ways to run a script. A `#!` line of another interpreter counts in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the HEPiX protocol: after `init.sh` and the variables of `context.sh`, with `start` or `stop`.
    Sourced,
    /// As a program without arguments, by the image's shell; only its environment tells it anything.
    Executed,
}

impl Script {
    /// `prolog.sh` or `epilog.sh`, by its name without `.sh`.
    pub fn of_context(stem: &str, limits: ScriptLimits) -> Self {
        let name = format!("{stem}.sh");
        Self {
            tag: stem.to_owned(),
            path: format!("./{name}"),
            name,
            dir: CONTEXT_DIR.to_owned(),
            way: Way::Sourced,
            environment: Vec::new(),
            limits,
        }
    }

    fn words(&self, interpreter: Interpreter, action: &str) -> Vec<String> {
        let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match (interpreter, self.way) {
            (Interpreter::Shell, Way::Sourced) => {
                owned(&[shell, "-c", SOURCE, &self.tag, action, &self.path, VARIABLES])
            }
            (Interpreter::Shell, Way::Executed) => owned(&[shell, &self.path]),
            (Interpreter::Other(words), Way::Sourced) => {
                words.into_iter().chain([self.path.clone(), action.to_owned()]).collect()
            }
            (Interpreter::Other(words), Way::Executed) => words.into_iter().chain([self.path.clone()]).collect(),
        }
    }
}

/// A script that runs, and its output.
#[derive(Debug)]
pub struct Running {
    /// Its first process.
    pub child: Child,
    /// What it prints, non-blocking.
    pub output: File,
}

/// Starts a script in `cgroup`; `action` is `start` or `stop`.
///
/// # Errors
/// The step that failed; nothing of the script has run.
pub fn start(script: &Script, action: &str, cgroup: &Cgroup) -> Result<Running, SpawnError> {
    let text = fs::read(Path::new(&script.dir).join(&script.path)).map_err(SpawnError::Fork)?;
    let words = script.words(interpreter(&text), action);
    let environment = [("PATH", launch::PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("CONTEXT_DIR", CONTEXT_DIR)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment: Vec<_> = environment.into_iter().chain(script.environment.iter().cloned()).collect();
    let mut door = cgroup.door().map_err(|error| SpawnError::Fork(io::Error::other(error)))?;
    let (output, writer) = launch::output_pipe().map_err(|errno| SpawnError::Fork(errno.into()))?;
    let program = Program { dir: &script.dir, words: &words, environment: &environment };
    let child = process::spawn(|| {
        launch::detach(Some(&mut door), &writer)?;
        launch::exec(&program)
    })?;
    Ok(Running { child, output })
}

#[cfg(test)]
mod tests {
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
        assert_eq!(fault(b"echo x\n"), None);
        assert_eq!(fault(b""), Some("the file is empty"));
        assert!(fault(b"\x7fELF\0").unwrap().contains("NUL"));
        assert!(fault(b"#!/bin/sh\r\necho\r\n").unwrap().contains("line 1 ends in CR LF"));
    }
}
