//! The site's scripts, by the HEPiX protocol.
//!
//! A script is sourced in a shell of its own by the image's bash (else sh), with the copy of the CD as
//! working directory, after `init.sh` and the variables of `context.sh`, and with `start` or `stop` as its
//! first argument. Neither the x-bit nor a shell's `#!` line matters; `return` and `exit` end only the
//! script. A `#!` line that names another interpreter (python) is honoured: that one runs the script.

mod check;
mod ready;

use std::fs::File;
use std::path::Path;

use thiserror::Error;

use crate::cgroup::{Cgroup, CgroupError};
use crate::context::shell::quoted;
use crate::image::policy::ScriptLimits;
use crate::launch::{self, Program};
use crate::sys::process::{self, SpawnError, Starting};

pub use check::{Fault, Interpreter, MAX_BYTES, examine, examine_file, fault, interpreter};
pub use ready::{Unfit, words};

/// Where a guest of the HEPiX working group keeps the copy, and scripts expect it.
pub const CONTEXT_DIR: &str = "/var/lib/hepix/context";

/// The variables of `context.sh`, written by us with safe quoting.
pub const VARIABLES: &str = "/run/ctxinit/context.vars";

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
    /// As a program without arguments, by its `#!` line, else by the image's shell; only its environment tells it
    /// anything.
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
            (Interpreter::Shell, Way::Sourced) => owned(&[shell, "-c", &self.source(action), &self.tag]),
            (Interpreter::Shell, Way::Executed) => owned(&[shell, &self.path]),
            (Interpreter::Other(words), Way::Sourced) => {
                words.into_iter().chain([self.path.clone(), action.to_owned()]).collect()
            }
            (Interpreter::Other(words), Way::Executed) => words.into_iter().chain([self.path.clone()]).collect(),
        }
    }

    /// What the shell is told. It keeps no variable, as the script would see it. The argument is set twice: an `init.sh`
    /// may set arguments of its own, and `.` of dash takes none. Paths are whole for an `init.sh` that changes directory.
    fn source(&self, action: &str) -> String {
        let script = match self.path.strip_prefix("./") {
            Some(name) => format!("{}/{name}", self.dir),
            None => self.path.clone(),
        };
        let script = quoted(&script);
        // An init.sh elsewhere, as in the image's "/", is somebody else's.
        let init = match self.dir.as_str() {
            CONTEXT_DIR => format!("[ ! -f {CONTEXT_DIR}/init.sh ] || . {CONTEXT_DIR}/init.sh\n"),
            _ => String::new(),
        };
        format!("set -- {action}\n{init}[ ! -f {VARIABLES} ] || . {VARIABLES}\nset -- {action}\n. {script}")
    }
}

/// Why a script was not started; nothing of it has run.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A step on its way.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// A script on its way, and its output.
#[derive(Debug)]
pub struct Running {
    /// Its first process.
    pub child: Starting,
    /// What it prints, non-blocking.
    pub output: File,
}

/// Starts a script in `cgroup` by these [`words`].
///
/// # Errors
/// The step that failed.
pub fn start(script: &Script, words: &[String], cgroup: &Cgroup) -> Result<Running, StartError> {
    let environment = [("PATH", launch::PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("CONTEXT_DIR", CONTEXT_DIR)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Of a name that is there twice a program sees the first; LANG is the context's if it is there.
    let given = |name: &str| script.environment.iter().any(|(other, _)| other == name);
    let ours = environment.into_iter().filter(|(name, _)| !given(name));
    let environment: Vec<_> = ours.chain(script.environment.iter().cloned()).collect();
    let mut door = cgroup.door()?;
    let (output, writer) = launch::output_pipe().map_err(|errno| SpawnError::Fork(errno.into()))?;
    let program = Program { dir: &script.dir, words, environment: &environment };
    let child = process::begin(|| {
        launch::detach(Some(&mut door), &writer)?;
        launch::exec(&program)
    })?;
    Ok(Running { child, output })
}
