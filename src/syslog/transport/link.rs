//! One connection to a server, once it is there.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ClientConnection;

use crate::sys::outq;

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
}

impl Link {
    /// A connection that is there, by TLS perhaps not yet agreed on.
    pub fn new(address: SocketAddr, wire: Wire) -> Self {
        Self { address, wire, sent: 0, pending: false }
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

    /// Hears the server out: `true` while the connection stands, `false` when the server has ended it in order. What it
    /// says is thrown away: unread, it would turn our close into a reset, and a reset destroys what the server has not
    /// read yet.
    ///
    /// # Errors
    /// How the connection has failed.
    pub fn listen(&mut self) -> io::Result<bool> {
        match &mut self.wire {
            Wire::Udp(socket) => socket.take_error()?.map_or(Ok(true), Err),
            Wire::Tcp(stream) => until_blocked(|| stream.read(&mut [0; 512])),
            Wire::Tls(stream, session) => {
                let open = until_blocked(|| {
                    let count = session.read_tls(stream)?;
                    let state =
                        session.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error));
                    // Its answer to what it does not like is worth a try.
                    let state = state.inspect_err(|_| drop(session.write_tls(stream)))?;
                    let mut waste = vec![0; state.plaintext_bytes_to_read()];
                    session.reader().read_exact(&mut waste)?;
                    Ok(if state.peer_has_closed() { 0 } else { count })
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
            // A datagram that is too long for the way is cut nowhere: it is lost, as others are that go by UDP.
            Wire::Udp(socket) => match socket.send(bytes) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => Ok(bytes.len()),
                sent => sent.map(|_| bytes.len()),
            },
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

    /// Gives the kernel what TLS has ready.
    fn push(&mut self) -> io::Result<()> {
        let Wire::Tls(stream, session) = &mut self.wire else { return Ok(()) };
        while session.wants_write() {
            match session.write_tls(stream) {
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Length of the stream until now.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How much of it the server's kernel has acknowledged; nothing is known of datagrams.
    pub fn acknowledged(&self) -> u64 {
        match &self.wire {
            Wire::Udp(_) => u64::MAX,
            Wire::Tcp(stream) | Wire::Tls(stream, _) => {
                self.sent.saturating_sub(outq::unacknowledged(stream).unwrap_or(self.sent))
            }
        }
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// How the connection has failed.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Wire::Tls(_, session) = &mut self.wire {
            session.send_close_notify();
        }
        self.push()?;
        match &self.wire {
            Wire::Tcp(stream) | Wire::Tls(stream, _) => stream.shutdown(std::net::Shutdown::Write),
            Wire::Udp(_) => Ok(()),
        }
    }
}

/// Reads until there is nothing more (true) or the end (false).
fn until_blocked(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<bool> {
    loop {
        match read() {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
