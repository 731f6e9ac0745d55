//! The queue between collecting and sending: bounded in bytes, and honest about what it lost.

use std::collections::VecDeque;
use std::fmt;

use super::record::Entry;

/// Some 40,000 records of usual length, hours of a normal machine's log; 1 % of the smallest grid slot's memory.
pub const CAPACITY: usize = 8 * 1024 * 1024;

/// A line that had to hold so many gives its memory back when it is empty again.
const BURST: usize = 256;

/// Records that wait, in the order of their numbers. When full, the least severe go first, the oldest of them before
/// the newer, and audit records last: what a payload shouts pushes none of them out, however severe it says it is.
#[derive(Debug)]
pub struct Queue {
    /// One line for audit records, and one for each severity; dropping and taking are both a look at nine heads.
    lines: [VecDeque<Entry>; 9],
    used: usize,
    capacity: usize,
    drops: Option<Drops>,
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

impl Queue {
    /// Holds `capacity` bytes, the structures around the records included.
    pub fn new(capacity: usize) -> Self {
        Self { lines: Default::default(), used: 0, capacity, drops: None }
    }

    /// Adds a record and drops what is too much; that may be the new one.
    pub fn push(&mut self, entry: Entry) {
        self.used += entry.cost();
        let line = if entry.audit { 0 } else { 1 + usize::from(entry.severity) };
        if let Some(line) = self.lines.get_mut(line) {
            line.push_back(entry);
        }
        while self.used > self.capacity {
            let Some(dropped) = self.lines.iter_mut().rev().find_map(VecDeque::pop_front) else { break };
            self.used -= dropped.cost();
            let drops = self.drops.get_or_insert(Drops { count: 0, first: dropped.number, last: dropped.number });
            drops.count += 1;
            drops.first = drops.first.min(dropped.number);
            drops.last = drops.last.max(dropped.number);
        }
    }

    /// Takes the oldest record of all.
    pub fn pop(&mut self) -> Option<Entry> {
        let line = self
            .lines
            .iter_mut()
            .filter(|line| !line.is_empty())
            .min_by_key(|line| line.front().map_or(u64::MAX, |entry| entry.number))?;
        let entry = line.pop_front()?;
        if line.is_empty() && line.capacity() > BURST {
            line.shrink_to_fit();
        }
        self.used -= entry.cost();
        Some(entry)
    }

    /// What was dropped since the last call.
    pub fn take_drops(&mut self) -> Option<Drops> {
        self.drops.take()
    }

    /// Whether [`Queue::take_drops`] has something to tell.
    pub fn has_drops(&self) -> bool {
        self.drops.is_some()
    }

    /// Number of records that wait.
    pub fn len(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::parse::Message;
    use super::super::record::{Record, render};
    use super::*;

    fn entry(number: u64, severity: u8) -> Entry {
        let message = Message { facility: 1, severity, tag: b"t", pid: None, text: &[b'x'; 100] };
        render(&Record::trusted(message, SystemTime::UNIX_EPOCH), number, &mut Vec::new())
    }

    fn audit(number: u64) -> Entry {
        let mut entry = entry(number, 5);
        entry.audit = true;
        entry
    }

    /// A payload may log at any severity through /dev/log.
    #[test]
    fn no_noise_pushes_an_audit_record_out() {
        let mut queue = Queue::new(4 * entry(1000, 6).cost());
        queue.push(audit(1));
        (2..1000).for_each(|number| queue.push(entry(number, 0)));
        queue.push(audit(1000));
        assert_eq!(numbers(&mut queue), [1, 998, 999, 1000]);
        // Only of each other they are: the oldest goes.
        (1..=5).for_each(|number| queue.push(audit(number)));
        assert_eq!(numbers(&mut queue), [2, 3, 4, 5]);
    }

    fn numbers(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|entry| entry.number).collect()
    }

    #[test]
    fn severities_do_not_change_the_order() {
        let mut queue = Queue::new(CAPACITY);
        for (number, severity) in [(1, 6), (2, 3), (3, 7), (4, 6), (5, 0)] {
            queue.push(entry(number, severity));
        }
        assert_eq!(queue.len(), 5);
        assert_eq!(numbers(&mut queue), [1, 2, 3, 4, 5]);
        assert_eq!((queue.used, queue.len(), queue.take_drops()), (0, 0, None));
    }

    #[test]
    fn the_least_severe_and_oldest_go_first() {
        let mut queue = Queue::new(4 * entry(1, 6).cost());
        for (number, severity) in [(1, 3), (2, 6), (3, 7), (4, 6), (5, 3), (6, 6), (7, 3), (8, 7)] {
            queue.push(entry(number, severity));
        }
        // 3 went for 5, 2 for 6, 4 for 7, and 8 for itself.
        assert_eq!(queue.take_drops(), Some(Drops { count: 4, first: 2, last: 8 }));
        assert_eq!(queue.take_drops(), None);
        assert_eq!(numbers(&mut queue), [1, 5, 6, 7]);
    }

    #[test]
    fn drops_and_survivors_add_up() {
        let mut queue = Queue::new(10_000);
        for number in 1..=1000 {
            queue.push(entry(number, (number % 8) as u8));
            assert!(queue.used <= 10_000);
        }
        let dropped = queue.take_drops().unwrap();
        assert_eq!(
            dropped.to_string(),
            format!("dropped {} records, numbers 1 to {}: the queue was full", dropped.count, dropped.last)
        );
        assert_eq!(dropped.count as usize + numbers(&mut queue).len(), 1000);
    }
}
