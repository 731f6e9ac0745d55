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

/// One message of a batch.
#[derive(Debug)]
pub struct Message {
    /// Its type.
    pub kind: u16,
    /// Besides NLM_F_REQUEST.
    pub flags: NlmF,
    /// Behind its header.
    pub body: Vec<u8>,
}

/// A batch that the kernel did not take.
#[derive(Debug)]
pub struct Refusal {
    /// The message that is wrong, from 0; `None` if it is none of them.
    pub at: Option<usize>,
    /// Why.
    pub source: io::Error,
}

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

    /// Asks for one thing.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn get<T, P>(&self, kind: T, request: P) -> io::Result<Option<P>>
    where
        T: NlType + Debug,
        P: Size + ToBytes + FromBytesWithInput<Input = usize> + Clone + Debug,
    {
        // The acknowledgement comes behind the answer.
        self.ask(kind, NlmF::ACK, request).map(|answers| answers.into_iter().next())
    }

    /// Sends messages that the kernel takes together or not at all; the last one but one asks for its word.
    ///
    /// # Errors
    /// The first refusal, with the number of its message.
    pub fn batch(&self, messages: &[Message]) -> Result<(), Refusal> {
        let unsaid = |source| Refusal { at: None, source };
        let asks = messages.len().saturating_sub(2);
        let mut sent = Vec::new();
        for (at, Message { kind, flags, body }) in messages.iter().enumerate() {
            let word = if at == asks { NlmF::ACK } else { NlmF::empty() };
            let message = NlmsghdrBuilder::default()
                .nl_type(*kind)
                .nl_flags(*flags | NlmF::REQUEST | word)
                .nl_seq(at as u32)
                .nl_payload(NlPayload::Payload(Buffer::from(body.as_slice())));
            let message = message.build().map_err(|error| unsaid(io::Error::other(error)))?;
            sent.extend(bytes(&message, message.padded_size()).map_err(unsaid)?);
        }
        self.0.send(&sent, Msg::empty()).map_err(unsaid)?;
        loop {
            // All that the kernel has to say is there by now; without a word of it the batch was not taken.
            for message in self.receive::<Buffer>(Msg::DONTWAIT).map_err(unsaid)? {
                match message.nl_payload() {
                    NlPayload::Err(error) => {
                        let source = io::Error::from_raw_os_error(-error.error());
                        return Err(Refusal { at: usize::try_from(*message.nl_seq()).ok(), source });
                    }
                    NlPayload::Ack(_) => return Ok(()),
                    _ => {}
                }
            }
        }
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
