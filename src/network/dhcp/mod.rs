//! DHCPv4 client (RFC 2131) as a role of its own.
//!
//! The agent, as root, opens the packet socket; a child without privileges parses what comes from the network
//! ([`run`]) and says one line of JSON for each change; the agent sets addresses and routes.
//!
//! Not done: probing the address before use and declining it (it costs seconds of every boot, and the sites'
//! servers know their addresses), asking for the address of an earlier boot, DHCPRELEASE.

mod client;
mod frame;
pub mod message;
mod options;
#[cfg(test)]
pub(super) mod samples;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use self::client::{Action, Client};
pub use self::frame::Mac;
pub use self::message::MIN_MTU;
use crate::clock::Deadline;
use crate::context::site::{Host, Hostname};
use crate::sys::{packet, random};

/// A DHCP lease, as far as this machine uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// This machine's.
    pub address: Ipv4Addr,
    /// Length of the network's prefix, 1-32.
    pub prefix: u8,
    /// Option 121 if the server sent it, else a default route over the first router (RFC 3442).
    pub routes: Vec<Route>,
    /// DNS servers in the order of preference.
    pub dns: Vec<Ipv4Addr>,
    /// Domain that short names are in.
    pub domain: Option<Host>,
    /// Name of this machine.
    pub hostname: Option<Hostname>,
    /// Largest packet of the link, bytes.
    pub mtu: Option<u16>,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// Seconds that the lease lasts; `u32::MAX` is for ever.
    pub lease_secs: u32,
    /// Seconds until it is to be renewed.
    pub t1_secs: u32,
    /// Seconds until any server is asked.
    pub t2_secs: u32,
}

/// A route of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Network.
    pub destination: Ipv4Addr,
    /// Length of its prefix; 0 is the default route.
    pub prefix: u8,
    /// Next hop; `None` means that the network is on the link.
    pub gateway: Option<Ipv4Addr>,
}

/// IPv4, not a later fragment, UDP to port 68. A role that lives as long as the machine must not be woken for
/// every frame of the machine's traffic.
const FILTER: [libc::sock_filter; 9] = [
    bpf(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 23, 0, 0),
    bpf(libc::BPF_JMP | libc::BPF_JEQ, libc::IPPROTO_UDP as u32, 0, 6),
    bpf(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 20, 0, 0),
    bpf(libc::BPF_JMP | libc::BPF_JSET, 0x1fff, 4, 0),
    bpf(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 14, 0, 0),
    bpf(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 16, 0, 0),
    bpf(libc::BPF_JMP | libc::BPF_JEQ, 68, 0, 1),
    bpf(libc::BPF_RET, u32::MAX, 0, 0),
    bpf(libc::BPF_RET, 0, 0, 0),
];

const fn bpf(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Frames read before the client acts: a flood must not keep it from its own timers.
const BURST: usize = 64;

/// The socket for [`run`], on interface `index`. Needs CAP_NET_RAW.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2).
pub fn open_socket(index: u32) -> io::Result<OwnedFd> {
    packet::open(index, &FILTER)
}

/// The role: gets a lease, keeps it, and writes each event to `report` as a line of
/// [`FromDhcp`](crate::protocol::FromDhcp). Needs no privilege. Returns once nobody reads `report` any more.
///
/// # Errors
/// Those of the socket and of /dev/urandom. A link that is down is none: it may come up.
pub fn run(socket: OwnedFd, mac: Mac, hostname: Option<&str>, mut report: impl Write + AsFd) -> io::Result<()> {
    let mut socket = File::from(socket);
    let mut client = Client::new(mac, hostname, u64::from_ne_bytes(random::bytes()?), Instant::now());
    // Longer than any frame with the largest message that we let a server send.
    let mut frame = [0; 2048];
    loop {
        let mut actions = client.tick(Instant::now());
        for _ in 0..BURST {
            let Some(length) = unless_down(socket.read(&mut frame))? else { break };
            actions.extend(client.receive(Instant::now(), frame.get(..length).unwrap_or_default()));
        }
        for action in actions {
            match action {
                Action::Send(frame) => drop(unless_down(socket.write(&frame))?),
                Action::Tell(event) => {
                    let mut line = serde_json::to_vec(&event)?;
                    line.push(b'\n');
                    match report.write_all(&line) {
                        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                        result => result?,
                    }
                }
            }
        }
        let timeout = client.due().map_or(PollTimeout::NONE, |due| {
            Deadline::after(due.saturating_duration_since(Instant::now())).poll_timeout()
        });
        // No event is asked for on the report: poll always tells when the reader is gone.
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(report.as_fd(), PollFlags::empty())];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if fds.get(1).and_then(|fd| fd.any()).unwrap_or(false) {
            return Ok(());
        }
    }
}

/// `None` for what a retransmission heals: nothing to read, the queue is full, or the link is down.
fn unless_down(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NetworkDown)
                || error.raw_os_error() == Some(libc::ENOBUFS) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
