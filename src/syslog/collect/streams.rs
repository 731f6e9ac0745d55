//! Clients that stay: connections at `/dev/log.stream`.
//!
//! Who speaks is who connected (SO_PEERCRED): a descriptor that is passed on takes its name along, and a payload has no
//! way to a connection of somebody else. There are so many clients at a time and no more, and each has one message under
//! way at most, so memory is bounded. None ever waits for us: all that they send is read.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::poll::PollTimeout;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{getsockopt, sockopt};

use super::cutter::Cutter;
use crate::syslog::record::Sender;

/// Of everybody.
const MOST: usize = 64;
/// Of one user but root: a payload that takes all there are would shut out the others.
const MOST_OF_ONE: usize = 8;
/// Clients that are served before the other sources have their turn.
const TURN: usize = 16;
/// What is read of one client in its turn.
const PIECE: usize = 8192;
/// Of the listener; clients have numbers above.
const DOOR: u64 = 0;

/// All of them.
#[derive(Debug)]
pub struct Streams {
    /// `None` if there is no listener, or no memory.
    epoll: Option<Epoll>,
    clients: BTreeMap<u64, Client>,
    last: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    sender: Sender,
    cutter: Cutter,
}

impl Streams {
    /// Of a listener that does not block.
    pub fn new(listener: Option<&UnixListener>) -> Self {
        let epoll = listener.and_then(|listener| {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).ok()?;
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, DOOR)).ok()?;
            Some(epoll)
        });
        Self { epoll, clients: BTreeMap::new(), last: DOOR, buffer: vec![0; PIECE] }
    }

    /// Readable when somebody is at the door or has said something.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().map(|epoll| epoll.0.as_fd())
    }

    /// Lets in who waits. Returns whether there was anybody.
    pub fn accept(&mut self, listener: &UnixListener) -> bool {
        // EAGAIN, or no descriptor left: poll(2) brings us back.
        let guests: Vec<_> = (0..TURN).map_while(|_| listener.accept().ok()).collect();
        let any = !guests.is_empty();
        guests.into_iter().for_each(|(socket, _)| self.admit(socket));
        any
    }

    /// Closes the connection of whoever is too much; syslog(3) connects again when it is called next.
    fn admit(&mut self, socket: UnixStream) {
        let (Some(epoll), Ok(peer)) = (&self.epoll, getsockopt(&socket, sockopt::PeerCredentials)) else { return };
        let sender = Sender { uid: peer.uid(), pid: u32::try_from(peer.pid()).unwrap_or(0) };
        let of_one = self.clients.values().filter(|client| client.sender.uid == sender.uid).count();
        let full = self.clients.len() >= MOST || (sender.uid != 0 && of_one >= MOST_OF_ONE);
        if full || socket.set_nonblocking(true).is_err() {
            return;
        }
        let key = self.last + 1;
        if epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, key)).is_ok() {
            self.last = key;
            self.clients.insert(key, Client { socket, sender, cutter: Cutter::default() });
        }
    }

    /// Reads a piece of each who has said something, some of them. Returns whether there was anybody.
    pub fn read(&mut self, mut take: impl FnMut(Sender, &[u8], Option<usize>)) -> bool {
        let Some(epoll) = &self.epoll else { return false };
        let mut events = [EpollEvent::empty(); TURN];
        let count = epoll.wait(&mut events, PollTimeout::ZERO).unwrap_or(0);
        let mut any = false;
        for key in events.iter().take(count).map(EpollEvent::data) {
            let Some(client) = self.clients.get_mut(&key) else { continue };
            any = true;
            let Client { socket, sender, cutter } = client;
            let mut give = |text: &[u8], cut: Option<usize>| take(*sender, text, cut);
            match socket.read(&mut self.buffer) {
                Ok(length) if length > 0 => cutter.cut(self.buffer.get(..length).unwrap_or_default(), give),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // The end, or a broken connection.
                Ok(_) | Err(_) => {
                    cutter.end(&mut give);
                    self.clients.remove(&key);
                }
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nobody_takes_all_places_and_one_that_is_left_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stream");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let most = if nix::unistd::geteuid().is_root() { MOST } else { MOST_OF_ONE };
        let mut streams = Streams::new(Some(&listener));
        let mut clients: Vec<_> = (0..=most).map(|_| UnixStream::connect(&path).unwrap()).collect();
        while streams.accept(&listener) {}
        assert_eq!(streams.clients.len(), most);
        // The one too many is told so, and does not wait.
        assert_eq!(clients[most].read(&mut [0]).unwrap(), 0);
        clients.remove(3).write_all(b"last words").unwrap();
        let mut heard = Vec::new();
        while streams.read(|sender, text, _| heard.push((sender.pid, text.to_vec()))) {}
        assert_eq!(heard, [(std::process::id(), b"last words".to_vec())]);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(streams.accept(&listener));
        assert_eq!(streams.clients.len(), most);
    }
}
