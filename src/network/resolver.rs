//! A small stub resolver with a deadline of its own: hosts file, then DNS over UDP.
//!
//! libc's may load a module of the image's nsswitch.conf into a static program, and waits 10 s for a silent server.
//!
//! Limits: names are taken as they are (no search list), no TCP, no DNSSEC, nothing is remembered. IPv4 addresses
//! are asked for first, IPv6 ones only where there are none.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use smoltcp::wire::DnsQueryType;
use thiserror::Error;

use super::dns::{self, Answer};
use super::names;
use crate::clock::Deadline;
use crate::sys::random;

/// How long one server is waited for. A busy server of a site answers within a second; two tries must fit into
/// the few seconds that a caller gives.
const PATIENCE: Duration = Duration::from_millis(1500);
const DNS_PORT: u16 = 53;

/// Why a name has no address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    /// Not a name at all.
    #[error("{name:?} is not a host name")]
    BadName {
        /// As it was given.
        name: String,
    },
    /// Nobody to ask.
    #[error("{name}: not in the hosts file, and no name server is known")]
    NoServer {
        /// What was looked for.
        name: String,
    },
    /// A server says that the name does not exist (NXDOMAIN).
    #[error("{name}: no such name, says {server}")]
    NoSuchName {
        /// What was looked for.
        name: String,
        /// Who says so.
        server: IpAddr,
    },
    /// The name exists without an address.
    #[error("{name}: has no address, says {server}")]
    NoAddress {
        /// What was looked for.
        name: String,
        /// Who says so.
        server: IpAddr,
    },
    /// Every server that answered failed.
    #[error("{name}: name server {server}: {why}")]
    Failed {
        /// What was looked for.
        name: String,
        /// The last one that failed.
        server: IpAddr,
        /// `SERVFAIL`, or the error of the socket.
        why: String,
    },
    /// Nobody answered before the deadline.
    #[error("{name}: no answer from {}", list(.servers))]
    Silence {
        /// What was looked for.
        name: String,
        /// Who was asked.
        servers: Vec<IpAddr>,
    },
}

fn list(servers: &[IpAddr]) -> String {
    servers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

/// One look-up, for a poll loop: wait for [`Lookup::fd`] to be readable or for [`Lookup::due`], then call
/// [`Lookup::advance`], until that gives a result. The first call sends the first question.
#[derive(Debug)]
pub struct Lookup {
    name: String,
    encoded: Vec<u8>,
    servers: Vec<SocketAddr>,
    deadline: Instant,
    kind: DnsQueryType,
    id: u16,
    socket: Option<UdpSocket>,
    /// Number of the try; server `turn` modulo their number.
    turn: usize,
    /// When the present server has been waited for long enough.
    due: Instant,
    /// What went wrong on this side of the socket.
    trouble: Option<String>,
    failure: Option<ResolveError>,
    /// Tries that failed without a silent one between them.
    failures: usize,
    /// Known from the start.
    known: Option<Result<Vec<IpAddr>, ResolveError>>,
}

impl Lookup {
    /// A look-up of `name` that ends at `deadline`; `hosts` is the text of the hosts file.
    pub fn new(name: &str, nameservers: &[IpAddr], hosts: &str, now: Instant, deadline: Instant) -> Self {
        let servers = nameservers.iter().map(|server| SocketAddr::new(*server, DNS_PORT)).collect();
        Self::with_servers(name, servers, hosts, now, deadline)
    }

    fn with_servers(name: &str, servers: Vec<SocketAddr>, hosts: &str, now: Instant, deadline: Instant) -> Self {
        let known = match name.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => names::hosts_addresses(hosts, name),
        };
        let encoded = dns::encode(name);
        let name = name.to_owned();
        let known = match &encoded {
            _ if !known.is_empty() => Some(Ok(known)),
            None => Some(Err(ResolveError::BadName { name: name.clone() })),
            Some(_) if servers.is_empty() => Some(Err(ResolveError::NoServer { name: name.clone() })),
            Some(_) => None,
        };
        Self {
            name,
            encoded: encoded.unwrap_or_default(),
            servers,
            deadline,
            kind: DnsQueryType::A,
            id: 0,
            socket: None,
            turn: 0,
            due: now,
            trouble: None,
            failure: None,
            failures: 0,
            known,
        }
    }

    /// The same for IPv6 addresses alone, whatever else the name has.
    pub fn six(self) -> Self {
        let known = self.known.filter(Result::is_err);
        Self { kind: DnsQueryType::Aaaa, known, ..self }
    }

    /// What to poll for input; `None` when only [`Lookup::due`] counts.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// When [`Lookup::advance`] wants to be called at the latest.
    pub fn due(&self) -> Instant {
        self.due.min(self.deadline)
    }

    /// Reads what came and asks whom it is time to ask. Never blocks. The result is given once.
    pub fn advance(&mut self, now: Instant) -> Option<Result<Vec<IpAddr>, ResolveError>> {
        if let Some(known) = self.known.take() {
            return Some(known);
        }
        loop {
            match self.hear() {
                Some(Ok(Answer::Addresses(addresses))) => return Some(Ok(addresses)),
                Some(Ok(Answer::NoSuchName)) => {
                    return Some(Err(ResolveError::NoSuchName { name: self.name.clone(), server: self.server().ip() }));
                }
                Some(Ok(Answer::NoAddress)) if self.kind == DnsQueryType::A => {
                    self.kind = DnsQueryType::Aaaa;
                    self.socket = None;
                    self.ask(now);
                }
                Some(Ok(Answer::NoAddress)) => {
                    return Some(Err(ResolveError::NoAddress { name: self.name.clone(), server: self.server().ip() }));
                }
                Some(Ok(Answer::Failed(code))) => self.trouble = Some(failure(code)),
                Some(Err(why)) => {
                    let failure = ResolveError::Failed { name: self.name.clone(), server: self.server().ip(), why };
                    self.failures += 1;
                    if self.failures >= self.servers.len() {
                        return Some(Err(failure));
                    }
                    self.failure = Some(failure);
                    self.turn += 1;
                    self.ask(now);
                }
                None if now >= self.deadline => {
                    return Some(Err(self.failure.take().unwrap_or_else(|| ResolveError::Silence {
                        name: self.name.clone(),
                        servers: self.servers.iter().map(SocketAddr::ip).collect(),
                    })));
                }
                None if now < self.due => return None,
                None => {
                    if self.socket.is_some() {
                        self.failures = 0;
                        self.turn += 1;
                    }
                    self.ask(now);
                }
            }
        }
    }

    /// Does all of it, for a caller who has nothing else to wait for.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub fn wait(mut self) -> Result<Vec<IpAddr>, ResolveError> {
        loop {
            if let Some(result) = self.advance(Instant::now()) {
                return result;
            }
            let timeout = Deadline::after(self.due().saturating_duration_since(Instant::now())).poll_timeout();
            let mut fds: Vec<_> = self.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).into_iter().collect();
            // An error of poll says nothing about the name: the deadline ends the loop whatever happens.
            let _ = poll(&mut fds, timeout);
        }
    }

    fn server(&self) -> SocketAddr {
        // Nobody is asked where there is no server.
        let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        self.servers.get(self.turn % self.servers.len().max(1)).copied().unwrap_or(nobody)
    }

    /// Sends the question to the server whose turn it is.
    fn ask(&mut self, now: Instant) {
        self.due = now + PATIENCE;
        if let Err(error) = self.send() {
            self.trouble = Some(error.to_string());
        }
    }

    fn send(&mut self) -> io::Result<()> {
        // The only server keeps its socket and id, so that its late answer to an earlier question still counts.
        if self.servers.len() > 1 {
            self.socket = None;
        }
        if self.socket.is_none() {
            self.id = u16::from_ne_bytes(random::bytes()?);
            self.socket = Some(connect(self.server())?);
        }
        let question = dns::question(self.id, &self.encoded, self.kind);
        self.socket.as_ref().map_or(Ok(()), |socket| socket.send(&question).map(drop))
    }

    /// The answer, or why there will be none from this server; `None` while neither is known.
    fn hear(&mut self) -> Option<Result<Answer, String>> {
        if let Some(trouble) = self.trouble.take() {
            return Some(Err(trouble));
        }
        let socket = self.socket.as_ref()?;
        // RFC 1035 2.3.4: without EDNS no answer is longer.
        let mut bytes = [0; 512];
        loop {
            match socket.recv(&mut bytes) {
                Ok(length) => {
                    let bytes = bytes.get(..length).unwrap_or_default();
                    if let Some(answer) = dns::answer(bytes, self.id, &self.encoded, self.kind) {
                        return Some(Ok(answer));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connected socket hears of a host where nobody listens.
                Err(error) => return Some(Err(error.to_string())),
            }
        }
    }
}

/// A socket that hears this server alone, on a port that the kernel picks at random.
fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}

fn failure(code: u8) -> String {
    match code {
        0 => "an answer that makes no sense".to_owned(),
        2 => "SERVFAIL".to_owned(),
        5 => "REFUSED".to_owned(),
        code => format!("error {code}"),
    }
}

/// Looks `name` up with this machine's /etc/hosts and /etc/resolv.conf, until `deadline`.
///
/// # Errors
/// [`ResolveError`]; a file that cannot be read counts as empty.
pub fn resolve(name: &str, deadline: Deadline) -> Result<Vec<IpAddr>, ResolveError> {
    let now = Instant::now();
    Lookup::new(name, &names::own_nameservers(), &names::hosts(), now, now + deadline.left()).wait()
}

#[cfg(test)]
mod tests {
    use std::thread::{self, JoinHandle};

    use super::*;

    /// What a server of a test does with a question for the address of a name.
    #[derive(Clone, Copy)]
    enum Does {
        Answer(&'static [u8]),
        Say(u8),
        WrongIdFirst,
        Nothing,
    }

    /// A server on the loopback that handles as many questions as there are `acts`, and returns the kinds asked for.
    fn server(acts: &'static [Does]) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let address = socket.local_addr().unwrap();
        let work = move || {
            let mut kinds = Vec::new();
            for act in acts {
                let mut bytes = [0; 512];
                let Ok((length, peer)) = socket.recv_from(&mut bytes) else { break };
                let question = &bytes[..length];
                kinds.push(question[length - 3]);
                let reply = |rcode: u8, count: u8, records: &[u8]| {
                    let mut reply = question.to_vec();
                    (reply[2], reply[3], reply[7]) = (0x81, 0x80 | rcode, count);
                    reply.extend(records);
                    reply
                };
                let one = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";
                match act {
                    Does::Answer(records) => drop(socket.send_to(&reply(0, 1, records), peer)),
                    Does::Say(rcode) => drop(socket.send_to(&reply(*rcode, 0, b""), peer)),
                    Does::WrongIdFirst => {
                        let mut wrong = reply(3, 0, b"");
                        wrong[0] ^= 0xff;
                        let _ = socket.send_to(&wrong, peer);
                        let _ = socket.send_to(&reply(0, 1, one), peer);
                    }
                    Does::Nothing => {}
                }
            }
            kinds
        };
        (address, thread::spawn(work))
    }

    fn look_up(servers: Vec<SocketAddr>, millis: u64) -> Result<Vec<IpAddr>, ResolveError> {
        let now = Instant::now();
        Lookup::with_servers("wn.x.org", servers, "", now, now + Duration::from_millis(millis)).wait()
    }

    const ONE: Does = Does::Answer(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01");
    const SIX: Does = Does::Answer(b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07");

    fn ten() -> Result<Vec<IpAddr>, ResolveError> {
        Ok(vec![[10, 0, 0, 1].into()])
    }

    #[test]
    fn what_is_known_needs_no_server() {
        let now = Instant::now();
        for (name, expected) in [
            ("10.1.2.3", Ok(vec!["10.1.2.3".parse().unwrap()])),
            ("2001:db8::7", Ok(vec!["2001:db8::7".parse().unwrap()])),
            ("Pool.x.org", Ok(vec!["10.9.9.9".parse().unwrap()])),
            ("a..b", Err(ResolveError::BadName { name: "a..b".to_owned() })),
            ("other.x.org", Err(ResolveError::NoServer { name: "other.x.org".to_owned() })),
        ] {
            let mut lookup = Lookup::new(name, &[], "10.9.9.9 pool.x.org\n", now, now);
            assert_eq!(lookup.advance(now), Some(expected));
            assert!(lookup.fd().is_none());
        }
    }

    #[test]
    fn an_answer_comes_at_once() {
        let (one, asked) = server(&[ONE]);
        let began = Instant::now();
        assert_eq!(look_up(vec![one], 5000), ten());
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(asked.join().unwrap(), [1]);
    }

    #[test]
    fn six_is_asked_for_only_without_four() {
        let (one, asked) = server(&[Does::Say(0), SIX]);
        assert_eq!(look_up(vec![one], 5000), Ok(vec!["2001:db8::7".parse().unwrap()]));
        assert_eq!(asked.join().unwrap(), [1, 28]);
        let (one, _asked) = server(&[Does::Say(0), Does::Say(0)]);
        let none = ResolveError::NoAddress { name: "wn.x.org".to_owned(), server: one.ip() };
        assert_eq!(look_up(vec![one], 5000), Err(none));
    }

    #[test]
    fn six_alone_may_be_asked_for() {
        let (one, asked) = server(&[SIX]);
        let (now, later) = (Instant::now(), Instant::now() + PATIENCE);
        let lookup = Lookup::with_servers("wn.x.org", vec![one], "10.9.9.9 wn.x.org\n", now, later).six();
        assert_eq!(lookup.wait(), Ok(vec!["2001:db8::7".parse().unwrap()]));
        assert_eq!(asked.join().unwrap(), [28]);
    }

    #[test]
    fn a_forged_answer_is_passed_over() {
        let (one, _asked) = server(&[Does::WrongIdFirst]);
        assert_eq!(look_up(vec![one], 5000), ten());
    }

    #[test]
    fn no_such_name_ends_the_search() {
        let ((one, _), (two, asked)) = (server(&[Does::Say(3)]), server(&[]));
        let error = look_up(vec![one, two], 5000).unwrap_err();
        assert_eq!(error.to_string(), "wn.x.org: no such name, says 127.0.0.1");
        assert!(asked.join().unwrap().is_empty());
    }

    #[test]
    fn a_failing_server_is_followed_by_the_next() {
        let ((one, _), (two, _)) = (server(&[Does::Say(2)]), server(&[ONE]));
        let began = Instant::now();
        assert_eq!(look_up(vec![one, two], 5000), ten());
        assert!(began.elapsed() < PATIENCE, "without waiting");
    }

    #[test]
    fn failure_of_all_is_told_at_once() {
        let ((one, _), (two, _)) = (server(&[Does::Say(5)]), server(&[Does::Say(2)]));
        let began = Instant::now();
        let error = look_up(vec![one, two], 5000).unwrap_err();
        assert_eq!(error.to_string(), "wn.x.org: name server 127.0.0.1: SERVFAIL");
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn a_host_without_server_is_noticed() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let began = Instant::now();
        let error = look_up(vec![closed], 5000).unwrap_err();
        assert_eq!(error.to_string(), "wn.x.org: name server 127.0.0.1: Connection refused (os error 111)");
        assert!(began.elapsed() < PATIENCE);
    }

    #[test]
    fn a_silent_server_is_followed_by_the_next() {
        let ((one, _), (two, _)) = (server(&[Does::Nothing]), server(&[ONE]));
        let began = Instant::now();
        assert_eq!(look_up(vec![one, two], 5000), ten());
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < PATIENCE * 2);
    }

    #[test]
    fn silence_lasts_until_the_deadline() {
        let (one, asked) = server(&[Does::Nothing, Does::Nothing]);
        let began = Instant::now();
        let error = look_up(vec![one], 2000).unwrap_err();
        assert_eq!(error.to_string(), "wn.x.org: no answer from 127.0.0.1");
        let waited = began.elapsed().as_millis();
        assert!((2000..2400).contains(&waited), "{waited} ms");
        assert_eq!(asked.join().unwrap(), [1, 1], "asked twice");
    }

    #[test]
    fn a_silent_server_is_asked_again_while_the_other_fails() {
        let ((one, _), (two, _)) = (server(&[Does::Say(2), Does::Say(2)]), server(&[Does::Nothing, ONE]));
        assert_eq!(look_up(vec![one, two], 5000), ten());
    }

    #[test]
    fn a_failure_is_remembered_over_silence() {
        let ((one, _), (two, _)) = (server(&[Does::Nothing]), server(&[Does::Say(2)]));
        let error = look_up(vec![one, two], 2000).unwrap_err();
        assert!(matches!(error, ResolveError::Failed { .. }), "{error}");
    }
}
