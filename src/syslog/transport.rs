//! The way to the site's server: one connection at a time, made anew whenever it is lost.
//!
//! A record counts as delivered once the kernel has all of it. TCP alone does not tell more: what a server had
//! not read when it died is lost.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use thiserror::Error;

use super::backoff;
use super::window::Window;
use crate::clock::Deadline;
use crate::context::site::{Protocol, Syslog};
use crate::network::names;
use crate::network::resolver::{Lookup, ResolveError};

/// For a name: two rounds over three silent servers.
const RESOLVE: Duration = Duration::from_secs(10);
/// Three lost SYNs (1, 2, 4 s) and their answers; the next try may find another address.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that acknowledges nothing for so long is gone; the kernel's own patience is 15 minutes.
const USER_TIMEOUT_MILLIS: u32 = 30_000;
/// A packet a minute notices a dead server, or firewall state, before there is something to say.
const KEEPALIVE_SECS: u32 = 60;
/// What the kernel may hold unsent is lost if the server dies; 64 KiB (which it doubles) still fill a site's network.
const SEND_BUFFER: usize = 64 * 1024;
/// A connection that lived so long was a good one: the next failure is the first of a new outage.
const GOOD: Duration = Duration::from_secs(10);
/// Failures of one outage that are worth a line; by then the pause has grown to its longest.
const SAID: u32 = 8;

/// Why the server cannot be reached now.
#[derive(Debug, Error)]
enum TransportError {
    #[error("{0}")]
    Name(#[from] ResolveError),
    #[error("{address}: {step}: {source}")]
    Step { address: SocketAddr, step: &'static str, source: io::Error },
    #[error("{address}: no answer in {} s", CONNECT.as_secs())]
    Silent { address: SocketAddr },
    #[error("{address}: closed by the server")]
    Closed { address: SocketAddr },
}

/// The connection and what is under way on it.
#[derive(Debug)]
pub struct Transport {
    target: Option<Target>,
    link: Link,
    failures: u32,
    /// Records being sent.
    pub window: Window,
}

#[derive(Debug, PartialEq, Eq)]
struct Target {
    syslog: Syslog,
    nameservers: Vec<IpAddr>,
}

#[derive(Debug)]
enum Link {
    /// No server is known, or the last word was said.
    Down,
    /// Until the next try.
    Pausing(Deadline),
    /// A name is being looked up, anew at each try, as a site may move its server during a machine's life.
    Resolving(Box<Lookup>),
    Connecting {
        stream: TcpStream,
        address: SocketAddr,
        deadline: Deadline,
    },
    Tcp {
        stream: TcpStream,
        address: SocketAddr,
        good: Deadline,
    },
    Udp {
        socket: UdpSocket,
        address: SocketAddr,
        good: Deadline,
    },
    /// Our side is closed; the server's end-of-file says that it has read everything.
    Closing {
        stream: TcpStream,
    },
}

impl Transport {
    /// Without a server.
    pub fn new() -> Self {
        Self { target: None, link: Link::Down, failures: 0, window: Window::default() }
    }

    /// Where records go from now on.
    pub fn set_target(&mut self, syslog: Syslog, nameservers: Vec<IpAddr>) {
        let target = Target { syslog, nameservers };
        if self.target.as_ref() == Some(&target) {
            return;
        }
        self.target = Some(target);
        self.failures = 0;
        self.window.rewind();
        self.start();
    }

    /// Whether records can be handed over now.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Tcp { .. } | Link::Udp { .. })
    }

    /// What poll(2) should watch.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let writing = if self.window.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        match &self.link {
            Link::Down | Link::Pausing(_) => None,
            Link::Resolving(lookup) => lookup.fd().map(|fd| (fd, PollFlags::POLLIN)),
            Link::Connecting { stream, .. } => Some((stream.as_fd(), PollFlags::POLLOUT)),
            // Readable means the end of the connection: a syslog server has nothing to say.
            Link::Tcp { stream, .. } => Some((stream.as_fd(), PollFlags::POLLIN | writing)),
            Link::Udp { socket, .. } => Some((socket.as_fd(), writing)),
            Link::Closing { stream } => Some((stream.as_fd(), PollFlags::POLLIN)),
        }
    }

    /// When [`Transport::step`] has something to do without an event.
    pub fn timer(&self) -> Option<Deadline> {
        match &self.link {
            Link::Pausing(deadline) | Link::Connecting { deadline, .. } => Some(*deadline),
            Link::Resolving(lookup) => Some(Deadline::at(lookup.due())),
            _ => None,
        }
    }

    /// Does what is due: the next try, the end of a try, the end of a connection. `ready`: poll(2) saw an event.
    pub fn step(&mut self, ready: bool) {
        match &mut self.link {
            Link::Pausing(deadline) if deadline.passed() => self.start(),
            Link::Resolving(lookup) => match lookup.advance(Instant::now()) {
                Some(Ok(addresses)) => self.connect(&addresses),
                Some(Err(error)) => self.fail(&error.into()),
                None => {}
            },
            Link::Connecting { stream, address, deadline } => {
                let address = *address;
                match stream.take_error() {
                    Ok(None) if stream.peer_addr().is_ok() => self.connected(),
                    Ok(None) if deadline.passed() => self.fail(&TransportError::Silent { address }),
                    Ok(None) => {}
                    Ok(Some(source)) | Err(source) => self.fail(&step(address, "connect")(source)),
                }
            }
            Link::Tcp { stream, address, .. } if ready => {
                if let Err(error) = still_open(stream, *address) {
                    self.fail(&error);
                }
            }
            // ICMP's word on an earlier datagram.
            Link::Udp { socket, address, .. } if ready => {
                if let Ok(Some(source)) = socket.take_error() {
                    let error = step(*address, "send")(source);
                    self.fail(&error);
                }
            }
            Link::Closing { stream } if ready => match stream.read(&mut [0; 512]) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Ok(0) | Err(_) => self.link = Link::Down,
            },
            _ => {}
        }
    }

    /// Writes the window as far as the kernel takes it. Returns the number of records completed.
    pub fn write(&mut self) -> u64 {
        let mut done = 0;
        while !self.window.is_empty() {
            let result = match &mut self.link {
                // A server that was restarted has said so, but the first write after that would still succeed and
                // its records be lost (rsyslog #3929). So its word is looked for before each write.
                Link::Tcp { stream, address, .. } => still_open(stream, *address).and_then(|()| {
                    stream.write(self.window.stream()).map_err(step(*address, "write")).inspect(|&count| {
                        done += self.window.advance(count);
                    })
                }),
                Link::Udp { socket, address, .. } => {
                    let datagram = self.window.datagram().unwrap_or_default();
                    socket.send(datagram).map_err(step(*address, "send")).inspect(|_| {
                        self.window.advance_datagram();
                        done += 1;
                    })
                }
                _ => break,
            };
            match result {
                Ok(_) => {}
                Err(TransportError::Step { ref source, .. }) if source.kind() == ErrorKind::Interrupted => {}
                Err(TransportError::Step { ref source, .. }) if source.kind() == ErrorKind::WouldBlock => break,
                Err(error) => self.fail(&error),
            }
        }
        done
    }

    /// Tries at once instead of pausing on, and soon again: the time left is short.
    pub fn hurry(&mut self) {
        self.failures = 0;
        if matches!(self.link, Link::Pausing(_)) {
            self.start();
        }
    }

    /// Says that nothing more comes, and waits for the server to have read all: then [`Transport::is_over`].
    pub fn finish(&mut self) {
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Tcp { stream, .. } if stream.shutdown(Shutdown::Write).is_ok() => {
                self.link = Link::Closing { stream };
            }
            closing @ Link::Closing { .. } => self.link = closing,
            _ => {}
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        matches!(self.link, Link::Down)
    }

    fn start(&mut self) {
        let Some(Target { syslog, nameservers }) = &self.target else { return };
        match syslog.server.get().parse() {
            Ok(address) => self.connect(&[address]),
            Err(_) => {
                let now = Instant::now();
                let lookup = Lookup::new(syslog.server.get(), nameservers, &names::hosts(), now, now + RESOLVE);
                self.link = Link::Resolving(Box::new(lookup));
                // Its first step sends the question; there is no event to wait for before that.
                self.step(true);
            }
        }
    }

    /// Each try goes to the next address, so that one dead of two is no outage.
    fn connect(&mut self, addresses: &[IpAddr]) {
        let chosen = addresses.get(self.failures as usize % addresses.len().max(1));
        let Some((ip, Target { syslog, .. })) = chosen.zip(self.target.as_ref()) else { return };
        let address = SocketAddr::new(*ip, *syslog.port.get());
        let link = match syslog.protocol {
            Protocol::Tcp => connect_start(address)
                .map(|stream| Link::Connecting { stream, address, deadline: Deadline::after(CONNECT) })
                .map_err(io::Error::from),
            Protocol::Udp => udp(address).map(|socket| Link::Udp { socket, address, good: Deadline::after(GOOD) }),
        };
        match link {
            Ok(link) => self.link = link,
            Err(error) => self.fail(&step(address, "connect")(error)),
        }
    }

    fn connected(&mut self) {
        if let Link::Connecting { stream, address, .. } = std::mem::replace(&mut self.link, Link::Down) {
            if self.failures > 0 {
                log::info!("syslog server {address} reached after {} failures", self.failures);
            }
            self.link = Link::Tcp { stream, address, good: Deadline::after(GOOD) };
        }
    }

    fn fail(&mut self, error: &TransportError) {
        if let Link::Tcp { good, .. } | Link::Udp { good, .. } = self.link
            && good.passed()
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.window.rewind();
        let pause = backoff::pause(self.failures);
        if self.failures <= SAID {
            log::warn!("syslog server {error}; next try in {:.1} s", pause.as_secs_f32());
        }
        self.link = Link::Pausing(Deadline::after(pause));
    }
}

fn connect_start(address: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
    setsockopt(&socket, sockopt::TcpUserTimeout, &USER_TIMEOUT_MILLIS)?;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &KEEPALIVE_SECS)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &(KEEPALIVE_SECS / 4))?;
    // What is written is a batch already: waiting for more only delays it.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno),
    }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Looks for a pending end of the connection. Data of the server are thrown away: unread, they would turn our
/// close into a reset, and a reset destroys what the server has not read yet.
fn still_open(stream: &mut TcpStream, address: SocketAddr) -> Result<(), TransportError> {
    match stream.read(&mut [0; 512]) {
        Ok(0) => Err(TransportError::Closed { address }),
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        Err(source) => Err(TransportError::Step { address, step: "connection", source }),
    }
}

fn step(address: SocketAddr, step: &'static str) -> impl FnOnce(io::Error) -> TransportError {
    move |source| TransportError::Step { address, step, source }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::SystemTime;

    use super::super::parse::datagram;
    use super::super::record::{Record, render};
    use super::*;
    use crate::context::site::{Host, Port};

    fn until(transport: &mut Transport, done: impl Fn(&Transport) -> bool) {
        let deadline = Deadline::after(Duration::from_secs(10));
        while !done(transport) {
            assert!(!deadline.passed(), "{transport:?}");
            std::thread::sleep(Duration::from_millis(5));
            transport.step(true);
        }
    }

    #[test]
    fn the_first_record_after_a_restart_is_kept() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut transport = Transport::new();
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}}}");
        transport.set_target(serde_json::from_str(&syslog).unwrap(), Vec::new());
        until(&mut transport, Transport::is_up);
        // An end of the connection that nobody has looked at yet.
        drop(listener.accept().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let record = Record::trusted(datagram(b"app: first"), SystemTime::UNIX_EPOCH);
        transport.window.push(&render(&record, 1, &mut Vec::new()), "vm");
        assert_eq!((transport.write(), transport.is_up(), transport.window.len()), (0, false, 1));
        until(&mut transport, Transport::is_up);
        assert_eq!(transport.write(), 1);
        let (mut stream, _) = listener.accept().unwrap();
        transport.finish();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(" first"), "{text}");
        assert!(!transport.is_over());
        drop(stream);
        until(&mut transport, Transport::is_over);
    }

    #[test]
    fn a_server_that_hangs_up_again_and_again_is_asked_less_and_less() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut transport = Transport::new();
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}}}");
        transport.set_target(serde_json::from_str(&syslog).unwrap(), Vec::new());
        for failures in 1..=3 {
            until(&mut transport, Transport::is_up);
            drop(listener.accept().unwrap());
            until(&mut transport, |transport| !transport.is_up());
            assert_eq!(transport.failures, failures);
        }
    }

    #[test]
    fn a_name_is_looked_up_and_the_failure_named() {
        let mut transport = Transport::new();
        let server = Host::try_from("log.example.org".to_owned()).unwrap();
        let syslog = Syslog { server, port: Port::try_from(514).unwrap(), protocol: Protocol::Tcp };
        // An address of a test network that no route leads to, or that nobody answers from: the look-up stays open.
        transport.set_target(syslog.clone(), vec!["192.0.2.1".parse().unwrap()]);
        assert!(matches!(transport.link, Link::Resolving(_) | Link::Pausing(_)), "{transport:?}");
        transport.set_target(syslog, Vec::new());
        assert!(matches!(transport.link, Link::Pausing(_)), "{transport:?}");
        assert_eq!(transport.failures, 1);
    }
}
