//! From a list of servers to a connection: names, addresses, pauses.
//!
//! The servers are tried in their order, each at all its addresses, and its name is looked up anew each time: a site may
//! move its server during a machine's life. When none of them answers, all pause, longer each time.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::error::TryError;
use super::{backoff, socket};
use crate::clock::Deadline;
use crate::context::site::Host;
use crate::network::names;
use crate::network::resolver::Lookup;

/// For a name: two rounds over three silent servers.
const RESOLVE: Duration = Duration::from_secs(10);
/// Three lost SYNs (1, 2, 4 s) and their answers; the next try may find another address.
const CONNECT: Duration = Duration::from_secs(10);
/// More than anybody gives one name.
const ADDRESSES: usize = 8;
/// Either of the two when the machine ends: the other servers are to have their turn within the time that is left.
const HURRY: Duration = Duration::from_secs(3);
/// A connection that lived so long was a good one: the next failure is the first of a new outage.
const GOOD: Duration = Duration::from_secs(10);
/// One that took records for so long was no refusal: the pause grows no longer. A proxy without its server is quicker.
const FAIR: Duration = Duration::from_secs(1);
/// Failures of one outage that are worth a line; by then the pause has grown to its longest.
const SAID: u32 = 8;

/// What a try has led to.
#[derive(Debug)]
pub enum Found {
    /// A connection, and the name or address that was asked for.
    Stream(TcpStream, SocketAddr, Host),
    /// The same for datagrams.
    Datagrams(UdpSocket, SocketAddr),
}

/// The list, and where in it we are.
#[derive(Debug)]
pub struct Tries {
    servers: Vec<(Host, u16)>,
    nameservers: Vec<IpAddr>,
    udp: bool,
    /// The server that is tried, and which of its addresses are left.
    turn: usize,
    addresses: VecDeque<IpAddr>,
    /// Its IPv6 addresses are not asked for yet.
    has_six: bool,
    state: State,
    /// Rounds without a good connection, and lines about them.
    failures: u32,
    said: u32,
    hurried: bool,
}

#[derive(Debug)]
enum State {
    /// A connection is there, or none is wanted.
    Idle,
    /// Until the next round.
    Pausing(Deadline),
    /// The server whose turn it is.
    Server,
    Resolving(Box<Lookup>),
    /// Its next address.
    Address,
    Connecting {
        stream: TcpStream,
        address: SocketAddr,
        deadline: Deadline,
    },
}

impl Tries {
    /// Tries these at once.
    pub fn new(servers: Vec<(Host, u16)>, nameservers: Vec<IpAddr>, udp: bool) -> Self {
        Self {
            servers,
            nameservers,
            udp,
            turn: 0,
            addresses: VecDeque::new(),
            has_six: false,
            state: State::Server,
            failures: 0,
            said: 0,
            hurried: false,
        }
    }

    /// Whether there is nobody else to turn to.
    pub fn has_one_server(&self) -> bool {
        self.servers.len() == 1
    }

    /// What poll(2) should watch.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Resolving(lookup) => lookup.fd().map(|fd| (fd, PollFlags::POLLIN)),
            State::Connecting { stream, .. } => Some((stream.as_fd(), PollFlags::POLLOUT)),
            _ => None,
        }
    }

    /// When [`Tries::step`] has something to do without an event.
    pub fn timer(&self) -> Option<Deadline> {
        match &self.state {
            State::Pausing(deadline) | State::Connecting { deadline, .. } => Some(*deadline),
            State::Resolving(lookup) => Some(Deadline::at(lookup.due())),
            State::Server | State::Address => Some(Deadline::after(Duration::ZERO)),
            State::Idle => None,
        }
    }

    /// Does what is due.
    pub fn step(&mut self) -> Option<Found> {
        loop {
            match &mut self.state {
                State::Idle => return None,
                State::Pausing(deadline) if deadline.passed() => self.state = State::Server,
                State::Pausing(_) => return None,
                State::Server => self.begin(),
                State::Resolving(lookup) => match lookup.advance(Instant::now())? {
                    Ok(addresses) => self.at_addresses(addresses),
                    // Most names have none of the other family.
                    Err(_) if !self.has_six => self.next_server(),
                    Err(error) => {
                        self.has_six = false;
                        self.failed(&error.into());
                    }
                },
                State::Address => match self.connect() {
                    Ok(found @ Some(_)) => return found,
                    Ok(None) => {}
                    Err(error) => self.failed(&error),
                },
                State::Connecting { stream, address, deadline } => {
                    let address = *address;
                    match stream.take_error() {
                        Ok(None) if stream.peer_addr().is_ok() => return self.connected(),
                        Ok(None) if deadline.passed() => {
                            let limit = self.limit(CONNECT);
                            self.failed(&TryError::Silent { address, limit });
                        }
                        Ok(None) => return None,
                        Ok(Some(source)) | Err(source) => self.failed(&TryError::at(address, "connect")(source)),
                    }
                }
            }
        }
    }

    fn begin(&mut self) {
        let Some((host, _)) = self.servers.get(self.turn) else {
            self.state = State::Idle;
            return;
        };
        self.has_six = false;
        match host.get().parse() {
            Ok(address) => self.at_addresses(vec![address]),
            Err(_) => self.look_up(host.get().to_owned(), false),
        }
    }

    fn look_up(&mut self, name: String, six: bool) {
        let now = Instant::now();
        let deadline = now + self.limit(RESOLVE);
        let lookup = Lookup::new(&name, &self.nameservers, &names::hosts(), now, deadline);
        self.has_six = !six;
        self.state = State::Resolving(Box::new(if six { lookup.six() } else { lookup }));
    }

    fn at_addresses(&mut self, addresses: Vec<IpAddr>) {
        // Of a name that has both, the resolver tells the older ones.
        self.has_six &= addresses.iter().all(IpAddr::is_ipv4);
        self.addresses = addresses.into_iter().take(ADDRESSES).collect();
        self.state = State::Address;
    }

    fn limit(&self, usual: Duration) -> Duration {
        if self.hurried { HURRY } else { usual }
    }

    fn connect(&mut self) -> Result<Option<Found>, TryError> {
        let server = self.servers.get(self.turn);
        let Some((ip, (_, port))) = self.addresses.pop_front().zip(server) else {
            self.next_address();
            return Ok(None);
        };
        let address = SocketAddr::new(ip, *port);
        if self.udp {
            let socket = socket::udp(address).map_err(TryError::at(address, "connect"))?;
            self.state = State::Idle;
            return Ok(Some(Found::Datagrams(socket, address)));
        }
        let stream = socket::tcp(address).map_err(io::Error::from).map_err(TryError::at(address, "connect"))?;
        self.state = State::Connecting { stream, address, deadline: Deadline::after(self.limit(CONNECT)) };
        Ok(None)
    }

    fn connected(&mut self) -> Option<Found> {
        let State::Connecting { stream, address, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return None;
        };
        let (host, _) = self.servers.get(self.turn)?;
        Some(Found::Stream(stream, address, host.clone()))
    }

    /// A try has led to nothing: the next address or server.
    pub fn failed(&mut self, error: &TryError) {
        self.say(error);
        self.next_address();
    }

    /// A connection takes records.
    pub fn reached(&self, address: SocketAddr) {
        if (1..=SAID).contains(&self.said) {
            log::info!("syslog server {address} reached");
        }
    }

    /// A connection is lost that took records for so long, or never did. After a good one from the first server on, soon;
    /// else the next one has its turn. It has it also after a server that did not answer or had no room for long: that one
    /// would take the next connection, too, without a process of it reading anything.
    pub fn lost(&mut self, error: &TryError, lasted: Option<Duration>) {
        let lasted = lasted.unwrap_or_default();
        if lasted >= FAIR {
            self.failures = 0;
        }
        let deaf = matches!(error, TryError::Step { source, .. } if source.kind() == io::ErrorKind::TimedOut);
        if lasted >= GOOD {
            self.said = 0;
        }
        if lasted < GOOD || deaf {
            return self.failed(error);
        }
        self.say(error);
        self.pause();
    }

    /// From the first server on, at once.
    pub fn again(&mut self) {
        self.turn = 0;
        self.addresses.clear();
        self.state = State::Server;
    }

    /// Tries at once instead of pausing on, and soon again: the time left is short.
    pub fn hurry(&mut self) {
        self.failures = 0;
        self.hurried = true;
        match &mut self.state {
            State::Pausing(_) => self.state = State::Server,
            State::Connecting { deadline, .. } => *deadline = Deadline::after(HURRY).min(*deadline),
            _ => {}
        }
    }

    fn next_address(&mut self) {
        self.state = State::Address;
        if !self.addresses.is_empty() {
            return;
        }
        match self.servers.get(self.turn) {
            Some((host, _)) if self.has_six => self.look_up(host.get().to_owned(), true),
            _ => self.next_server(),
        }
    }

    fn next_server(&mut self) {
        self.turn += 1;
        self.state = State::Server;
        if self.turn >= self.servers.len() {
            self.pause();
        }
    }

    fn pause(&mut self) {
        self.turn = 0;
        self.addresses.clear();
        self.failures = self.failures.saturating_add(1);
        self.state = State::Pausing(Deadline::after(backoff::pause(self.failures)));
    }

    fn say(&mut self, error: &TryError) {
        self.said = self.said.saturating_add(1);
        if self.said <= SAID {
            log::warn!("syslog server {error}");
        }
    }
}

#[cfg(test)]
mod tests;
