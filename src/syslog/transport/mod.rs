//! The way to the site's servers: one connection at a time, made anew whenever it is lost.

mod backoff;
mod flight;
mod frame;
mod link;
mod tls;
mod tries;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use self::flight::Flight;
use self::link::{Link, Wire};
use self::tls::Tls;
use self::tries::{Found, Tries, TryError};
use super::store::Store;
use crate::agent::protocol::Credentials;
use crate::clock::Deadline;
use crate::context::syslog::{Format, Framing, Protocol, Syslog};

/// A connection that lived so long was a good one: the next failure is the first of a new outage.
const GOOD: Duration = Duration::from_secs(10);
/// For TLS to be agreed on.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Where records go, and how.
#[derive(Debug)]
pub struct Transport {
    format: Format,
    framing: Option<Framing>,
    tls: Option<Tls>,
    tries: Option<Tries>,
    /// Once it is there; `tries` rests meanwhile.
    connection: Option<Connection>,
    /// The last word was said and heard.
    over: bool,
}

#[derive(Debug)]
struct Connection {
    link: Link,
    flight: Flight,
    since: Instant,
    /// Our side is closed: the server's end-of-file says that it has read everything.
    finished: bool,
}

impl Transport {
    /// Without a server.
    pub fn new() -> Self {
        Self { format: Format::default(), framing: None, tls: None, tries: None, connection: None, over: false }
    }

    /// Where records go from now on.
    ///
    /// # Errors
    /// What of the credentials is of no use.
    pub fn set_target(
        &mut self,
        syslog: &Syslog,
        credentials: &Credentials,
        nameservers: Vec<IpAddr>,
    ) -> Result<(), tls::TlsError> {
        let protocol = syslog.protocol();
        self.tls = if protocol == Protocol::Tls { Some(Tls::new(syslog, credentials)?) } else { None };
        self.format = syslog.format;
        self.framing = (protocol != Protocol::Udp).then_some(syslog.framing);
        let servers = syslog.servers().map(|(host, port)| (host.clone(), port)).collect();
        self.tries = Some(Tries::new(servers, nameservers, protocol == Protocol::Udp));
        self.connection = None;
        Ok(())
    }

    /// Whether a server takes records now.
    pub fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.link.is_handshaking())
    }

    /// What poll(2) should watch.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.connection {
            Some(Connection { link, flight, .. }) => {
                let writing = link.wants_write() || !flight.rest().is_empty() && !link.is_handshaking();
                let writing = if writing { PollFlags::POLLOUT } else { PollFlags::empty() };
                // Readable means the end of the connection, or TLS: a syslog server has nothing to say.
                Some((link.fd(), PollFlags::POLLIN | writing))
            }
            None => self.tries.as_ref().and_then(Tries::interest),
        }
    }

    /// When [`Transport::step`] has something to do without an event.
    pub fn timer(&self) -> Option<Deadline> {
        match &self.connection {
            Some(connection) if connection.link.is_handshaking() => Some(Deadline::at(connection.since + HANDSHAKE)),
            Some(_) => None,
            None => self.tries.as_ref().and_then(Tries::timer),
        }
    }

    /// Does what is due: the next try, the end of a try, the end of a connection. Returns how many records are done with.
    pub fn step(&mut self, store: &mut Store) -> u64 {
        match &mut self.connection {
            None => {
                if let Some(found) = self.tries.as_mut().and_then(Tries::step) {
                    self.connect(found);
                }
                0
            }
            Some(_) => self.listen(store),
        }
    }

    fn connect(&mut self, found: Found) {
        let made = match (found, &self.tls) {
            (Found::Datagrams(socket, address), _) => Ok((address, Wire::Udp(socket))),
            (Found::Stream(stream, address, _), None) => Ok((address, Wire::Tcp(stream))),
            (Found::Stream(stream, address, host), Some(tls)) => match tls.begin(&host) {
                Ok(session) => Ok((address, Wire::Tls(stream, Box::new(session)))),
                Err(error) => Err(TryError::at(address, "TLS")(std::io::Error::other(error))),
            },
        };
        match made {
            Ok((address, wire)) => {
                let link = Link::new(address, wire);
                let flight = Flight::new(link.is_opaque());
                self.connection = Some(Connection { link, flight, since: Instant::now(), finished: false });
            }
            Err(error) => self.tries.iter_mut().for_each(|tries| tries.failed(&error)),
        }
    }

    /// Whether the server has ended the connection, and what that means for what is under way.
    fn listen(&mut self, store: &mut Store) -> u64 {
        let Some(connection) = &mut self.connection else { return 0 };
        let address = connection.link.address;
        let late = connection.link.is_handshaking() && connection.since.elapsed() >= HANDSHAKE;
        match connection.link.listen() {
            Ok(true) if late => self.lose(store, &TryError::Silent { address, limit: HANDSHAKE }),
            Ok(true) => 0,
            Ok(false) => {
                // In order: whoever closes with something unread sends a reset. So all that was acknowledged was read.
                let done = connection.flight.settle(connection.link.acknowledged());
                store.acknowledge(done);
                if connection.finished && store.waiting() == 0 {
                    self.over = true;
                    self.connection = None;
                    self.tries = None;
                    return done as u64;
                }
                done as u64 + self.lose(store, &TryError::Closed { address })
            }
            Err(source) => self.lose(store, &TryError::at(address, "connection")(source)),
        }
    }

    /// What is not done with is due again, on the next connection.
    fn lose(&mut self, store: &mut Store, error: &TryError) -> u64 {
        store.rewind();
        let good = self.connection.take().is_some_and(|connection| connection.since.elapsed() >= GOOD);
        if let Some(tries) = &mut self.tries {
            if good { tries.lost(error) } else { tries.failed(error) }
        }
        0
    }

    /// Hands records over as far as the kernel takes them. Returns how many are done with.
    pub fn forward(&mut self, store: &mut Store, host: &str) -> u64 {
        if !self.is_up() {
            return 0;
        }
        // A server that was restarted has said so, but the first write after that would still succeed and its records be
        // lost (rsyslog #3929). So its word is looked for before each write.
        let mut done = self.listen(store);
        while let Some(Connection { link, flight, .. }) = &mut self.connection {
            if flight.rest().is_empty() && !fill(flight, store, host, self.format, self.framing) {
                break;
            }
            match link.write(flight.rest()) {
                Ok(count) => flight.wrote(count, link.sent()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    let error = TryError::at(link.address, "write")(source);
                    return done + self.lose(store, &error);
                }
            }
        }
        if let Some(Connection { link, flight, .. }) = &mut self.connection {
            let acknowledged = link.acknowledged();
            let settled =
                if link.is_udp() { flight.settle(u64::MAX) } else { flight.acknowledge(acknowledged, Instant::now()) };
            store.acknowledge(settled);
            done += settled as u64;
        }
        done
    }

    /// Tries at once instead of pausing on, and soon again: the time left is short.
    pub fn hurry(&mut self) {
        self.tries.iter_mut().for_each(Tries::hurry);
    }

    /// Says that nothing more comes, and waits for the server to have read all: then [`Transport::is_over`].
    pub fn finish(&mut self) {
        match &mut self.connection {
            Some(connection) if connection.finished => {}
            // Nobody answers a datagram.
            Some(connection) if connection.link.is_udp() => self.over = true,
            Some(connection) => {
                connection.finished = true;
                // Its failure shows when the server is listened to.
                let _ = connection.link.finish();
            }
            None => self.over = true,
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.over || self.tries.is_none()
    }

    /// Records that the server's kernel has acknowledged and that would be sent again after a reset.
    pub fn in_tail(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.flight.in_tail() as u64)
    }
}

/// Makes the next bytes of records; whether there are any.
fn fill(flight: &mut Flight, store: &mut Store, host: &str, format: Format, framing: Option<Framing>) -> bool {
    while flight.has_room()
        && let Some(record) = store.send()
    {
        frame::push(flight.bytes(), &record, host, format, framing);
        flight.added();
        if framing.is_none() {
            break;
        }
    }
    !flight.rest().is_empty()
}
