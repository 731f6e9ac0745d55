//! The machine's console as the way to the shell of a job.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::poll::PollFlags;
use nix::sys::termios::{FlushArg, tcflush};

use super::events::{Events, OutputId};
use super::output::Source;
use crate::logging;
use crate::payload::shell::Shell;
use crate::protocol::Record;

/// APP-NAME of what the shell prints, and of what is typed.
const TAG: &str = "shell";

/// Bytes that a shell prints on the machine's console, one job: a day of looking around, and no flood.
const SHOWN: u64 = 1 << 20;

/// A console that leads to a shell.
#[derive(Debug)]
pub struct Console {
    /// What is typed; none once nobody listens or nobody can type.
    line: Option<(File, File)>,
    output: OutputId,
    job: String,
}

impl Console {
    /// Joins both. A machine without a console has a shell that hears of no input at once, and ends.
    pub fn join(events: &mut Events, shell: Shell, job: &str) -> Self {
        let keys = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/dev/console");
        if let Err(error) = &keys {
            log::warn!("{job}: nobody can type into its shell: /dev/console: {error}");
        }
        if let Ok(keys) = &keys {
            // What was typed before was not meant for this job, which may be somebody else's. A console need not be a terminal.
            let _ = tcflush(keys, FlushArg::TCIFLUSH);
        }
        let source = Source { tag: TAG.to_owned(), pid: 0, job: Some(job.to_owned()), show: true };
        log::info!("{job}: a shell as its user reads from this console");
        let line = keys.ok().map(|keys| (keys, shell.input));
        Self { line, output: events.add_bounded_output(shell.output, source, SHOWN), job: job.to_owned() }
    }

    /// Ready when something was typed.
    pub fn source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.line.as_ref().map(|(keys, _)| (keys.as_fd(), PollFlags::POLLIN))
    }

    /// Hands on what was typed, and logs it: a site must know afterwards who did what.
    pub fn relay(&mut self) {
        let Some((keys, input)) = &mut self.line else { return };
        let mut typed = [0; 4096];
        let count = match keys.read(&mut typed) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        let typed = typed.get(..count).unwrap_or_default();
        for line in String::from_utf8_lossy(typed).lines() {
            let text = format!("typed: {line}");
            logging::forward(Record { job: Some(self.job.clone()), ..Record::now(5, TAG, text) }, false);
        }
        // Control-D is an end of input; and a shell that is gone or does not read hears nothing more.
        if typed.is_empty() || input.write_all(typed).is_err() {
            self.line = None;
        }
    }

    /// Whether the shell and all that it started have ended.
    pub fn is_over(&self, events: &Events) -> bool {
        events.output_ended(self.output)
    }

    /// Takes its last words.
    pub fn leave(self, events: &mut Events) {
        events.finish_output(self.output);
    }
}
