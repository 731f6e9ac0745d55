//! The user's disk: what a Class 2 user changes and wants to find again in the next machine.
//!
//! A site attaches it, and the image says whether it takes one. It is data of a stranger: nothing on it is read as
//! configuration or run by root, it is mounted where root alone gets to it, and a job sees it as its home through a
//! view in which the disk's owner is the job's user ([`UserDisk::view_for`]). What belongs to others on the disk
//! belongs to nobody in the job.

pub mod find;
mod idmap;
pub mod mounted;
pub mod policy;
mod superblock;
pub mod tools;

pub use self::mounted::UserDisk;

/// The label that makes a file system a user's disk.
pub const LABEL: &str = "CTXUSER";
/// Who owns what the user writes, on the disk: the first account of most systems, so that the user can work with it
/// elsewhere.
pub const OWNER: u32 = 1000;
