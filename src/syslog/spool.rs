//! A spool: a disk, a partition or a file that keeps records for the next life of the machine.
//!
//! Its records are copied into memory when it is opened, and from then on the memory is what counts and the disk is its
//! copy (see [`sync`](super::sync)): a sector that cannot be read is no SIGBUS in the logger's loop, and a disk that
//! hangs delays nobody who logs.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::store::superblock::{self, BLOCK, HEAD, Names, State};
use super::store::{LARGEST, SEGMENT, SMALLEST, Store, is_free};
use crate::sys::shared::Shared;

/// Why something is no spool for us.
#[derive(Debug, Error)]
#[error("{}: {fault}", path.display())]
pub struct SpoolError {
    /// Device or file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: SpoolFault,
}

/// What is wrong with a spool.
#[derive(Debug, Error)]
pub enum SpoolFault {
    /// It begins otherwise.
    #[error("no spool")]
    Foreign,
    /// It begins as one.
    #[error("a spool whose first block is damaged")]
    Damaged,
    /// It was made on something larger.
    #[error("a spool of {told} bytes on a device of {there}")]
    Cut {
        /// Bytes by its first block.
        told: u64,
        /// Bytes of the device.
        there: u64,
    },
    /// Too small for any use.
    #[error("a spool of {0} bytes, and the smallest has {SMALLEST} for records")]
    Small(u64),
    /// A call that failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// An open one.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    disk: File,
    /// Of the memory that its segments take.
    length: NonZeroUsize,
    state: State,
}

/// What waits in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Records.
    pub count: u64,
    /// Number of the first, 0 if there is none.
    pub first: u64,
    /// The highest number that was found, of a record that waits or not.
    pub last: u64,
    /// Segments that cannot be read; what they held is lost.
    pub unreadable: u64,
}

impl Spool {
    /// Opens it for reading, and for writing if `writable`; a device as the only one who uses it.
    ///
    /// # Errors
    /// Names the path.
    pub fn open(path: &Path, writable: bool) -> Result<Self, SpoolError> {
        // Without O_CREAT, O_EXCL concerns block devices alone (open(2)).
        let flags = libc::O_CLOEXEC | if writable { libc::O_EXCL } else { 0 };
        let opened = OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path);
        let found = opened.map_err(SpoolFault::from).and_then(|disk| {
            let (length, state) = read_head(&disk)?;
            Ok(Self { path: path.to_owned(), disk, length, state })
        });
        found.map_err(|fault| SpoolError { path: path.to_owned(), fault })
    }

    /// Bytes of memory for its segments.
    pub fn length(&self) -> NonZeroUsize {
        self.length
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the records into memory of [`Spool::length`] bytes, zeroed until now.
    ///
    /// # Errors
    /// Those of the memory; what of the disk cannot be read is counted.
    pub fn load(&self, memory: &impl AsFd) -> io::Result<Waiting> {
        let mut unreadable = 0;
        let mut store = Shared::map(memory, self.length)?;
        let mut head = [0; BLOCK];
        for (at, segment) in (0..).zip(store.bytes_mut().chunks_exact_mut(SEGMENT)) {
            let place = place(at);
            // Most are free, and these are told by their first sector.
            let read = self
                .disk
                .read_exact_at(&mut head, place)
                .and_then(|()| if is_free(&head) { Ok(()) } else { self.disk.read_exact_at(segment, place) });
            if read.is_err() {
                unreadable += 1;
                segment.fill(0);
            }
        }
        let store = Store::open(store);
        Ok(Waiting { count: store.waiting(), first: store.first().unwrap_or(0), last: store.last(), unreadable })
    }

    /// The names for records, once it is known what waits: all of it is of earlier lives.
    pub fn names(&self, waiting: &Waiting) -> Names {
        let mut names = self.state.names.clone();
        if waiting.count == 0 {
            return Names::default();
        }
        names.close(waiting.first, waiting.last);
        names
    }

    /// How often it was used.
    pub fn uses(&self) -> u64 {
        self.state.uses
    }

    /// The descriptor.
    pub fn disk(&self) -> &File {
        &self.disk
    }
}

/// Where a segment lies on the disk.
pub fn place(index: u32) -> u64 {
    HEAD as u64 + u64::from(index) * SEGMENT as u64
}

/// Makes one of so many bytes, in which nothing waits; what was there is gone.
///
/// # Errors
/// Those of write(2) and fdatasync(2).
pub fn make(disk: &File, bytes: u64) -> Result<(), SpoolFault> {
    usable(bytes)?;
    let segments = (bytes - HEAD as u64) / SEGMENT as u64;
    // First, so that whatever fails leaves nothing that is half a spool.
    disk.write_all_at(&[0; HEAD], 0)?;
    for index in 0..segments as u32 {
        disk.write_all_at(&[0; BLOCK], place(index))?;
    }
    disk.sync_data()?;
    disk.write_all_at(&superblock::first_block(bytes), 0)?;
    Ok(disk.sync_data()?)
}

/// Bytes of a device or a file.
///
/// # Errors
/// Those of lseek(2).
pub fn size(mut disk: &File) -> io::Result<u64> {
    disk.seek(SeekFrom::End(0))
}

fn read_head(disk: &File) -> Result<(NonZeroUsize, State), SpoolFault> {
    let mut head = vec![0; HEAD];
    disk.read_exact_at(&mut head, 0).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => SpoolFault::Foreign,
        _ => SpoolFault::Io(error),
    })?;
    if !head.starts_with(superblock::MAGIC) {
        return Err(SpoolFault::Foreign);
    }
    let (told, there) = (superblock::bytes(&head).ok_or(SpoolFault::Damaged)?, size(disk)?);
    if told > there {
        return Err(SpoolFault::Cut { told, there });
    }
    Ok((usable(told)?, State::find(&head)))
}

/// Of so many bytes on a disk, those for records.
fn usable(bytes: u64) -> Result<NonZeroUsize, SpoolFault> {
    let room = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(HEAD).min(LARGEST);
    let room = room - room % SEGMENT;
    NonZeroUsize::new(room).filter(|room| room.get() >= SMALLEST).ok_or(SpoolFault::Small(bytes))
}
