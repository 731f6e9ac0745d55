//! Records that wait for a server's word: bounded, honest about what was lost, and there for the next logger.
//!
//! They lie in memory that outlives the process, or on the site's spool disk, which outlives the machine. Segments of
//! equal size belong to nine lines, one for audit records and one for each severity. When all are taken, the oldest
//! segment of the least severe line goes, and audit records last: what a payload shouts pushes none of them out, however
//! severe it says it is. A record is done with when the transport says that its server's kernel has acknowledged it;
//! until then it can be sent again.

mod line;
mod segment;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use self::line::{Line, Part};
pub use self::segment::Stored;
use crate::sys::shared::Shared;

/// Some 30,000 records of usual length, hours of a normal machine's log; 1 % of the smallest grid slot's memory. Taken page
/// by page, and lowest first, so a machine whose server is there never touches most of it.
pub const MEMORY: usize = 8 * 1024 * 1024;
/// What is used of a larger disk: the beginning of all segments is read when it is opened.
pub const LARGEST: usize = 256 * 1024 * 1024;
/// Of a smaller one a burst of each line would take everything.
pub const SMALLEST: usize = 1024 * 1024;

const LINES: usize = 9;
const AUDIT: u8 = 0;

/// A finished record, but for the host's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// 0-7.
    pub severity: u8,
    /// Whether it is an audit record.
    pub audit: bool,
    /// Where the host's name belongs.
    pub host_at: u8,
    /// All but that; one byte at least, and no more than a record's limit.
    pub bytes: &'a [u8],
}

impl Entry<'_> {
    fn line(&self) -> u8 {
        if self.audit { AUDIT } else { 1 + self.severity.min(7) }
    }
}

/// Records that were dropped since this was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// How many.
    pub count: u64,
    /// Lowest number among them.
    pub first: u64,
    /// Highest number among them; not all between the two need be gone.
    pub last: u64,
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, first, last } = self;
        write!(f, "dropped {count} records, numbers {first} to {last}: the queue was full")
    }
}

/// The records of one life of a machine, behind those of an earlier one if the memory is a disk.
#[derive(Debug)]
pub struct Store {
    map: Shared,
    lines: [Line; LINES],
    /// The lowest is taken first.
    free: BTreeSet<u32>,
    /// The line that was sent from last, and a number: below it no other line has anything to send.
    run: Option<(u8, u64)>,
    /// The lines of what was sent and is not done with, in the order of sending.
    flight: VecDeque<u8>,
    /// Of the segment begun last.
    order: u64,
    /// Of the record stored last.
    last: u64,
    /// Records not done with.
    waiting: u64,
    drops: Option<Drops>,
}

impl Store {
    /// Takes what is there. What is no record, or only a part of one, is nothing.
    pub fn open(map: Shared) -> Self {
        let mut store = Self {
            map,
            lines: Default::default(),
            free: BTreeSet::new(),
            run: None,
            flight: VecDeque::new(),
            order: 0,
            last: 0,
            waiting: 0,
            drops: None,
        };
        let mut found: Vec<(u64, u32, u8)> = Vec::new();
        for (index, segment) in (0..).zip(store.map.bytes().chunks_exact(segment::SIZE)) {
            match segment::head(segment) {
                Some((order, line)) if usize::from(line) < LINES => found.push((order, index, line)),
                _ => drop(store.free.insert(index)),
            }
        }
        found.sort_unstable();
        for (order, index, line) in found {
            store.order = order;
            store.adopt(order, index, usize::from(line));
        }
        store
    }

    fn adopt(&mut self, order: u64, index: u32, line: usize) {
        let (part, count, last) = Part::found(segment_of(self.map.bytes(), index), index, order);
        self.last = self.last.max(last);
        self.waiting += count;
        match self.lines.get_mut(line) {
            Some(line) if count > 0 => line.push(part),
            _ => self.give_back(index),
        }
    }

    /// Number of the last record, 0 if there never was one as far as this memory knows.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Records that are not done with.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Whether all of them are sent.
    pub fn is_sent(&self) -> bool {
        self.waiting == self.flight.len() as u64
    }

    /// Adds a record, whose number is higher than all before, and drops what is too much; that may be the new one.
    pub fn push(&mut self, number: u64, entry: &Entry<'_>) {
        let line = entry.line();
        let record = Stored { number, host_at: entry.host_at, bytes: entry.bytes };
        self.last = number;
        if let Some((of, below)) = &mut self.run
            && *of != line
        {
            *below = number.min(*below);
        }
        if !self.append(line, &record) {
            let Some(index) = self.free.pop_first().or_else(|| self.make_room(line)) else {
                return self.dropped(number);
            };
            self.order += 1;
            segment::begin(segment_of_mut(self.map.bytes_mut(), index), self.order, line);
            if let Some(of) = self.lines.get_mut(usize::from(line)) {
                of.push(Part::new(index, self.order));
            }
            if !self.append(line, &record) {
                return self.dropped(number);
            }
        }
        self.waiting += 1;
    }

    fn append(&mut self, line: u8, record: &Stored<'_>) -> bool {
        let Some(part) = self.lines.get_mut(usize::from(line)).and_then(Line::last) else { return false };
        let segment = segment_of_mut(self.map.bytes_mut(), part.index);
        let end = segment::append(segment, part.end, part.order, record);
        part.end = end.unwrap_or(part.end);
        end.is_some()
    }

    /// From the least severe that has something which is not under way; from nobody who is more severe.
    fn make_room(&mut self, line: u8) -> Option<u32> {
        let part = self.lines.iter_mut().skip(line.into()).rev().find_map(Line::give)?;
        let mut at = part.done;
        while let Some(record) = part.record(self.map.bytes(), at) {
            at += record.length();
            let number = record.number;
            self.waiting -= 1;
            self.dropped(number);
        }
        Some(part.index)
    }

    fn dropped(&mut self, number: u64) {
        let drops = self.drops.get_or_insert(Drops { count: 0, first: number, last: number });
        drops.count += 1;
        drops.first = drops.first.min(number);
        drops.last = drops.last.max(number);
    }

    /// What was dropped since the last call.
    pub fn take_drops(&mut self) -> Option<Drops> {
        self.drops.take()
    }

    /// Whether [`Store::take_drops`] has something to tell.
    pub fn has_drops(&self) -> bool {
        self.drops.is_some()
    }

    /// The oldest record that is not sent; from now on it is.
    pub fn send(&mut self) -> Option<Stored<'_>> {
        let line = self.next_line()?;
        let of = self.lines.get_mut(usize::from(line))?;
        let record = of.next(self.map.bytes())?;
        of.sent(record.length());
        self.flight.push_back(line);
        Some(record)
    }

    /// The line that has it. Most records come from one line, and to look into all of them for each is dear.
    fn next_line(&mut self) -> Option<u8> {
        let map = self.map.bytes();
        let next = |line: u8| Some(self.lines.get(usize::from(line))?.next(map)?.number);
        if let Some((line, below)) = self.run
            && next(line).is_some_and(|number| number < below)
        {
            return Some(line);
        }
        let mut heads: Vec<_> = (0..LINES as u8).filter_map(|line| Some((next(line)?, line))).collect();
        heads.sort_unstable();
        let (_, line) = *heads.first()?;
        self.run = Some((line, heads.get(1).map_or(u64::MAX, |(number, _)| *number)));
        Some(line)
    }

    /// All that are not done with are to be sent again: nobody knows what became of them.
    pub fn rewind(&mut self) {
        self.flight.clear();
        self.run = None;
        self.lines.iter_mut().for_each(Line::rewind);
    }

    /// So many, the ones that were sent first, are done with.
    pub fn acknowledge(&mut self, count: usize) {
        for _ in 0..count {
            let Some(line) = self.flight.pop_front() else { return };
            let Some(of) = self.lines.get_mut(usize::from(line)) else { return };
            let Some((part, empty)) = of.done(self.map.bytes()) else { return };
            self.waiting -= 1;
            if empty {
                self.give_back(part.index);
            } else {
                segment::set_done(segment_of_mut(self.map.bytes_mut(), part.index), part.done);
            }
        }
    }

    fn give_back(&mut self, index: u32) {
        segment::free(segment_of_mut(self.map.bytes_mut(), index));
        self.free.insert(index);
    }
}

fn segment_of(map: &[u8], index: u32) -> &[u8] {
    let start = index as usize * segment::SIZE;
    map.get(start..start + segment::SIZE).unwrap_or_default()
}

fn segment_of_mut(map: &mut [u8], index: u32) -> &mut [u8] {
    let start = index as usize * segment::SIZE;
    map.get_mut(start..start + segment::SIZE).unwrap_or_default()
}

#[cfg(test)]
mod tests;
