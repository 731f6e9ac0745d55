//! What the user sees: the walls, the payload's lines as they come, how long it runs, and what came of it.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use super::summary::Ended;
use crate::text::printable_bytes;

/// Standard output for all that stays, and a line on a terminal for what changes.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    /// Whether the last line is one that changes.
    changing: Cell<bool>,
}

impl Screen {
    /// Of this process.
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), changing: Cell::new(false) }
    }

    /// The table.
    pub fn walls(&self, text: &str) {
        self.say(text);
        self.say("\n");
    }

    /// A line of the payload's; whatever it holds steers no terminal.
    pub fn line(&self, line: &[u8]) {
        self.say(&format!("payload: {}\n", printable_bytes(line)));
    }

    /// What this program does, as it does it.
    pub fn note(&self, text: &str) {
        self.say(&format!("check: {text}\n"));
    }

    /// How far it is, where somebody looks.
    pub fn progress(&self, text: &str) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            self.changing.set(true);
        }
    }

    /// The last word.
    pub fn end(&self, ended: Ended) -> Ended {
        self.say(&format!("\n{}", ended.text()));
        ended
    }

    /// A reader that went away is no reason to leave a job alone.
    fn say(&self, text: &str) {
        if self.changing.replace(false) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        let mut out = io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
