//! What outlives a logger: the agent keeps it and gives it to each one that it starts.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::libc::off_t;
use nix::sys::uio::pread;

use super::collect::Sources;
use super::ledger::{Count, Ledger};
use super::store::{MEMORY, Store};
use crate::sys::shared::{Shared, memory};

/// Descriptors alone: whoever reads from them or maps them is one logger at a time.
#[derive(Debug)]
pub struct Lasting {
    /// Nothing that somebody sends meets a closed door while no logger is there; what waits in them waits for the next.
    pub sources: Sources,
    ledger: OwnedFd,
    records: OwnedFd,
    length: NonZeroUsize,
}

impl Lasting {
    /// With records in memory.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn in_memory(sources: Sources) -> io::Result<Self> {
        let length = NonZeroUsize::MIN.saturating_add(MEMORY - 1);
        Ok(Self { sources, ledger: Ledger::memory()?, records: memory(c"ctxinit-log", length)?, length })
    }

    /// With records on a disk of `length` bytes, or in a file.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn on_disk(sources: Sources, disk: File, length: NonZeroUsize) -> io::Result<Self> {
        Ok(Self { sources, ledger: Ledger::memory()?, records: disk.into(), length })
    }

    /// The descriptors, for a caller that hands them to a child.
    pub fn fds(&self) -> Vec<RawFd> {
        [self.sources.fds(), vec![self.ledger.as_raw_fd(), self.records.as_raw_fd()]].concat()
    }

    /// One of the ledger's numbers, for the agent. It is read and not mapped: what the agent has mapped, every role that
    /// it forks could write to.
    pub fn count(&self, count: Count) -> u64 {
        let mut number = [0; size_of::<u64>()];
        // A memfd can always be read; a short one would be none of ours.
        let _ = pread(&self.ledger, &mut number, (count as usize * size_of::<u64>()) as off_t);
        u64::from_ne_bytes(number)
    }

    pub(super) fn map(&self) -> io::Result<(Store, Ledger)> {
        Ok((Store::open(Shared::map(&self.records, self.length)?), Ledger::open(&self.ledger)?))
    }
}
