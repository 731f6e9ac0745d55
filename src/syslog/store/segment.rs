//! One segment of a store: records of one line, one behind the other, each with a checksum.
//!
//! | bytes | what |
//! |---|---|
//! | 0-7 | order: grows with each segment that is begun, 0 for a free one |
//! | 8 | line |
//! | 12-15 | CRC-32 of those |
//! | 16-19 | end of what is done with |
//! | 24- | records |
//!
//! A record: length of its bytes (2), place of the host's name in them (1), 0 (1), CRC-32 (4), number (8), bytes. Its
//! checksum begins with the segment's order, so that what an earlier use has left behind is no record. All integers are
//! little-endian. Whoever finds a segment believes what the checksums say and nothing else: a writer may have been
//! killed between any two instructions, and a disk that lost its power has kept any of the pages.

use crc32fast::Hasher;

/// Bytes of a segment: what is lost at once when there is no room, and several of the longest records.
pub const SIZE: usize = 32 * 1024;
/// Where the first record stands.
pub const FIRST: usize = 24;
const HEAD: usize = 16;
const DONE: usize = 16;

/// A record as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Place in the order of collection.
    pub number: u64,
    /// Where the host's name belongs.
    pub host_at: u8,
    /// All but that.
    pub bytes: &'a [u8],
}

impl Stored<'_> {
    /// Bytes that it takes in a segment.
    pub fn length(&self) -> usize {
        HEAD + self.bytes.len()
    }

    fn checksum(&self, order: u64) -> u32 {
        let mut head = [0; 17];
        put(&mut head, 0, &order.to_le_bytes());
        put(&mut head, 8, &self.number.to_le_bytes());
        put(&mut head, 16, &[self.host_at]);
        let mut hasher = Hasher::new();
        // At once: each call costs as much as a hundred bytes do.
        hasher.update(&head);
        hasher.update(self.bytes);
        hasher.finalize()
    }
}

/// Makes an empty one.
pub fn begin(segment: &mut [u8], order: u64, line: u8) {
    put(segment, FIRST, &[0; HEAD]);
    set_done(segment, FIRST);
    put(segment, 8, &[line, 0, 0, 0]);
    put(segment, 12, &checksum(order, line).to_le_bytes());
    // Last: until then it is what it was, or free.
    put(segment, 0, &order.to_le_bytes());
}

/// Gives it back.
pub fn free(segment: &mut [u8]) {
    put(segment, 0, &[0; 8]);
}

/// Order and line, unless it is free or no segment.
pub fn head(segment: &[u8]) -> Option<(u64, u8)> {
    let order = u64::from_le_bytes(take(segment, 0)?);
    let [line, ..] = take::<4>(segment, 8)?;
    let told = u32::from_le_bytes(take(segment, 12)?);
    (order != 0 && told == checksum(order, line)).then_some((order, line))
}

/// Where the first record stands that is not done with, as far as that can be believed: a place where no record begins
/// is worth nothing, and the caller looks.
pub fn done(segment: &[u8]) -> usize {
    take(segment, DONE).map_or(FIRST, |bytes| u32::from_le_bytes(bytes) as usize)
}

/// Everything before this is done with.
pub fn set_done(segment: &mut [u8], end: usize) {
    put(segment, DONE, &(end as u32).to_le_bytes());
}

/// Writes a record at `at`. Returns where the next one goes; `None` if this one has no room.
pub fn append(segment: &mut [u8], at: usize, order: u64, record: &Stored<'_>) -> Option<usize> {
    let end = at.checked_add(record.length()).filter(|&end| end <= segment.len())?;
    let length = u16::try_from(record.bytes.len()).ok()?;
    put(segment, at + HEAD, record.bytes);
    put(segment, at + 8, &record.number.to_le_bytes());
    put(segment, at + 4, &record.checksum(order).to_le_bytes());
    put(segment, at + 2, &[record.host_at, 0]);
    put(segment, at, &length.to_le_bytes());
    Some(end)
}

/// The record at `at`, whose checksum was looked at before.
pub fn record(segment: &[u8], at: usize) -> Option<Stored<'_>> {
    let length = usize::from(u16::from_le_bytes(take(segment, at)?));
    let [host_at, _] = take(segment, at + 2)?;
    let number = u64::from_le_bytes(take(segment, at + 8)?);
    let bytes = segment.get(at + HEAD..at + HEAD + length).filter(|bytes| !bytes.is_empty())?;
    Some(Stored { number, host_at, bytes })
}

/// The record at `at`, if there is a whole one.
pub fn found(segment: &[u8], at: usize, order: u64) -> Option<Stored<'_>> {
    let told = u32::from_le_bytes(take(segment, at + 4)?);
    record(segment, at).filter(|record| record.checksum(order) == told)
}

fn checksum(order: u64, line: u8) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&order.to_le_bytes());
    hasher.update(&[line]);
    hasher.finalize()
}

pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(super) fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}
