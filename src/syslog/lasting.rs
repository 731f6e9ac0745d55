//! What outlives a logger: the agent keeps it and gives it to each one that it starts.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::libc::off_t;
use nix::sys::uio::pread;

use super::collect::Sources;
use super::ledger::{Count, Ledger};
use super::spool::{Spool, Waiting};
use super::store::superblock::{Names, State};
use super::store::{MEMORY, Store};
use super::sync::Sync;
use crate::sys::shared::{Shared, memory};

/// Descriptors alone: whoever reads from them or maps them is one logger at a time.
#[derive(Debug)]
pub struct Lasting {
    /// Nothing that somebody sends meets a closed door while no logger is there; what waits in them waits for the next.
    pub sources: Sources,
    ledger: OwnedFd,
    records: Records,
    /// Of the records' memory.
    spool: Option<Spool>,
    names: Names,
}

/// Memory for records.
#[derive(Debug)]
pub struct Records {
    fd: OwnedFd,
    length: NonZeroUsize,
}

impl Records {
    /// With those of a spool in it. It may wait for the disk.
    ///
    /// # Errors
    /// Those of memfd_create(2) and mmap(2).
    pub fn of(spool: &Spool) -> io::Result<(Self, Waiting)> {
        let records = Self::zeroed(spool.length())?;
        let waiting = records.load(spool)?;
        Ok((records, waiting))
    }

    /// With none.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn zeroed(length: NonZeroUsize) -> io::Result<Self> {
        Ok(Self { fd: memory(c"ctxinit-log", length)?, length })
    }

    /// Adds those of a spool, in this process or in a child of it.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn load(&self, spool: &Spool) -> io::Result<Waiting> {
        spool.load(&self.fd)
    }
}

impl Lasting {
    /// With records in memory.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn in_memory(sources: Sources) -> io::Result<Self> {
        let records = Records::zeroed(NonZeroUsize::MIN.saturating_add(MEMORY - 1))?;
        Ok(Self { sources, ledger: Ledger::memory()?, records, spool: None, names: Names::default() })
    }

    /// With records that are copied to a spool, from which `records` were read.
    ///
    /// # Errors
    /// Those of memfd_create(2).
    pub fn on_disk(sources: Sources, spool: Spool, records: Records, waiting: &Waiting) -> io::Result<Self> {
        let ledger = Ledger::memory()?;
        Ledger::open(&ledger)?.set(Count::Uses, spool.uses());
        let names = spool.names(waiting);
        Ok(Self { sources, ledger, records, spool: Some(spool), names })
    }

    /// The descriptors, for a caller that hands them to a child.
    pub fn fds(&self) -> Vec<RawFd> {
        let disk = self.spool.iter().map(|spool| spool.disk().as_raw_fd()).collect();
        [self.sources.fds(), vec![self.ledger.as_raw_fd(), self.records.fd.as_raw_fd()], disk].concat()
    }

    /// One of the ledger's numbers, for the agent. It is read and not mapped: what the agent has mapped, every role that
    /// it forks could write to.
    pub fn count(&self, count: Count) -> u64 {
        let mut number = [0; size_of::<u64>()];
        // A memfd can always be read; a short one would be none of ours.
        let _ = pread(&self.ledger, &mut number, (count as usize * size_of::<u64>()) as off_t);
        u64::from_ne_bytes(number)
    }

    /// Whether the records outlive the machine.
    pub fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    pub(super) fn map(&self) -> io::Result<(Store, Ledger)> {
        Ok((Store::open(Shared::map(&self.records.fd, self.records.length)?), Ledger::open(&self.ledger)?))
    }

    /// The names of earlier lives, and none for this one.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Has the spool written, if there is one.
    pub(super) fn sync(&self, state: State) -> Option<io::Result<Sync>> {
        self.spool.as_ref().map(|spool| Sync::start(spool, &self.records.fd, state))
    }
}
