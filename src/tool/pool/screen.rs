//! What is shown while something lasts: one line that changes on a terminal, a line for each change elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Width of the bar.
const BAR: u64 = 30;
/// Before each line in a log file: what takes less time needs none.
const LINES: Duration = Duration::from_secs(10);

/// Standard error, so that standard output has the result alone.
pub(super) struct Screen {
    terminal: bool,
    last: String,
    due: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), last: String::new(), due: Instant::now() + LINES }
    }

    /// Shows how far it is. A closed standard error is no failure.
    pub(super) fn show(&mut self, line: String) {
        if self.last == line {
            return;
        }
        if self.terminal {
            let _ = write!(io::stderr(), "{}", one_line(&line)).and_then(|()| io::stderr().flush());
        } else {
            let now = Instant::now();
            if now < self.due {
                return;
            }
            self.due = now + LINES;
            let _ = writeln!(io::stderr(), "{line}");
        }
        self.last = line;
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// In the place of the one before. Where the terminal is narrower it is cut off (DECAWM), as only the last line of
/// several could be taken back.
fn one_line(line: &str) -> String {
    format!("\r\x1b[K\x1b[?7l{line}\x1b[?7h")
}

/// `[######........................]  20 %`
pub(super) fn bar(done: u64, total: u64) -> String {
    let share =
        |of: u64| u64::try_from(u128::from(done) * u128::from(of) / u128::from(total.max(1))).unwrap_or(of).min(of);
    let full = share(BAR);
    let bar: String = (0..BAR).map(|at| if at < full { '#' } else { '.' }).collect();
    format!("[{bar}] {:3} %", share(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is longer than the terminal is wide is cut off: a second line of it would stay for ever.
    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(one_line("a"), "\r\x1b[K\x1b[?7la\x1b[?7h");
    }

    #[test]
    fn a_bar_is_as_long_as_the_work() {
        assert_eq!(bar(0, 10), format!("[{}]   0 %", ".".repeat(30)));
        assert_eq!(bar(5, 10), format!("[{}{}]  50 %", "#".repeat(15), ".".repeat(15)));
        assert_eq!(bar(10, 10), format!("[{}] 100 %", "#".repeat(30)));
        // Not yet full as long as something is left.
        assert_eq!(bar(9999, 10_000), format!("[{}.]  99 %", "#".repeat(29)));
        assert_eq!(bar(u64::MAX, u64::MAX), bar(1, 1));
        assert_eq!(bar(0, 0), bar(0, 1));
    }
}
