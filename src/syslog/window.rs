//! Records under way: taken from the queue, written down, not yet all in the kernel's hands.

use std::collections::VecDeque;
use std::io::Write;

use super::record::Entry;

/// Bytes that are made ready for one write(2): enough to make its cost small, little to do twice.
const SIZE: usize = 64 * 1024;

/// Frames of RFC 6587 octet counting, `LENGTH SP RECORD`, of which a datagram takes the record alone.
#[derive(Debug, Default)]
pub struct Window {
    bytes: Vec<u8>,
    frames: VecDeque<Frame>,
    /// Bytes written, partly written frame included.
    written: usize,
}

#[derive(Debug)]
struct Frame {
    start: usize,
    record: usize,
    end: usize,
}

impl Window {
    /// Whether another record may be pushed: before the first byte is written and below the size.
    pub fn has_room(&self) -> bool {
        self.written == 0 && self.bytes.len() < SIZE
    }

    /// Whether every record is written.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Number of records not wholly written.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Adds a record.
    pub fn push(&mut self, entry: &Entry, host: &str) {
        let start = self.bytes.len();
        // Writing to a Vec cannot fail.
        let _ = write!(self.bytes, "{} ", entry.length(host));
        let record = self.bytes.len();
        entry.write(host, &mut self.bytes);
        self.frames.push_back(Frame { start, record, end: self.bytes.len() });
    }

    /// What a stream has still to get.
    pub fn stream(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// The next record for a datagram.
    pub fn datagram(&self) -> Option<&[u8]> {
        let frame = self.frames.front()?;
        self.bytes.get(frame.record..frame.end)
    }

    /// A stream took `count` bytes. Returns how many records that completed.
    pub fn advance(&mut self, count: usize) -> u64 {
        self.written += count;
        let mut done = 0;
        while self.frames.front().is_some_and(|frame| frame.end <= self.written) {
            self.frames.pop_front();
            done += 1;
        }
        self.reset_if_empty();
        done
    }

    /// A datagram was taken.
    pub fn advance_datagram(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.written = frame.end;
        }
        self.reset_if_empty();
    }

    /// The connection is gone: a record that was written in part is due again, whole.
    pub fn rewind(&mut self) {
        self.written = self.frames.front().map_or(0, |frame| frame.start);
    }

    fn reset_if_empty(&mut self) {
        if self.frames.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::parse::datagram;
    use super::super::record::{Record, render};
    use super::*;

    fn window(texts: &[&str]) -> (Window, Vec<usize>) {
        let mut window = Window::default();
        let ends = texts.iter().map(|text| {
            let record = Record::trusted(datagram(text.as_bytes()), SystemTime::UNIX_EPOCH);
            window.push(&render(&record, 1, &mut Vec::new()), "host");
            window.bytes.len()
        });
        let ends = ends.collect();
        (window, ends)
    }

    #[test]
    fn frames_count_their_octets() {
        let (window, ends) = window(&["a: one", "a: two, longer"]);
        let mut rest = window.stream();
        for text in ["one", "two, longer"] {
            let space = rest.iter().position(|b| *b == b' ').unwrap();
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            let record = &rest[space + 1..][..length];
            assert!(record.starts_with(b"<13>1 ") && record.ends_with(text.as_bytes()));
            rest = &rest[space + 1 + length..];
        }
        assert!(rest.is_empty() && ends.len() == 2);
    }

    #[test]
    fn a_record_cut_by_the_end_of_a_connection_is_due_whole() {
        let (mut window, ends) = window(&["one", "two", "three"]);
        let all = window.stream().to_vec();
        assert_eq!(window.advance(ends[0] - 1), 0);
        assert_eq!(window.advance(ends[1] - ends[0]), 1);
        assert!(!window.has_room());
        assert_eq!((window.len(), window.stream()), (2, &all[ends[1] - 1..]));
        window.rewind();
        assert_eq!(window.stream(), &all[ends[0]..]);
        assert_eq!(window.advance(ends[2] - ends[0]), 2);
        assert!(window.is_empty() && window.has_room() && window.stream().is_empty());
    }

    #[test]
    fn datagrams_have_no_count() {
        let (mut window, _) = window(&["one", "two"]);
        assert!(window.datagram().unwrap().starts_with(b"<13>1 ") && window.datagram().unwrap().ends_with(b"one"));
        window.advance_datagram();
        assert!(window.datagram().unwrap().ends_with(b"two"));
        window.rewind();
        assert!(window.stream().ends_with(b"two") && window.stream().starts_with(b"7"));
        window.advance_datagram();
        assert_eq!((window.datagram(), window.has_room()), (None, true));
    }
}
