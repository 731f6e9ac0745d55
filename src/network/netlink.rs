//! Conversations with the kernel over netlink.
//!
//! One plain socket, no thread: neli's router would start one, and a process with two threads may not fork.
//! The kernel puts its answer into the socket before the request returns, so no read here waits.

use std::fmt::Debug;
use std::io::{self, Cursor};

use neli::consts::nl::{NlType, NlmF};
use neli::consts::socket::{Msg, NlFamily};
use neli::err::{DeError, SerError};
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::socket::NlSocket;
use neli::types::{Buffer, NlBuffer};
use neli::utils::Groups;
use neli::{FromBytesWithInput, Size, ToBytes};

/// The kernel makes no part of a dump larger, however much room there is (`netlink_recvmsg`).
const PART: usize = 32 * 1024;

/// A connection to one of the kernel's families.
pub struct Socket(NlSocket);

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn connect(family: NlFamily) -> io::Result<Self> {
        NlSocket::connect(family, None, Groups::empty()).map(Self)
    }

    /// Sends a request that changes something, and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn change<T: NlType + Debug, P: Size + ToBytes + Debug>(
        &self,
        kind: T,
        flags: NlmF,
        request: P,
    ) -> io::Result<()> {
        self.ask::<T, P, Buffer>(kind, flags | NlmF::ACK, request).map(drop)
    }

    /// Asks for all of a kind.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn dump<T, P>(&self, kind: T, request: P) -> io::Result<Vec<P>>
    where
        T: NlType + Debug,
        P: Size + ToBytes + FromBytesWithInput<Input = usize> + Clone + Debug,
    {
        self.ask(kind, NlmF::DUMP, request)
    }

    /// Sends a request and takes the answers up to the acknowledgement or the end of the dump.
    fn ask<T, P, R>(&self, kind: T, flags: NlmF, request: P) -> io::Result<Vec<R>>
    where
        T: NlType + Debug,
        P: Size + ToBytes + Debug,
        R: Size + FromBytesWithInput<Input = usize> + Clone + Debug,
    {
        let message = NlmsghdrBuilder::default()
            .nl_type(kind)
            .nl_flags(flags | NlmF::REQUEST)
            .nl_payload(NlPayload::Payload(request))
            .build()
            .map_err(io::Error::other)?;
        self.0.send(bytes(&message, message.padded_size())?, Msg::empty())?;
        let mut answers = Vec::new();
        loop {
            for message in self.receive(Msg::empty())? {
                match message.nl_payload() {
                    NlPayload::Payload(answer) => answers.push(R::clone(answer)),
                    NlPayload::Err(error) => return Err(io::Error::from_raw_os_error(-error.error())),
                    NlPayload::Ack(_) | NlPayload::DumpExtAck(_) | NlPayload::Empty => return Ok(answers),
                }
            }
        }
    }

    fn receive<R: Size + FromBytesWithInput<Input = usize>>(&self, flags: Msg) -> io::Result<NlBuffer<u16, R>> {
        let mut part = vec![0; PART];
        let (length, _) = self.0.recv(&mut part, flags)?;
        part.truncate(length);
        NlBuffer::from_bytes_with_input(&mut Cursor::new(part), length)
            .map_err(|error: DeError| io::Error::other(error))
    }
}

fn bytes(message: &impl ToBytes, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Cursor::new(vec![0; length]);
    message.to_bytes(&mut buffer).map_err(|error: SerError| io::Error::other(error))?;
    Ok(buffer.into_inner())
}
