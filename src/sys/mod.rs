//! The only unsafe code: system calls that no safe wrapper offers, each a few lines and a type.
#![allow(unsafe_code)]

pub mod apart;
pub mod block;
pub mod cdrom;
pub mod credentials;
pub mod grow;
pub mod idmap;
pub mod inode;
pub mod landlock;
pub mod local_time;
pub mod module;
pub mod mount;
pub mod outq;
pub mod packet;
pub mod pidfd;
pub mod priority;
pub mod process;
pub mod random;
pub mod seccomp;
pub mod shared;
pub mod signals;
pub mod stamped;
pub mod synced;
