//! Who is who in a view of the disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::OWNER;
use crate::sys::process::{self, Child};

/// A user namespace in which the disk's owner is `uid` to everybody else, and nobody else is anybody.
///
/// # Errors
/// Those of fork(2) and unshare(2): ENOSPC where the machine allows no user namespaces.
pub fn users(uid: u32) -> io::Result<OwnedFd> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // A namespace begins with a process, and lives on in the descriptor.
    let child = process::fork(|| {
        let made = unshare(CloneFlags::CLONE_NEWUSER);
        let errno = made.err().map_or(0, |errno| errno as i32);
        let _ = File::from(writer).write_all(&errno.to_ne_bytes());
        loop {
            nix::unistd::pause();
        }
    })?;
    let made = of(&child, &mut File::from(reader), uid);
    let _ = child.signal(Signal::SIGKILL);
    child.wait()?;
    made
}

fn of(child: &Child, report: &mut File, uid: u32) -> io::Result<OwnedFd> {
    let mut errno = [0; 4];
    report.read_exact(&mut errno)?;
    match i32::from_ne_bytes(errno) {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    let of = format!("/proc/{}", child.pid());
    let map = format!("{OWNER} {uid} 1");
    fs::write(format!("{of}/uid_map"), &map)?;
    fs::write(format!("{of}/gid_map"), &map)?;
    Ok(File::open(format!("{of}/ns/user"))?.into())
}
