//! What is under way on one connection, and how far each record has come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::Deadline;

/// Bytes that are made ready for one write(2): enough to make its cost small, little to do twice.
const BATCH: usize = 64 * 1024;
/// A peer's kernel acknowledges what its process has not read. If that process dies, the connection is reset and those
/// bytes are gone. So what was acknowledged a moment ago is sent again after a reset: this many bytes, of this many
/// seconds. Linux keeps at most 6 MiB for a reader, its own share of that included (tcp_rmem); and the store has twice as
/// much, so that its other half is there for what comes meanwhile.
const TAIL: u64 = 4 * 1024 * 1024;
const TAIL_TIME: Duration = Duration::from_secs(5);
/// How exactly those seconds are counted.
const TICK: Duration = Duration::from_millis(250);

/// The bytes being written, and marks on them and on those that were.
#[derive(Debug, Default)]
pub struct Flight {
    bytes: Vec<u8>,
    /// Of these bytes, the first not yet written.
    at: usize,
    /// The stream's length when the first of them was added.
    base: u64,
    /// How many records they are.
    records: usize,
    /// The stream's length behind each record that is not done with; unknown is the largest.
    marks: VecDeque<u64>,
    /// When the peer had acknowledged how much, newest last.
    history: VecDeque<(Instant, u64)>,
    /// How much it has acknowledged.
    acknowledged: u64,
    settled: u64,
    /// The stream holds other bytes than these (TLS): where a record ends is known when all of them are written.
    opaque: bool,
}

impl Flight {
    /// For a new connection.
    pub fn new(opaque: bool) -> Self {
        Self { opaque, ..Self::default() }
    }

    /// Whether another record may be added now.
    pub fn has_room(&self) -> bool {
        self.bytes.len() < BATCH
    }

    /// The bytes, for a record to be added behind; [`Flight::added`] says that it was.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// A whole record was added.
    pub fn added(&mut self) {
        self.records += 1;
        self.marks.push_back(if self.opaque { u64::MAX } else { self.base + self.bytes.len() as u64 });
    }

    /// Whether all of its records are done with.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// When to ask for acknowledgements without an event: there is none for them.
    pub fn timer(&self) -> Option<Deadline> {
        let due = match self.history.front() {
            Some((when, _)) if self.in_tail() == self.marks.len() => Deadline::at(*when + TAIL_TIME),
            _ => Deadline::after(2 * TICK),
        };
        (!self.is_empty()).then_some(due)
    }

    /// The stream's length as far as its records are done with.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The server's process does not read: what its kernel has acknowledged grows no older.
    pub fn hold(&mut self) {
        self.history.clear();
    }

    /// What is still to be written.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// So many of these bytes are written, all of them if it is an opaque stream, whose length is `stream` now.
    pub fn wrote(&mut self, count: usize, stream: u64) {
        self.at += count;
        if self.opaque {
            self.marks.iter_mut().rev().take(self.records).for_each(|mark| *mark = stream);
        }
        if self.at == self.bytes.len() {
            self.base = stream;
            self.bytes.clear();
            (self.at, self.records) = (0, 0);
        }
    }

    /// The peer has the stream up to here.
    pub fn reach(&mut self, stream: u64) {
        self.acknowledged = self.acknowledged.max(stream);
    }

    /// The peer has acknowledged the stream up to here. Returns how many records are done with, beyond the tail.
    pub fn acknowledge(&mut self, stream: u64, now: Instant) -> usize {
        self.reach(stream);
        if self.history.back().is_none_or(|(when, _)| now.duration_since(*when) >= TICK) {
            self.history.push_back((now, self.acknowledged));
        }
        let mut settled = self.acknowledged.saturating_sub(TAIL);
        while let Some((when, stream)) = self.history.front()
            && now.duration_since(*when) >= TAIL_TIME
        {
            settled = settled.max(*stream);
            self.history.pop_front();
        }
        self.take(settled)
    }

    /// The peer has ended the connection in order, or there is no word of it to wait for: how many records are done with.
    pub fn settle(&mut self, stream: u64) -> usize {
        self.take(stream)
    }

    /// How many records the peer has acknowledged that are not done with.
    pub fn in_tail(&self) -> usize {
        self.marks.partition_point(|mark| *mark <= self.acknowledged)
    }

    fn take(&mut self, settled: u64) -> usize {
        self.settled = self.settled.max(settled);
        let done = self.marks.partition_point(|mark| *mark <= settled);
        self.marks.drain(..done);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(flight: &mut Flight, records: &[usize]) {
        for length in records {
            flight.bytes().extend(vec![b'x'; *length]);
            flight.added();
        }
    }

    #[test]
    fn a_record_is_done_with_when_its_acknowledgement_is_old() {
        let (mut flight, start) = (Flight::new(false), Instant::now());
        add(&mut flight, &[100, 50, 10]);
        flight.wrote(120, 120);
        assert_eq!(flight.rest().len(), 40);
        assert_eq!((flight.acknowledge(110, start), flight.in_tail()), (0, 1));
        flight.wrote(40, 160);
        add(&mut flight, &[5]);
        assert_eq!((flight.acknowledge(160, start + TICK), flight.in_tail()), (0, 3));
        assert_eq!(flight.acknowledge(160, start + TAIL_TIME), 1);
        assert_eq!(flight.acknowledge(160, start + TAIL_TIME + TICK), 2);
        flight.wrote(5, 165);
        assert_eq!((flight.settle(164), flight.settle(165)), (0, 1));
    }

    #[test]
    fn what_lies_before_a_process_that_does_not_read_is_not_done_with() {
        let (mut flight, start) = (Flight::new(false), Instant::now());
        add(&mut flight, &[10]);
        flight.wrote(10, 10);
        assert!(flight.timer().is_some());
        assert_eq!(flight.acknowledge(10, start), 0);
        flight.hold();
        assert_eq!(flight.acknowledge(10, start + TAIL_TIME), 0);
        assert_eq!(flight.acknowledge(10, start + TAIL_TIME * 2), 1);
        assert!(flight.is_empty() && flight.timer().is_none());
    }

    #[test]
    fn a_long_tail_is_cut() {
        let (mut flight, start) = (Flight::new(false), Instant::now());
        add(&mut flight, &[1000, 1000]);
        flight.wrote(2000, 2000);
        assert_eq!(flight.acknowledge(TAIL + 999, start), 0);
        assert_eq!(flight.acknowledge(TAIL + 1000, start), 1);
    }

    #[test]
    fn records_of_an_opaque_stream_end_with_their_batch() {
        let mut flight = Flight::new(true);
        add(&mut flight, &[10, 10]);
        assert_eq!(flight.settle(250), 0);
        flight.wrote(20, 300);
        add(&mut flight, &[10]);
        assert_eq!((flight.settle(299), flight.settle(300)), (0, 2));
        flight.wrote(10, 350);
        assert_eq!(flight.settle(350), 1);
    }
}
