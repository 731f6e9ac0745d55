//! The way to the site's servers: one connection at a time, made anew whenever it is lost.

mod backoff;
mod connection;
mod error;
mod flight;
mod frame;
mod link;
mod socket;
pub mod tls;
mod tries;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use nix::poll::PollFlags;

use self::connection::{Connection, Form};
use self::error::TryError;
use self::link::{Link, Wire};
use self::tls::{Tls, TlsError};
use self::tries::{Found, Tries};
use super::store::Store;
use super::store::superblock::Names;
use crate::clock::Deadline;
use crate::context::syslog::{Protocol, Syslog};
use crate::protocol::Credentials;

/// Where records go, and how.
#[derive(Debug)]
pub struct Transport {
    form: Form,
    tls: Option<Tls>,
    tries: Option<Tries>,
    /// Once it is there; `tries` rests meanwhile.
    connection: Option<Connection>,
    /// See [`Connection::next_room`].
    room: u64,
    /// The last word was said and heard.
    over: bool,
}

impl Transport {
    /// Without a server.
    pub fn new() -> Self {
        Self { form: Form::default(), tls: None, tries: None, connection: None, room: u64::MAX, over: false }
    }

    /// Where records go from now on, those that are under way to somebody else first.
    ///
    /// # Errors
    /// What of the credentials is of no use; then records go nowhere.
    pub fn set_target(
        &mut self,
        store: &mut Store,
        syslog: &Syslog,
        credentials: &Credentials,
        nameservers: Vec<IpAddr>,
    ) -> Result<(), TlsError> {
        store.rewind();
        *self = Self::new();
        let protocol = syslog.protocol();
        let udp = protocol == Protocol::Udp;
        if protocol == Protocol::Tls {
            self.tls = Some(Tls::new(syslog, credentials)?);
        }
        self.form = Form { format: syslog.format, framing: (!udp).then_some(syslog.framing) };
        let servers = syslog.servers().map(|(host, port)| (host.clone(), port)).collect();
        self.tries = Some(Tries::new(servers, nameservers, udp));
        Ok(())
    }

    /// Whether a server takes records now. Of a server by UDP nothing is known, so it always does.
    pub fn is_up(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.lasted().is_some())
    }

    /// What poll(2) should watch.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.connection {
            Some(connection) => Some(connection.interest()),
            None => self.tries.as_ref().and_then(Tries::interest),
        }
    }

    /// When [`Transport::step`] has something to do without an event.
    pub fn timer(&self) -> Option<Deadline> {
        match &self.connection {
            Some(connection) => connection.timer(),
            None => self.tries.as_ref().and_then(Tries::timer),
        }
    }

    /// Does what is due: the next try, the end of a connection, records as far as the kernel takes them. Returns how many
    /// are done with.
    pub fn step(&mut self, store: &mut Store, names: &Names) -> u64 {
        if self.connection.is_none()
            && let Some(found) = self.tries.as_mut().and_then(Tries::step)
        {
            self.connect(found);
        }
        // A server that was restarted has said so, but the first write after that would still succeed and its records be
        // lost (rsyslog #3929). So its word is looked for before each write.
        let done = self.listen(store);
        done + self.forward(store, names)
    }

    fn connect(&mut self, found: Found) {
        let Some(tries) = &mut self.tries else { return };
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
                self.connection = Some(Connection::new(link, tries.has_one_server(), self.room));
            }
            Err(error) => tries.failed(&error),
        }
    }

    /// Whether the server has ended the connection, and what that means for what is under way.
    fn listen(&mut self, store: &mut Store) -> u64 {
        let Some(connection) = &mut self.connection else { return 0 };
        match connection.listen() {
            Ok(true) => 0,
            Ok(false) => {
                let done = connection.settle_all(store);
                if !connection.is_finished() {
                    let error = TryError::Closed { address: connection.address() };
                    self.lose(store, &error);
                } else if store.waiting() == 0 {
                    *self = Self { over: true, ..Self::new() };
                } else {
                    // It has done what it was asked for, and there is more by now.
                    store.rewind();
                    self.connection = None;
                    self.tries.iter_mut().for_each(Tries::again);
                }
                done
            }
            Err(error) => {
                self.lose(store, &error);
                0
            }
        }
    }

    /// What is not done with is due again, on the next connection.
    fn lose(&mut self, store: &mut Store, error: &TryError) {
        store.rewind();
        let (Some(connection), Some(tries)) = (self.connection.take(), &mut self.tries) else { return };
        self.room = connection.next_room();
        tries.lost(error, connection.lasted());
    }

    /// Hands records over. Returns how many are done with.
    fn forward(&mut self, store: &mut Store, names: &Names) -> u64 {
        if let (Some(connection), Some(tries)) = (&mut self.connection, &self.tries)
            && connection.comes_up()
        {
            tries.reached(connection.address());
        }
        let is_up = self.is_up();
        let Some(connection) = self.connection.as_mut().filter(|_| is_up) else { return 0 };
        let done = connection.settle(store);
        if let Err(error) = connection.write(store, names, self.form) {
            self.lose(store, &error);
        }
        done
    }

    /// Tries at once instead of pausing on, and soon again: the time left is short.
    pub fn hurry(&mut self) {
        self.tries.iter_mut().for_each(Tries::hurry);
    }

    /// Says that nothing more comes, and waits for the server to have read all: then [`Transport::is_over`]. Called when
    /// all is sent, and again as long as that takes.
    pub fn finish(&mut self) {
        match &mut self.connection {
            Some(connection) => self.over |= connection.finish(),
            None => self.over = true,
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.over || self.tries.is_none()
    }

    /// Records that the server's kernel has acknowledged and that would be sent again after a reset.
    pub fn in_tail(&self) -> u64 {
        self.connection.as_ref().map_or(0, Connection::in_tail)
    }
}
