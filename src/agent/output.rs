//! The output of scripts, payloads and roles: read line by line into the log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::logging;
use crate::protocol::Record;

/// A longer line is cut into several; RFC 5424 receivers should take 2048 bytes, ours keeps more together.
const LINE: usize = 4096;
/// Lines of output that the report shows of a script or a payload.
const TAIL: usize = 5;

/// Characters of each that the report shows.
const TAIL_CHARS: usize = 200;

/// Bytes that a line costs the log beside its text: header, structured data, the queue's own. Without it, a limit of
/// 1 MB would let half a million empty-looking lines through.
const LINE_COST: u64 = 100;

/// Bytes of dropped output that are kept to show its last lines.
const LAST: usize = 2048;

/// Bytes of a job's output that its site gets as a file, if it takes any: a pilot's log of an hour. The log has all lines.
const KEPT: usize = 256 * 1024;

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
    limit: u64,
    /// What it has cost the log so far.
    cost: u64,
    dropped: u64,
    last_dropped: Vec<u8>,
    /// Of a job: its last lines as they came, [`KEPT`] bytes at most.
    kept: VecDeque<u8>,
}

/// What is left of an output for the report.
#[derive(Debug, Default)]
pub struct Printed {
    /// Its last lines, the newest last.
    pub tail: Vec<String>,
    /// Bytes beyond the limit, which nobody has logged.
    pub dropped: u64,
    /// Of a job: the end of all that it printed.
    pub kept: Vec<u8>,
}

impl Output {
    /// `pipe` is the reading end and does not block. What comes beyond `limit` bytes, 100 more for each line, is read
    /// and thrown away: who prints it neither fails nor waits.
    pub fn new(pipe: File, source: Source, limit: u64) -> Self {
        let (partial, tail, last_dropped) = (Vec::new(), VecDeque::new(), Vec::new());
        Self {
            pipe,
            source,
            partial,
            tail,
            ended: false,
            limit,
            cost: 0,
            dropped: 0,
            last_dropped,
            kept: VecDeque::new(),
        }
    }

    /// Whether every writer is gone.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What it was so far. The last lines say why a program failed, so they are told even if they were not logged.
    pub fn printed(&self) -> Printed {
        let last = String::from_utf8_lossy(&self.last_dropped);
        let last = last.lines().filter(|line| !line.is_empty()).map(shown);
        // A daemon keeps the pipe open, so that nothing ends this line.
        let partial = String::from_utf8_lossy(&self.partial);
        let partial = (!partial.is_empty()).then(|| shown(split_severity(partial.trim_end_matches('\r')).1));
        let mut tail: Vec<String> = self.tail.iter().cloned().chain(partial).chain(last).collect();
        tail.drain(..tail.len().saturating_sub(TAIL));
        let kept = self.kept.iter().copied().chain(self.partial.iter().copied()).collect();
        Printed { tail, dropped: self.dropped, kept }
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
                    self.take(chunk.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return any,
            }
        }
        any
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.cost >= self.limit {
                return self.discard(bytes);
            }
            let room = LINE.saturating_sub(self.partial.len()).min(bytes.len());
            let (window, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    self.partial.extend(window.iter().take(end));
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                    self.emit_partial();
                }
                None => {
                    self.partial.extend(window);
                    bytes = rest;
                    if self.partial.len() >= LINE {
                        self.emit_partial();
                    }
                }
            }
        }
    }

    fn discard(&mut self, bytes: &[u8]) {
        self.dropped += bytes.len() as u64;
        let keep = bytes.get(bytes.len().saturating_sub(LAST)..).unwrap_or_default();
        let excess = (self.last_dropped.len() + keep.len()).saturating_sub(LAST);
        self.last_dropped.drain(..excess);
        self.last_dropped.extend_from_slice(keep);
    }

    fn emit_partial(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let line = std::mem::take(&mut self.partial);
        self.cost = self.cost.saturating_add(line.len() as u64 + LINE_COST);
        if self.source.job.is_some() {
            self.kept.extend(line.iter().chain(b"\n"));
            let excess = self.kept.len().saturating_sub(KEPT);
            self.kept.drain(..excess);
        }
        let line = String::from_utf8_lossy(&line);
        let (severity, text) = split_severity(line.trim_end_matches('\r'));
        // 0 to 2 mean the machine, and many servers write them to every terminal: no payload speaks for it.
        let severity = if self.source.job.is_some() { severity.max(3) } else { severity };
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(shown(text));
        self.forward(severity, text.to_owned());
        if self.cost >= self.limit {
            // In its place in the log, so that nobody takes the line before for the last one.
            self.forward(4, format!("[{} KiB of output: what follows is thrown away]", self.limit / 1024));
        }
    }

    fn forward(&self, severity: u8, text: String) {
        let Source { tag, pid, job, show } = self.source.clone();
        logging::forward(Record { pid: Some(pid), job, ..Record::now(severity, &tag, text) }, show);
    }
}

fn shown(line: &str) -> String {
    crate::text::printable(line).chars().take(TAIL_CHARS).collect()
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

    fn read_limited(bytes: &[u8], limit: u64) -> Printed {
        let (reader, writer) = crate::launch::output_pipe().unwrap();
        let source = Source { tag: "t".to_owned(), pid: 1, job: None, show: false };
        let mut output = Output::new(reader, source, limit);
        let mut writer = File::from(writer);
        for chunk in bytes.chunks(60_000) {
            writer.write_all(chunk).unwrap();
            output.pump();
        }
        drop(writer);
        output.pump();
        assert!(output.ended());
        output.printed()
    }

    fn tail(bytes: &[u8]) -> Vec<String> {
        read_limited(bytes, u64::MAX).tail
    }

    #[test]
    fn lines_are_cut_and_made_printable() {
        assert_eq!(tail(b"one\r\n\n<3>two\nlast"), ["one", "two", "last"]);
        assert_eq!(tail(b"\xff\x1b[0m\n"), ["\u{fffd}\\u{1b}[0m"]);
        let long = tail(&[vec![b'x'; LINE + 1], b"\ny".to_vec()].concat());
        assert_eq!((long.len(), long[0].len(), &*long[1], &*long[2]), (3, TAIL_CHARS, "x", "y"));
        assert_eq!(tail(&[vec![b'x'; LINE], b"\ny".to_vec()].concat()).len(), 2);
        assert!(tail(b"").is_empty());
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(tail(b"1\n2\n3\n4\n5\n6\n"), ["2", "3", "4", "5", "6"]);
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_its_last_lines_are_told() {
        // Each of these lines costs 102 bytes, so that the eleventh is the first beyond 1024.
        let short = read_limited(&b"a\n".repeat(11), 1024);
        assert_eq!((short.dropped, short.tail.len()), (0, TAIL));
        assert_eq!(read_limited(&b"a\n".repeat(13), 1024).dropped, 4);

        let flood = [b"y\n".repeat(500_000), b"the reason\n\n\x1b".to_vec()].concat();
        let flood = read_limited(&flood, 1024);
        assert_eq!(flood.dropped, 1_000_000 + 13 - 22);
        assert_eq!(flood.tail, ["y", "y", "y", "the reason", "\\u{1b}"]);

        let one_line = read_limited(&vec![b'z'; 1_000_000], 10_000);
        assert_eq!(one_line.dropped, 1_000_000 - 3 * LINE as u64);
        assert_eq!(one_line.tail.len(), 4);
    }

    #[test]
    fn severities() {
        for (line, expected) in [("<4>x", (4, "x")), ("<8>x", (6, "<8>x")), ("<4", (6, "<4")), ("", (6, ""))] {
            assert_eq!(split_severity(line), expected);
        }
    }
}
