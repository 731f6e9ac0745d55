//! The site's scripts, by the HEPiX protocol.
//!
//! A script is sourced in a shell of its own by the image's bash (else sh), with the copy of the CD as
//! working directory, after `init.sh` and the variables of `context.sh`, and with `start` or `stop` as its
//! first argument. Neither the x-bit nor a shell's `#!` line matters; `return` and `exit` end only the
//! script. A `#!` line that names another interpreter (python) is honoured: that one runs the script, which has the
//! variables of `context.sh` in its environment.

mod check;
mod ready;

use std::fs::File;
use std::path::Path;

use thiserror::Error;

use crate::cgroup::{Cgroup, CgroupError};
use crate::context::opennebula::START_SCRIPT;
use crate::context::shell::{Variable, quoted};
use crate::image::policy::ScriptLimits;
use crate::launch::{self, Program};
use crate::starting::{self, SpawnError, Starting};

pub use check::{Fault, Interpreter, MAX_BYTES, examine, examine_file, fault, interpreter};
pub use ready::{Ready, Unfit, ready};

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

/// What a script finds in its environment: besides what every script has, the variables of `context.sh` if it cannot
/// be told them in another way. A sourced shell script is, and there only what is exported gets into the environment.
fn environment(script: &Script, sourced: bool, variables: &[Variable]) -> Vec<(String, String)> {
    // MAX_ARG_STRLEN: 32 pages for name, `=`, value and a NUL; the kernel takes no longer one.
    const LONGEST: usize = 131_072;
    let ours = [("PATH", launch::PATH), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("CONTEXT_DIR", CONTEXT_DIR)];
    let given = variables.iter().filter(|variable| {
        let fits = variable.name.len() + variable.value.len() + 2 <= LONGEST;
        if !fits && !sourced {
            let Variable { line, name, .. } = variable;
            log::warn!("context.sh:{line}: {name}: too long for the environment of {}", script.name);
        }
        // The script of a variable is not for the others.
        !sourced && fits && !START_SCRIPT.contains(&variable.name.as_str())
    });
    let given: Vec<(String, String)> = given.map(|each| (each.name.clone(), each.value.clone())).collect();
    // Of a name that is there twice a program sees the first; LANG is the context's if it is there.
    let ours = ours.iter().filter(|(name, _)| !given.iter().any(|(other, _)| other == name));
    let ours: Vec<_> = ours.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    [ours, given].concat()
}

/// Starts a script in `cgroup`, as [`ready`] says; `variables` are those of `context.sh`.
///
/// # Errors
/// The step that failed.
pub fn start(script: &Script, ready: &Ready, variables: &[Variable], cgroup: &Cgroup) -> Result<Running, StartError> {
    let environment = environment(script, ready.sourced, variables);
    let mut door = cgroup.door()?;
    let (output, writer) = launch::output_pipe().map_err(|errno| SpawnError::Fork(errno.into()))?;
    let program = Program { dir: &script.dir, words: &ready.words, environment: &environment };
    let child = starting::begin(|| {
        launch::detach(Some(&mut door), &writer)?;
        launch::exec(&program)
    })?;
    Ok(Running { child, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_told_the_variables_has_them_in_the_environment() {
        let variable =
            |name: &str, length| Variable { name: name.to_owned(), value: "x".repeat(length), ..Variable::default() };
        let all = [variable("A", 1), variable("START_SCRIPT", 1), variable("LANG", 131_065), variable("B", 131_070)];
        let (ours, both) = (["PATH", "HOME", "LANG", "CONTEXT_DIR"], ["PATH", "HOME", "CONTEXT_DIR", "A", "LANG"]);
        let cases = [(true, &ours[..]), (false, &both)];
        for (sourced, expected) in cases {
            let script = Script::of_context("prolog", ScriptLimits::default());
            let names: Vec<String> = environment(&script, sourced, &all).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, expected, "{sourced}");
        }
    }
}
