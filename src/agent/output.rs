//! The output of scripts, payloads and roles: read line by line into the log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use super::protocol::Record;
use crate::logging;

/// A longer line is cut into several; RFC 5424 receivers should take 2048 bytes, ours keeps more together.
const LINE: usize = 4096;
/// Lines of output that the report shows of a script or a payload.
const TAIL: usize = 5;

/// Characters of each that the report shows.
const TAIL_CHARS: usize = 200;

/// Whose output it is.
#[derive(Clone, Debug)]
pub struct Source {
    /// APP-NAME of its records.
    pub tag: String,
    /// PROCID.
    pub pid: u32,
    /// The job it belongs to.
    pub job: Option<String>,
    /// Whether the console shows it too: scripts and roles yes, payloads no.
    pub show: bool,
}

/// One stream of output.
#[derive(Debug)]
pub struct Output {
    pipe: File,
    source: Source,
    partial: Vec<u8>,
    tail: VecDeque<String>,
    ended: bool,
}

impl Output {
    /// `pipe` is the reading end and does not block.
    pub fn new(pipe: File, source: Source) -> Self {
        Self { pipe, source, partial: Vec::new(), tail: VecDeque::new(), ended: false }
    }

    /// Whether every writer is gone.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Its last lines, the newest last.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    /// Reads what is there now, but no more than a bound, so that one flood does not starve the others.
    /// Returns whether there was anything.
    pub fn pump(&mut self) -> bool {
        let mut any = false;
        let mut chunk = [0; 8192];
        for _ in 0..8 {
            match self.pipe.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    self.emit_partial();
                    return any;
                }
                Ok(count) => {
                    any = true;
                    chunk.get(..count).unwrap_or_default().iter().for_each(|&byte| self.push(byte));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return any,
            }
        }
        any
    }

    fn push(&mut self, byte: u8) {
        if byte == b'\n' {
            self.emit_partial();
        } else {
            self.partial.push(byte);
            if self.partial.len() >= LINE {
                self.emit_partial();
            }
        }
    }

    fn emit_partial(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&line);
        let (severity, text) = split_severity(line.trim_end_matches('\r'));
        // 0 to 2 mean the machine, and many servers write them to every terminal: no payload speaks for it.
        let severity = if self.source.job.is_some() { severity.max(3) } else { severity };
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(logging::printable(text).chars().take(TAIL_CHARS).collect());
        let Source { tag, pid, job, show } = self.source.clone();
        let record = Record { pid: Some(pid), job, ..Record::now(severity, &tag, text.to_owned()) };
        logging::forward(record, show);
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// `<4>text`, as sd-daemon(3) has it: our own roles write so, and scripts may. Without it: informational.
fn split_severity(line: &str) -> (u8, &str) {
    match line.as_bytes() {
        [b'<', digit @ b'0'..=b'7', b'>', ..] => (digit - b'0', line.get(3..).unwrap_or_default()),
        _ => (6, line),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> Output {
        let (reader, writer) = crate::launch::output_pipe().unwrap();
        File::from(writer).write_all(bytes).unwrap();
        let source = Source { tag: "t".to_owned(), pid: 1, job: None, show: false };
        let mut output = Output::new(reader, source);
        output.pump();
        output
    }

    #[test]
    fn lines_are_cut_and_made_printable() {
        assert_eq!(read(b"one\r\n\n<3>two\nlast").tail(), ["one", "two", "last"]);
        assert_eq!(read(b"\xff\x1b[0m\n").tail(), ["\u{fffd}\\u{1b}[0m"]);
        assert_eq!(read(&vec![b'x'; LINE + 1]).tail()[1], "x");
        assert!(read(b"").ended());
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(read(b"1\n2\n3\n4\n5\n6\n").tail(), ["2", "3", "4", "5", "6"]);
    }

    #[test]
    fn severities() {
        for (line, expected) in [("<4>x", (4, "x")), ("<8>x", (6, "<8>x")), ("<4", (6, "<4")), ("", (6, ""))] {
            assert_eq!(split_severity(line), expected);
        }
    }
}
