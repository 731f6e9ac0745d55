//! One line of a store: which segments it has, and how far each record has come.

use std::collections::VecDeque;

use super::segment::{self, FIRST, Stored};
use super::segment_of;

/// Segments in the order of their records. Done with, then sent, then not sent: the order never changes within a line.
#[derive(Debug, Default)]
pub struct Line {
    parts: VecDeque<Part>,
    /// Part and place of the first record that is not sent.
    unsent: (usize, usize),
}

/// A segment of it.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which one of the store's.
    pub index: u32,
    /// As in its head.
    pub order: u64,
    /// Before this everything is done with.
    pub done: usize,
    /// Where the next record goes.
    pub end: usize,
}

impl Part {
    /// An empty one.
    pub fn new(index: u32, order: u64) -> Self {
        Self { index, order, done: FIRST, end: FIRST }
    }

    /// What a segment holds, how many records, and the highest number. It ends before the first thing that is none.
    pub fn found(segment: &[u8], index: u32, order: u64) -> (Self, u64, u64) {
        let told = segment::done(segment);
        let (mut part, mut count, mut last) = (Self::new(index, order), 0, 0);
        while let Some(record) = segment::found(segment, part.end, order) {
            count += 1;
            last = last.max(record.number);
            part.end += record.length();
            if part.end == told {
                part.done = told;
                count = 0;
            }
        }
        (part, count, last)
    }

    /// The record that begins there.
    pub fn record(self, map: &[u8], at: usize) -> Option<Stored<'_>> {
        if at < self.end { segment::record(segment_of(map, self.index), at) } else { None }
    }
}

impl Line {
    /// Adds a segment behind all others.
    pub fn push(&mut self, part: Part) {
        if self.parts.is_empty() {
            self.unsent = (0, part.done);
        }
        self.parts.push_back(part);
    }

    /// The one that is written to.
    pub fn last(&mut self) -> Option<&mut Part> {
        self.parts.back_mut()
    }

    /// The first record that is not done with.
    pub fn first<'a>(&self, map: &'a [u8]) -> Option<Stored<'a>> {
        let part = self.parts.front()?;
        part.record(map, part.done)
    }

    /// The first record that is not sent.
    pub fn next<'a>(&self, map: &'a [u8]) -> Option<Stored<'a>> {
        let (part, at) = self.place();
        self.parts.get(part)?.record(map, at)
    }

    /// That one is sent now.
    pub fn sent(&mut self, length: usize) {
        let (part, at) = self.place();
        self.unsent = (part, at + length);
    }

    /// Nothing is sent that is not done with.
    pub fn rewind(&mut self) {
        self.unsent = (0, self.parts.front().map_or(FIRST, |part| part.done));
    }

    /// The first record, which was sent, is done with. Returns its part, and whether nothing is left in it.
    pub fn done(&mut self, map: &[u8]) -> Option<(Part, bool)> {
        let part = self.parts.front_mut()?;
        part.done += part.record(map, part.done)?.length();
        let part = *part;
        let empty = part.done == part.end;
        if empty {
            self.remove(0);
        }
        Some((part, empty))
    }

    /// Takes away the first segment that holds nothing which is under way.
    pub fn give(&mut self) -> Option<Part> {
        self.remove(self.first_at_rest())
    }

    /// Whether there is such a segment.
    pub fn can_give(&self) -> bool {
        self.first_at_rest() < self.parts.len()
    }

    fn first_at_rest(&self) -> usize {
        let (part, at) = self.place();
        part + usize::from(self.parts.get(part).is_some_and(|part| at > part.done))
    }

    fn remove(&mut self, part: usize) -> Option<Part> {
        let (first, at) = self.place();
        let removed = self.parts.remove(part)?;
        self.unsent = match part.cmp(&first) {
            std::cmp::Ordering::Less => (first - 1, at),
            std::cmp::Ordering::Equal => (first, self.parts.get(part).map_or(FIRST, |next| next.done)),
            std::cmp::Ordering::Greater => (first, at),
        };
        Some(removed)
    }

    /// As in `unsent`, but behind the end of a segment is the beginning of the next.
    fn place(&self) -> (usize, usize) {
        let (part, at) = self.unsent;
        let ended = self.parts.get(part).is_some_and(|part| at >= part.end);
        match self.parts.get(part + 1) {
            Some(next) if ended => (part + 1, next.done),
            _ => (part, at),
        }
    }
}
