//! Starting the other roles: forked from the agent, each with its own user and only its own descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::poll::PollFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::events::{Events, Stop};
use super::output::Source;
use crate::clock::Deadline;
use crate::protocol::channel::Channel;
use crate::starting::StageError;
use crate::sys::process::{self, Child};
use crate::{launch, logging};

/// Forks a role, which drops to `uid` for good and runs `body`; its log lines come back through the agent.
/// Of the agent's descriptors it keeps `keep` alone.
///
/// # Errors
/// Those of fork(2) and pipe2(2). A failed step of the drop ends the role before its body, with a log line.
pub fn start(
    events: &mut Events,
    name: &str,
    uid: u32,
    keep: &[RawFd],
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    fork(events, name, Some(uid), keep, body)
}

/// The same for one that stays root: it writes what the agent says to where only root may, and reads nothing foreign.
///
/// # Errors
/// As [`start`].
pub fn start_as_root(events: &mut Events, name: &str, keep: &[RawFd], body: impl FnOnce() -> i32) -> io::Result<Child> {
    fork(events, name, None, keep, body)
}

fn fork(
    events: &mut Events,
    name: &str,
    uid: Option<u32>,
    keep: &[RawFd],
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    let (reader, writer) = launch::output_pipe()?;
    let child = process::fork(|| {
        // Drops the agent's own outlets while their descriptors are still open.
        logging::to_agent();
        let ready = launch::detach(None, &writer)
            .and_then(|()| launch::keep_only(keep).map_err(StageError::at("close descriptors")))
            .and_then(|()| uid.map_or(Ok(()), launch::become_user));
        match ready {
            Ok(()) => body(),
            Err(error) => {
                log::error!("not started: {error}");
                125
            }
        }
    })?;
    let source = Source { tag: name.to_owned(), pid: child.pid().as_raw() as u32, job: None, show: true };
    events.add_output(reader, source);
    Ok(child)
}

/// Runs `question` in a root child of its own and returns its answer; `None` if none came in time.
/// For whatever may hang in the kernel, or reads what others wrote.
///
/// # Errors
/// [`Stop`]; the child is killed then, as at the deadline.
pub fn ask<T: Serialize + DeserializeOwned>(
    events: &mut Events,
    deadline: Deadline,
    question: impl FnOnce() -> T,
) -> Result<Option<T>, Stop> {
    let asked = Channel::pair().and_then(|(ours, mut theirs)| {
        let child = process::fork(|| {
            let answer = question();
            i32::from(theirs.send(&answer, &[]).is_err())
        })?;
        Ok((ours, child))
    });
    let (mut channel, child) = match asked {
        Ok(pair) => pair,
        Err(error) => {
            log::error!("cannot start a helper: {error}");
            return Ok(None);
        }
    };
    let answer = loop {
        match channel.try_recv::<T>() {
            Ok(Some((answer, _))) => break Ok(Some(answer)),
            Ok(None) => {}
            Err(error) => {
                log::error!("a helper gave no answer: {error}");
                break Ok(None);
            }
        }
        match events.wait(&[(channel.as_fd(), PollFlags::POLLIN)], deadline) {
            Ok(true) => {}
            Ok(false) => break Ok(None),
            Err(stop) => break Err(stop),
        }
    };
    events.bury(&child);
    answer
}

/// The descriptor of anything that has one, for `keep`.
pub fn fd(of: &impl AsFd) -> RawFd {
    of.as_fd().as_raw_fd()
}
