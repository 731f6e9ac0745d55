//! Keeping a spool equal to the memory: a child of the logger writes what has changed, and waits for the disk.
//!
//! The logger's loop only says which segments have changed, at most once a second, and at once for an audit record. What
//! it says next waits for the child's answer, so a disk that hangs has one process waiting, and no record.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::spool::{Spool, place};
use super::store::superblock::{BLOCK, State};
use super::store::{Changes, SEGMENT, Store, is_free};
use crate::clock::Deadline;
use crate::launch;
use crate::protocol::channel::Channel;
use crate::sys::process::{self, Child};

/// Between two writes; each may be a whole turn of a disk, and as much as this is lost in a power cut.
const EACH: Duration = Duration::from_secs(1);
/// Of a disk that gives errors: each try has the kernel's own retries in it.
const AFTER_ERROR: Duration = Duration::from_secs(10);
/// A disk that takes longer hangs: a network's disk comes back after such a time, or after minutes.
const HANGS: Duration = Duration::from_secs(10);
/// For the last write of all, which is a second's changes. What takes longer is written yet, as the machine's own sync(2)
/// follows, but nobody can say so.
const LAST: Duration = Duration::from_millis(1500);

/// What the child is to write.
#[derive(Debug, Serialize, Deserialize)]
struct Write {
    /// Segments.
    segments: Vec<u32>,
    /// Where the body lies; it is on the disk before any of the segments is.
    state: Option<u64>,
}

/// What has come of it: an error in words.
type Answer = Result<(), String>;

/// The logger's end.
#[derive(Debug)]
pub struct Sync {
    channel: Channel,
    /// Ends when the channel does.
    _child: Child,
    state: State,
    state_is_new: bool,
    under_way: Option<UnderWay>,
    /// No write before.
    next: Instant,
    trouble: Trouble,
    path: String,
}

#[derive(Debug)]
struct UnderWay {
    since: Instant,
    segments: Vec<u32>,
    state: bool,
}

/// What was said of the disk last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Hangs,
    Fails,
    /// The child is gone.
    Over,
}

impl Sync {
    /// Starts the child, which copies from `memory` to the spool.
    ///
    /// # Errors
    /// As [`process::fork`].
    pub fn start(spool: &Spool, memory: &OwnedFd, state: State) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let (memory, disk) = (File::from(memory.try_clone()?), spool.disk().try_clone()?);
        let child = process::fork(|| {
            // Not the agent's channel above all, which would never end for the agent.
            let keep = [memory.as_raw_fd(), disk.as_raw_fd(), theirs.as_fd().as_raw_fd()];
            if launch::keep_only(&keep).is_err() {
                return 1;
            }
            serve(theirs, &memory, &disk)
        })?;
        Ok(Self {
            channel: ours,
            _child: child,
            state,
            state_is_new: true,
            under_way: None,
            next: Instant::now(),
            trouble: Trouble::None,
            path: spool.path().display().to_string(),
        })
    }

    /// The names or the uses have changed.
    pub fn set_state(&mut self, state: State) {
        self.state = state;
        self.state_is_new = true;
    }

    /// Hears the child, and tells it what is next. Returns what there is to say of the disk.
    pub fn step(&mut self, store: &mut Store) -> Option<String> {
        let said = self.hear(store);
        if self.due(store).is_some_and(Deadline::passed) {
            self.write(store);
        }
        said
    }

    /// When [`Sync::step`] has something to do, if nobody answers before.
    pub fn timer(&self, store: &Store) -> Option<Deadline> {
        let hangs = self.under_way.as_ref().filter(|_| self.trouble != Trouble::Hangs).map(|of| of.since + HANGS);
        hangs.map(at).or_else(|| self.due(store))
    }

    /// What poll(2) should wake for.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        (self.trouble != Trouble::Over).then(|| (self.channel.as_fd(), self.channel.interest()))
    }

    /// Writes what is left, and waits for it. Whether the disk holds everything now.
    pub fn finish(mut self, store: &mut Store) -> bool {
        let deadline = Deadline::after(LAST);
        while self.trouble != Trouble::Over && !deadline.passed() {
            self.hear(store);
            if self.under_way.is_none() {
                if store.changes() == Changes::None && !self.state_is_new {
                    return true;
                }
                if self.trouble == Trouble::Fails {
                    return false;
                }
                self.write(store);
            }
            let mut fds = [nix::poll::PollFd::new(self.channel.as_fd(), self.channel.interest())];
            // Interrupted: then the next call knows more.
            let _ = nix::poll::poll(&mut fds, deadline.poll_timeout());
        }
        false
    }

    /// When the next write is due, if there is something to write and nothing under way.
    fn due(&self, store: &Store) -> Option<Deadline> {
        if self.under_way.is_some() || self.trouble == Trouble::Over {
            return None;
        }
        match store.changes() {
            Changes::Audit if self.trouble == Trouble::None => Some(at(Instant::now())),
            Changes::None if !self.state_is_new => None,
            _ => Some(at(self.next)),
        }
    }

    fn write(&mut self, store: &mut Store) {
        let segments = store.take_changes();
        let (state, body) = if self.state_is_new {
            (Some(self.state.place() as u64), self.state.to_bytes())
        } else {
            (None, Vec::new())
        };
        self.under_way = Some(UnderWay { since: Instant::now(), segments, state: state.is_some() });
        self.state_is_new = false;
        let segments = self.under_way.as_ref().map(|of| of.segments.clone()).unwrap_or_default();
        // A child that is gone shows when it is heard.
        let _ = self.channel.send(&Write { segments, state }, &body);
    }

    fn hear(&mut self, store: &mut Store) -> Option<String> {
        let path = &self.path;
        let answer: Answer = match self.channel.try_recv() {
            Ok(Some((answer, _))) => answer,
            Ok(None) => {
                let hangs = self.under_way.as_ref().is_some_and(|of| of.since.elapsed() >= HANGS);
                if !hangs || self.trouble == Trouble::Hangs {
                    return None;
                }
                self.trouble = Trouble::Hangs;
                let limit = HANGS.as_secs();
                return Some(format!("the spool {path} gives no answer for {limit} s: records wait in memory alone"));
            }
            Err(_) if self.trouble == Trouble::Over => return None,
            Err(error) => {
                self.trouble = Trouble::Over;
                self.under_way = None;
                return Some(format!("nobody writes the spool {path} any more: {error}: records wait in memory alone"));
            }
        };
        let before = self.trouble;
        let UnderWay { since, segments, state } = self.under_way.take()?;
        match answer {
            Ok(()) => {
                self.next = since + EACH;
                self.trouble = Trouble::None;
                (before != Trouble::None).then(|| format!("the spool {path} is written again"))
            }
            Err(why) => {
                store.put_back(segments);
                self.state_is_new |= state;
                self.next = Instant::now() + AFTER_ERROR;
                self.trouble = Trouble::Fails;
                (before != Trouble::Fails)
                    .then(|| format!("the spool {path} cannot be written: {why}: records wait in memory alone"))
            }
        }
    }
}

fn at(time: Instant) -> Deadline {
    Deadline::after(time.saturating_duration_since(Instant::now()))
}

/// The child's life. It dies with the logger, whose end of the channel is the only one.
fn serve(mut channel: Channel, memory: &File, disk: &File) -> i32 {
    loop {
        match channel.recv::<Write>(Deadline::after(Duration::from_secs(3600))) {
            Ok(Some((write, body))) => {
                let answer: Answer = write_down(&write, &body, memory, disk).map_err(|error| error.to_string());
                if channel.send(&answer, b"").is_err() {
                    return 1;
                }
            }
            Ok(None) => {}
            Err(_) => return 0,
        }
    }
}

/// The memory is read as a file, as the logger may be writing to it: what is torn by that has a wrong checksum on the
/// disk, and is changed again for the logger.
fn write_down(write: &Write, state: &[u8], memory: &File, disk: &File) -> io::Result<()> {
    if let Some(place) = write.state {
        disk.write_all_at(state, place)?;
        disk.sync_data()?;
    }
    let mut segment = [0; SEGMENT];
    for &index in &write.segments {
        memory.read_exact_at(&mut segment, u64::from(index) * SEGMENT as u64)?;
        let free = is_free(&segment);
        let bytes = if free { segment.get(..BLOCK) } else { Some(&segment[..]) };
        disk.write_all_at(bytes.unwrap_or_default(), place(index))?;
    }
    disk.sync_data()
}
