//! Messages over a socket pair: one JSON value and one body each, both with a length in front.
//!
//! Frame: `u32` length of the JSON, `u32` length of the body, big-endian, then the two.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Deadline;

/// Longest JSON part: a log record of 8 KiB with every byte escaped fits.
const MAX_JSON: usize = 256 * 1024;
/// Longest body: the largest token or result that is handled, 16 MiB, as ToPoS users' tokens go up to 10 MB.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
const HEADER: usize = 8;

/// One end of a message channel. Never blocks but in [`Channel::recv`], which takes a deadline.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    ended: bool,
}

impl Channel {
    /// Two connected ends; both close on exec.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = UnixStream::pair()?;
        Ok((Self::new(left)?, Self::new(right)?))
    }

    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), output: VecDeque::new(), ended: false })
    }

    /// Queues a message and writes as much of the queue as the peer takes now.
    ///
    /// # Errors
    /// `InvalidInput` for an oversized message; those of write(2), `BrokenPipe` above all.
    pub fn send(&mut self, message: &impl Serialize, body: &[u8]) -> io::Result<()> {
        let json = serde_json::to_vec(message)?;
        if json.len() > MAX_JSON || body.len() > MAX_BODY {
            return Err(io::Error::new(ErrorKind::InvalidInput, "message too long"));
        }
        self.output.extend((json.len() as u32).to_be_bytes());
        self.output.extend((body.len() as u32).to_be_bytes());
        self.output.extend(&json);
        self.output.extend(body);
        self.flush()
    }

    /// Writes what is queued, as far as the peer takes it now.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let (head, _) = self.output.as_slices();
            match self.stream.write(head) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes that wait for the peer; a sender that must not grow looks here first.
    pub fn backlog(&self) -> usize {
        self.output.len()
    }

    /// What poll(2) should wake for.
    pub fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }

    /// The next whole message, if it is there. Also writes what is queued.
    ///
    /// # Errors
    /// `UnexpectedEof` once the peer is gone and every message was taken; `InvalidData` for a malformed one.
    pub fn try_recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<u8>)>> {
        // A peer that is gone shows on the reading side; what it sent before that still counts.
        let _ = self.flush();
        if let Some(message) = self.take()? {
            return Ok(Some(message));
        }
        self.fill()?;
        match self.take()? {
            None if self.ended => Err(ErrorKind::UnexpectedEof.into()),
            message => Ok(message),
        }
    }

    /// The next message; `None` at the deadline.
    ///
    /// # Errors
    /// As [`Channel::try_recv`].
    pub fn recv<T: DeserializeOwned>(&mut self, deadline: Deadline) -> io::Result<Option<(T, Vec<u8>)>> {
        loop {
            if let Some(message) = self.try_recv()? {
                return Ok(Some(message));
            }
            if deadline.passed() {
                return Ok(None);
            }
            let interest = self.interest();
            match poll(&mut [PollFd::new(self.stream.as_fd(), interest)], deadline.poll_timeout()) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads until one whole message is there, and no further: a flood from the peer must not grow this buffer.
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        while !self.ended && self.frame()?.is_none() {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(count) => self.input.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A peer that was killed with unread messages resets the pair; that is an end like any other.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The lengths of the two parts of the first message, once it is whole.
    fn frame(&self) -> io::Result<Option<(usize, usize)>> {
        let Some((header, rest)) = self.input.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *header;
        let json = u32::from_be_bytes([a, b, c, d]) as usize;
        let body = u32::from_be_bytes([e, f, g, h]) as usize;
        if json > MAX_JSON || body > MAX_BODY {
            return Err(io::Error::new(ErrorKind::InvalidData, "message too long"));
        }
        Ok((rest.len() >= json + body).then_some((json, body)))
    }

    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<u8>)>> {
        let Some((json, body)) = self.frame()? else { return Ok(None) };
        let (_, rest) = self.input.split_at(HEADER);
        let (text, rest) = rest.split_at(json);
        let message = serde_json::from_slice(text)?;
        let bytes = rest.split_at(body).0.to_vec();
        self.input.drain(..HEADER + json + body);
        Ok(Some((message, bytes)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::{FromWorker, ToWorker, Token};

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    #[test]
    fn messages_arrive_in_order_with_their_bodies() {
        let (mut agent, mut worker) = Channel::pair().unwrap();
        let token =
            Token { id: "7".to_owned(), leases: Some(1), media_type: None, owner: Default::default(), pilot: false };
        worker.send(&FromWorker::Claimed(token.clone()), b"seed=1\n\0").unwrap();
        worker.send(&FromWorker::NoWork, b"").unwrap();
        assert_eq!(agent.recv(soon()).unwrap(), Some((FromWorker::Claimed(token), b"seed=1\n\0".to_vec())));
        assert_eq!(agent.recv(soon()).unwrap(), Some((FromWorker::NoWork, Vec::new())));
        assert_eq!(agent.try_recv::<FromWorker>().unwrap(), None);
    }

    #[test]
    fn a_large_body_does_not_block_its_sender() {
        let (mut agent, mut worker) = Channel::pair().unwrap();
        let body = vec![b'x'; 4 * 1024 * 1024];
        agent.send(&ToWorker::Finished, &body).unwrap();
        assert!(agent.backlog() > 0);
        let taken = loop {
            agent.flush().unwrap();
            if let Some((ToWorker::Finished, taken)) = worker.try_recv().unwrap() {
                break taken;
            }
        };
        assert!(taken == body);
    }

    #[test]
    fn the_last_word_of_a_dead_peer_is_heard() {
        let (mut agent, mut worker) = Channel::pair().unwrap();
        worker.send(&FromWorker::NoWork, b"").unwrap();
        drop(worker);
        assert_eq!(agent.try_recv().unwrap(), Some((FromWorker::NoWork, Vec::new())));
        assert_eq!(agent.try_recv::<FromWorker>().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nonsense_is_an_error() {
        let (mut agent, worker) = Channel::pair().unwrap();
        (&worker.stream).write_all(&[0xff; 16]).unwrap();
        assert_eq!(agent.try_recv::<FromWorker>().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
