//! One connection to a server, once it is there.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConnection;

use super::tls;
use crate::sys::outq;

/// Reads in one turn of the loop.
const READS: usize = 16;

/// How records travel on it.
#[derive(Debug)]
pub enum Wire {
    /// A plain stream.
    Tcp(TcpStream),
    /// RFC 5425.
    Tls(TcpStream, Box<ClientConnection>),
    /// One record a datagram.
    Udp(UdpSocket),
}

/// A connection.
#[derive(Debug)]
pub struct Link {
    /// Its other end.
    pub address: SocketAddr,
    wire: Wire,
    /// Bytes that the kernel has taken.
    sent: u64,
    /// Records were given to TLS of which not all bytes are.
    pending: bool,
    /// The stream is to end when TLS has nothing ready any more.
    ending: bool,
    /// The server has said its last word by TLS, and TCP still stands.
    dismissed: bool,
}

impl Link {
    /// A connection that is there, by TLS perhaps not yet agreed on.
    pub fn new(address: SocketAddr, wire: Wire) -> Self {
        Self { address, wire, sent: 0, pending: false, ending: false, dismissed: false }
    }

    /// What poll(2) watches.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.wire {
            Wire::Tcp(stream) | Wire::Tls(stream, _) => stream.as_fd(),
            Wire::Udp(socket) => socket.as_fd(),
        }
    }

    /// Whether records are datagrams.
    pub fn is_udp(&self) -> bool {
        matches!(self.wire, Wire::Udp(_))
    }

    /// Whether it carries other bytes than the records'.
    pub fn is_opaque(&self) -> bool {
        matches!(self.wire, Wire::Tls(..))
    }

    /// Whether both sides have still to agree on their keys.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.wire, Wire::Tls(_, session) if session.is_handshaking())
    }

    /// Whether it waits for the kernel to take more, beside what the caller has.
    pub fn wants_write(&self) -> bool {
        matches!(&self.wire, Wire::Tls(_, session) if session.wants_write())
    }

    /// Whether TLS has ended and TCP has not: then nobody knows yet whether the server has read everything.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// Hears the server out: `true` while the connection stands, `false` when the server's kernel has ended it in order. What
    /// it says is thrown away: unread, it would turn our close into a reset, and a reset may destroy what the server has not
    /// read yet.
    ///
    /// # Errors
    /// How the connection has failed.
    pub fn listen(&mut self) -> io::Result<bool> {
        let mut waste = [0; 4096];
        match &mut self.wire {
            // Its errors are what ICMP says of datagrams sent before; an empty datagram is no end of anything.
            Wire::Udp(socket) => until_blocked(|| socket.recv(&mut waste).map(|_| 1)),
            Wire::Tcp(stream) => until_blocked(|| stream.read(&mut waste)),
            Wire::Tls(stream, session) => {
                let open = until_blocked(|| {
                    // Behind TLS's last word rustls reads no more, and the end or the reset of TCP is still to come.
                    if self.dismissed {
                        return stream.read(&mut waste);
                    }
                    let count = session.read_tls(stream)?;
                    let state = session.process_new_packets().map_err(tls::in_words);
                    // Its answer to what it does not like is worth a try.
                    let state = state.inspect_err(|_| drop(session.write_tls(stream)))?;
                    let mut waste = vec![0; state.plaintext_bytes_to_read()];
                    session.reader().read_exact(&mut waste)?;
                    self.dismissed = state.peer_has_closed();
                    Ok(count)
                })?;
                self.push()?;
                Ok(open)
            }
        }
    }

    /// Hands records over. Returns how many of the bytes are done with: by TLS all of them, once the kernel has what they
    /// have become.
    ///
    /// # Errors
    /// `WouldBlock` if the kernel takes no more now; else how the connection has failed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.wire {
            Wire::Tcp(stream) => stream.write(bytes).inspect(|&count| self.sent += count as u64),
            // No record is too long for a datagram. EMSGSIZE here is ICMP's word on one sent before that was too long for
            // a router; the kernel cuts the next ones into fragments.
            Wire::Udp(socket) => socket.send(bytes).inspect(|&count| self.sent += count as u64),
            Wire::Tls(_, session) => {
                if !self.pending {
                    session.writer().write_all(bytes)?;
                    self.pending = true;
                }
                self.push()?;
                if self.wants_write() {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.pending = false;
                Ok(bytes.len())
            }
        }
    }

    /// Gives the kernel what TLS has ready, and the end of the stream behind the last of it.
    fn push(&mut self) -> io::Result<()> {
        if let Wire::Tls(stream, session) = &mut self.wire {
            while session.wants_write() {
                match session.write_tls(stream) {
                    Ok(count) => self.sent += count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if std::mem::take(&mut self.ending)
            && let Wire::Tcp(stream) | Wire::Tls(stream, _) = &self.wire
        {
            stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Length of the stream until now.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How much of it the server's kernel has acknowledged. Nothing acknowledges datagrams, but ICMP may still say that
    /// they met nobody.
    pub fn acknowledged(&self) -> u64 {
        match &self.wire {
            Wire::Udp(_) => self.sent,
            Wire::Tcp(stream) | Wire::Tls(stream, _) => {
                self.sent.saturating_sub(outq::unacknowledged(stream).unwrap_or(self.sent))
            }
        }
    }

    /// Whether the server's kernel has no room left: all that was sent is acknowledged, and more would be.
    pub fn is_stalled(&self) -> bool {
        match &self.wire {
            Wire::Udp(_) => false,
            Wire::Tcp(stream) | Wire::Tls(stream, _) => match (outq::unacknowledged(stream), outq::unsent(stream)) {
                (Ok(unacknowledged), Ok(unsent)) => unsent > 0 && unsent == unacknowledged,
                _ => false,
            },
        }
    }

    /// How long the server's kernel may acknowledge nothing, or have no room; nothing said is the kernel's own patience.
    pub fn set_patience(&self, patience: Option<Duration>) {
        if let Wire::Tcp(stream) | Wire::Tls(stream, _) = &self.wire {
            let millis = patience.map_or(0, |patience| u32::try_from(patience.as_millis()).unwrap_or(u32::MAX));
            // Fails on nothing that is a TCP socket.
            let _ = setsockopt(stream, sockopt::TcpUserTimeout, &millis);
        }
    }

    /// Says that nothing more comes, as soon as the kernel has taken all that did.
    ///
    /// # Errors
    /// How the connection has failed.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Wire::Tls(_, session) = &mut self.wire {
            session.send_close_notify();
        }
        self.ending = true;
        self.push()
    }
}

/// Reads until there is nothing more for now (true) or the end (false).
fn until_blocked(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<bool> {
    // A server that talks without end is not listened to without end: poll(2) tells of the rest.
    for _ in 0..READS {
        match read() {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
