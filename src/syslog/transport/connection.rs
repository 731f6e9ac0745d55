//! One connection and what is under way on it.

use super::super::store::superblock::Names;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::error::TryError;
use super::flight::Flight;
use super::frame;
use super::link::Link;
use crate::clock::Deadline;
use crate::context::syslog::{Format, Framing};
use crate::syslog::store::Store;

/// For TLS to be agreed on.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// A server that acknowledges nothing for so long is gone; the kernel's own patience is 15 minutes. The kernel means by it
/// one that acknowledges and has no room, too.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes in one turn of the loop: the sources have theirs after a few milliseconds, however fast the server is.
const TURN: u64 = 1024 * 1024;
/// A backlog goes out in bursts that fit into a server's usual buffer of 208 KiB, some 8 MB a second: nothing else slows
/// datagrams down, and what a buffer has no room for is lost without a word.
const BURST: u64 = 16 * 1024;
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// Bytes that are always sent, however little a server takes before it resets the connection: two of the longest records.
const LEAST_ROOM: u64 = 16 * 1024;

/// How a record is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    pub format: Format,
    /// None for datagrams.
    pub framing: Option<Framing>,
}

/// A connection, from the moment on at which it is there.
#[derive(Debug)]
pub struct Connection {
    link: Link,
    flight: Flight,
    made: Instant,
    /// Since when it takes records.
    up: Option<Instant>,
    /// Our side is closed: the server's end-of-file says that it has read everything.
    finished: bool,
    /// When the next burst of datagrams may go.
    pause: Option<Deadline>,
    /// There is no other server, so this one is given all the time that it wants.
    alone: bool,
    stalled: bool,
    /// Bytes that may be under way and not done with.
    room: u64,
    /// Whether any record was done with.
    useful: bool,
}

impl Connection {
    /// Without records; so many bytes of them may be under way at a time.
    pub fn new(link: Link, alone: bool, room: u64) -> Self {
        Self {
            flight: Flight::new(link.is_opaque()),
            link,
            made: Instant::now(),
            up: None,
            finished: false,
            pause: None,
            alone,
            stalled: false,
            room,
            useful: false,
        }
    }

    /// Bytes for the next one. A server that resets each connection before its tail has aged would be sent the same
    /// records for ever; so it is given less at a time until some of them last.
    pub fn next_room(&self) -> u64 {
        let under_way = self.link.sent() - self.flight.settled().min(self.link.sent());
        if self.useful || under_way == 0 { self.room } else { (under_way / 2).clamp(LEAST_ROOM, self.room) }
    }

    /// Its other end.
    pub fn address(&self) -> SocketAddr {
        self.link.address
    }

    /// How long it has taken records, if it ever did.
    pub fn lasted(&self) -> Option<Duration> {
        self.up.map(|up| up.elapsed())
    }

    /// What poll(2) watches.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let due = self.up.is_some() && !self.flight.rest().is_empty() && self.pause.is_none();
        let writing = if due || self.link.wants_write() { PollFlags::POLLOUT } else { PollFlags::empty() };
        // Readable means the end of the connection, or TLS: a syslog server has nothing to say.
        (self.link.fd(), PollFlags::POLLIN | writing)
    }

    /// When there is something to do without an event.
    pub fn timer(&self) -> Option<Deadline> {
        match self.up {
            None => Some(Deadline::at(self.made + HANDSHAKE)),
            Some(_) => [self.pause, self.flight.timer()].into_iter().flatten().min(),
        }
    }

    /// Whether it takes records from now on, and did not before.
    pub fn comes_up(&mut self) -> bool {
        let comes = self.up.is_none() && !self.link.is_handshaking();
        if comes {
            self.up = Some(Instant::now());
        }
        comes
    }

    /// Hears the server out: `true` while the connection stands.
    ///
    /// # Errors
    /// How it has failed.
    pub fn listen(&mut self) -> Result<bool, TryError> {
        let address = self.link.address;
        let step = if self.up.is_some() { "connection" } else { "TLS" };
        let open = self.link.listen().map_err(TryError::at(address, step))?;
        if open && self.link.is_handshaking() && self.made.elapsed() >= HANDSHAKE {
            return Err(TryError::Silent { address, limit: HANDSHAKE });
        }
        // A server that leaves with something unread says its last word by TLS first and resets then. So that word alone
        // settles nothing, except behind ours: then its end is waited for.
        if open && self.link.is_dismissed() && !self.finished {
            return Err(TryError::Closed { address });
        }
        Ok(open)
    }

    /// Hands records over as far as the kernel takes them.
    ///
    /// # Errors
    /// How the connection has failed.
    pub fn write(&mut self, store: &mut Store, names: &Names, form: Form) -> Result<(), TryError> {
        if self.finished || self.pause.is_some_and(|pause| !pause.passed()) {
            return Ok(());
        }
        self.pause = None;
        let enough = self.link.sent() + if self.link.is_udp() { BURST } else { TURN };
        let full = self.flight.settled().saturating_add(self.room);
        while !self.flight.rest().is_empty() || self.link.sent() < full && fill(&mut self.flight, store, names, form) {
            if self.link.sent() >= enough {
                self.pause = self.link.is_udp().then(|| Deadline::after(BURST_PAUSE));
                break;
            }
            match self.link.write(self.flight.rest()) {
                Ok(count) => self.flight.wrote(count, self.link.sent()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(TryError::at(self.link.address, "write")(source)),
            }
        }
        Ok(())
    }

    /// Looks how far the server has come. Returns how many records are done with.
    pub fn settle(&mut self, store: &mut Store) -> u64 {
        if self.flight.is_empty() {
            return 0;
        }
        let stalled = self.link.is_stalled();
        if stalled {
            self.flight.hold();
        }
        // A server that has no room answers when it is asked for some: it is alive (RFC 1122, 4.2.2.17). To leave it
        // would bring its records to nobody else, and to itself once more.
        if self.alone && stalled != self.stalled {
            self.link.set_patience((!stalled).then_some(PATIENCE));
        }
        self.stalled = stalled;
        let done = self.flight.acknowledge(self.link.acknowledged(), Instant::now());
        if done > 0 {
            self.useful = true;
            self.room = self.room.saturating_mul(2);
        }
        store.acknowledge(done);
        done as u64
    }

    /// The server has ended it in order: whoever closes with something unread sends a reset, so all that was acknowledged
    /// was read. Returns how many records are done with.
    pub fn settle_all(&mut self, store: &mut Store) -> u64 {
        let done = self.flight.settle(self.link.acknowledged());
        self.useful |= done > 0;
        store.acknowledge(done);
        done as u64
    }

    /// Says that nothing more comes, if all that came before was taken. Returns whether nothing is to be waited for.
    pub fn finish(&mut self) -> bool {
        let over = self.up.is_none() || self.link.is_udp();
        let written = self.flight.rest().is_empty();
        if written && !over && !self.finished {
            self.finished = true;
            // Its failure shows when the server is listened to.
            let _: io::Result<()> = self.link.finish();
        }
        // No turn of the loop comes any more that would count the last burst of datagrams.
        self.flight.reach(self.link.acknowledged());
        written && over
    }

    /// Whether it is only the server's end-of-file that is awaited.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Records that the server's kernel has acknowledged and that would be sent again after a reset.
    pub fn in_tail(&self) -> u64 {
        self.flight.in_tail() as u64
    }
}

/// Makes the next bytes of records; whether there are any.
fn fill(flight: &mut Flight, store: &mut Store, names: &Names, form: Form) -> bool {
    while flight.has_room()
        && let Some(record) = store.send()
    {
        frame::push(flight.bytes(), &record, names.of(record.number), form.format, form.framing);
        flight.added();
        if form.framing.is_none() {
            break;
        }
    }
    !flight.rest().is_empty()
}
