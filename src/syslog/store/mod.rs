//! Records that wait for a server's word: bounded, honest about what was lost, and there for the next logger.
//!
//! They lie in memory that outlives the process, or on the site's spool disk, which outlives the machine. Segments of
//! equal size belong to nine lines, one for audit records and one for each severity. When all are taken, the oldest
//! segment of the least severe line goes, and audit records last: what a payload shouts pushes none of them out, however
//! severe it says it is. A record is done with when the transport says that its server's kernel has acknowledged it;
//! until then it can be sent again.

mod line;
mod segment;
pub mod superblock;

use std::collections::{BTreeSet, VecDeque};

use self::line::{Line, Part};
pub use self::segment::{SIZE as SEGMENT, Stored};
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

/// Records of this life of the machine that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// How many.
    pub count: u64,
    /// Lowest number among them.
    pub first: u64,
    /// Highest number among them; not all between the two need be gone.
    pub last: u64,
}

/// All that were dropped since this was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many of earlier lives: their numbers would say nothing among those of this one.
    pub earlier: u64,
    /// Of this life.
    pub own: Option<Drops>,
}

impl Dropped {
    /// How many.
    pub fn count(&self) -> u64 {
        self.earlier + self.own.map_or(0, |own| own.count)
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
    /// Of the last record of earlier lives.
    before: u64,
    dropped: Dropped,
    /// For each segment, whether it was changed since the last [`Store::take_changes`].
    changed: Vec<bool>,
    /// What has changed.
    changes: Changes,
}

/// What a copy of the memory lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changes {
    /// Nothing.
    #[default]
    None,
    /// Something.
    Some,
    /// An audit record.
    Audit,
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
            before: 0,
            dropped: Dropped::default(),
            changed: Vec::new(),
            changes: Changes::None,
        };
        store.changed.resize(store.map.bytes().len() / segment::SIZE, false);
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

    /// Segments that are begun from now on are of this use. Unlike any before, it keeps records that an earlier one left in
    /// a segment from being taken for records of the next: a checksum counts the segment's order in.
    /// Records up to the number `before` are of earlier lives.
    pub fn begin_use(&mut self, number: u64, before: u64) {
        self.before = before;
        self.order = self.order.max(number << 32);
    }

    /// Whether a copy of the memory lacks something.
    pub fn changes(&self) -> Changes {
        self.changes
    }

    /// The segments that were changed since the last call.
    pub fn take_changes(&mut self) -> Vec<u32> {
        self.changes = Changes::None;
        let all = (0..).zip(&mut self.changed);
        all.filter_map(|(index, changed)| std::mem::take(changed).then_some(index)).collect()
    }

    /// Nobody knows what the copy has.
    pub fn change_all(&mut self) {
        self.changed.fill(true);
        self.changes = self.changes.max(Changes::Some);
    }

    /// These have to be copied again.
    pub fn put_back(&mut self, changed: impl IntoIterator<Item = u32>) {
        changed.into_iter().for_each(|index| self.change(index, Changes::Some));
    }

    fn change(&mut self, index: u32, what: Changes) {
        self.changes = self.changes.max(what);
        self.changed.get_mut(index as usize).into_iter().for_each(|changed| *changed = true);
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

    /// Number of the first record that is not done with.
    pub fn first(&self) -> Option<u64> {
        let map = self.map.bytes();
        let first = |line: &Line| line.first(map).map(|record| record.number);
        self.lines.iter().filter_map(first).min()
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
            self.change(index, Changes::Some);
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
        let index = part.index;
        if end.is_some() {
            self.change(index, if line == AUDIT { Changes::Audit } else { Changes::Some });
        }
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
        if number <= self.before {
            self.dropped.earlier += 1;
            return;
        }
        let drops = self.dropped.own.get_or_insert(Drops { count: 0, first: number, last: number });
        drops.count += 1;
        drops.first = drops.first.min(number);
        drops.last = drops.last.max(number);
    }

    /// What was dropped since the last call.
    pub fn take_drops(&mut self) -> Dropped {
        std::mem::take(&mut self.dropped)
    }

    /// Whether [`Store::take_drops`] has something to tell.
    pub fn has_drops(&self) -> bool {
        self.dropped.count() > 0
    }

    /// Whether an audit record finds a segment: not if the records of all are under way to a server.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.lines.iter().any(Line::can_give)
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
                self.change(part.index, Changes::Some);
            }
        }
    }

    fn give_back(&mut self, index: u32) {
        segment::free(segment_of_mut(self.map.bytes_mut(), index));
        self.change(index, Changes::Some);
        self.free.insert(index);
    }
}

/// Whether a segment that begins so holds nothing.
pub fn is_free(head: &[u8]) -> bool {
    segment::head(head).is_none()
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
