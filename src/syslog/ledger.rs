//! Numbers that outlive a logger: one page of memory that the agent keeps for the next one.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::sys::shared::{SharedNumbers, memory};

const LENGTH: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// One of the numbers. Each is 0 at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Loggers that have begun.
    Starts,
    /// Number of the last record made in this life of the machine, and of an earlier one whose records lie on the spool.
    Last,
    /// The same when this life began: what comes behind has sequenceId 1.
    Before,
    /// Of the agent's records, the last that is stored.
    Agent,
    /// Records that a server's kernel has acknowledged.
    Delivered,
    /// Records that had a number and were dropped.
    Dropped,
    /// Messages that got none: more than the site takes of one payload.
    Unnumbered,
    /// Of the kernel's records, the number of the first that is not stored.
    Kernel,
    /// Of the agent's records, the one that is being stored: stored if there is a record of [`Count::AgentAs`].
    AgentNext,
    /// The number that it gets.
    AgentAs,
    /// The same three of the datagrams.
    Mail,
    /// See [`Count::AgentNext`].
    MailNext,
    /// See [`Count::AgentAs`].
    MailAs,
    /// Records of an earlier life that the spool held when this one began.
    Earlier,
    /// Records that are not done with.
    Waiting,
    /// Of these, those that a server's kernel has acknowledged and that would be sent again after a reset.
    Tail,
    /// How often the records' memory was taken into use; on a spool, in all its lives.
    Uses,
    /// Records that wait on a spool for the next life, known at the end of this one.
    Spooled,
    /// While records are handed over, [`Count::Delivered`] and what waits together; 0 otherwise.
    Settling,
    /// What [`Count::Dropped`] is to be when the record of [`Count::DroppedAs`] is there.
    DroppedNext,
    /// The number of the record that announces it.
    DroppedAs,
}

/// The numbers.
#[derive(Debug)]
pub struct Ledger(SharedNumbers);

impl Ledger {
    /// Memory for one, to be kept by whoever outlives the loggers.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn memory() -> io::Result<OwnedFd> {
        memory(c"ctxinit-log-ledger", LENGTH)
    }

    /// As they are now.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        SharedNumbers::map(memory, LENGTH).map(Self)
    }

    /// One of them. It may be another process that changes it meanwhile.
    pub fn get(&self, count: Count) -> u64 {
        self.0.all().get(count as usize).map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Changes it. What was written before is there for whoever sees the change.
    pub fn set(&self, count: Count, value: u64) {
        if let Some(number) = self.0.all().get(count as usize) {
            number.store(value, Ordering::Release);
        }
    }

    /// Adds to it; one process changes a number.
    pub fn add(&self, count: Count, more: u64) {
        self.set(count, self.get(count).saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_there_for_the_next() {
        let memory = Ledger::memory().unwrap();
        let first = Ledger::open(&memory).unwrap();
        first.set(Count::Last, u64::MAX - 1);
        first.add(Count::Last, 9);
        first.add(Count::Dropped, 3);
        drop(first);
        let next = Ledger::open(&memory).unwrap();
        assert_eq!([Count::Starts, Count::Last, Count::Dropped].map(|of| next.get(of)), [0, u64::MAX, 3]);
    }
}
