//! Lines of text that come in while somebody waits for one of them: a console, a log.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::process::interrupted;

/// How often a wait looks whether it is interrupted.
const LOOK: Duration = Duration::from_millis(200);

/// Shared between the thread that reads and those that wait.
#[derive(Default)]
pub struct Lines {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// One more line.
    pub fn push(&self, line: String) {
        self.state().lines.push(line);
        self.more.notify_all();
    }

    /// Takes every line of `from`, to its end. Terminals' carriage returns are left out.
    pub fn read(&self, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
            self.push(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
            line.clear();
        }
        self.state().ended = true;
        self.more.notify_all();
    }

    /// Forgets them: the lines of another machine follow.
    pub fn clear(&self) {
        *self.state() = State::default();
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// Waits for a line that fits; also one that came before.
    pub fn wait_for(&self, limit: Duration, what: &str, fits: impl Fn(&str) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        let mut seen = 0;
        loop {
            if state.lines.iter().skip(seen).any(|line| fits(line)) {
                return Ok(());
            }
            seen = state.lines.len();
            if state.ended || interrupted() || Instant::now() > deadline {
                return Err(format!("waited for {what}, which did not come"));
            }
            state = match self.more.wait_timeout(state, LOOK) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_waited_for() {
        let lines = Lines::default();
        let soon = Duration::from_millis(10);
        assert!(lines.wait_for(soon, "x", |line| line == "x").is_err());
        std::thread::scope(|scope| {
            scope.spawn(|| lines.read(&b"a\r\nx\nhalf"[..]));
            lines.wait_for(Duration::from_secs(10), "x", |line| line == "x").unwrap();
        });
        assert_eq!(lines.all(), ["a", "x", "half"]);
        // The reader is at its end: no need to wait for the deadline.
        assert!(lines.wait_for(Duration::from_secs(3600), "y", |line| line == "y").is_err());
    }
}
