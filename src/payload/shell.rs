//! A shell in a job, for whoever sits at the machine's console: the job's user, behind the job's walls, never root.
//!
//! It holds no terminal, as a program that does can type into it (TIOCSTI) and leave it unusable. It has two pipes, and
//! the agent carries lines between them and the console, and into the site's log.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::launch;

/// Without a terminal a shell does not prompt by itself, and would end at the first mistake; the prompt is empty, as it
/// would stand in front of the next line.
pub const WORDS: [&str; 2] = ["/bin/sh", "-i"];
/// Said in its environment.
pub const PROMPT: (&str, &str) = ("PS1", "");

/// The agent's ends of the pipes; neither blocks.
#[derive(Debug)]
pub struct Shell {
    /// What is typed.
    pub input: File,
    /// What it prints.
    pub output: File,
}

/// The shell's ends.
#[derive(Debug)]
pub struct Inside {
    /// Standard input.
    pub input: OwnedFd,
    /// Standard output and error.
    pub output: OwnedFd,
}

/// The pipes of a shell.
///
/// # Errors
/// Those of pipe2(2).
pub fn pipes() -> nix::Result<(Shell, Inside)> {
    let (output, inside_output) = launch::output_pipe()?;
    let (inside_input, input) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((Shell { input: input.into(), output }, Inside { input: inside_input, output: inside_output }))
}
