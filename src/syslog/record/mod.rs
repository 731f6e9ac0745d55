//! Records as the site gets them: RFC 5424, one line each, whatever the sender wrote.
//!
//! Only what the kernel or the agent says stands in the header and the structured data; a sender has the
//! APP-NAME, in a narrow alphabet, and the text, in which nothing is left that could end a line.

mod data;
mod escape;
mod stamp;

use std::borrow::Cow;
use std::time::SystemTime;

use self::data::push_data;
pub use self::data::{job, origin};
use self::escape::{push_name, push_number, push_text};
use self::stamp::Stamp;
use super::parse::Message;
use super::store::Entry;

/// Longest record in bytes: RFC 5425 wants every receiver to take 8192, and more is rsyslog's to cut by default.
pub const LIMIT: usize = 8192;
/// RFC 5424. The name is filled in when a record is sent; its place is kept free.
const MAX_HOST: usize = 255;
const MAX_APP: usize = 48;
/// RFC 5424's longest MSGID.
const MAX_MSGID: usize = 32;
const USER: u8 = 1;
/// RFC 5424's "log audit".
pub const AUDIT: u8 = 13;
/// What a site's alarms listen to: kern, auth, authpriv, log audit.
const RESERVED: [u8; 4] = [0, 4, 10, AUDIT];

/// Whose a message is, by the kernel's word.
pub use crate::sys::stamped::Stamp as Sender;

/// One record on its way into the queue.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When it was collected.
    pub time: SystemTime,
    /// 0-23.
    pub facility: u8,
    /// 0-7.
    pub severity: u8,
    /// The facility that the sender had no right to.
    pub claimed: Option<u8>,
    /// APP-NAME; empty if unknown.
    pub app: &'a [u8],
    /// PROCID.
    pub pid: Option<u32>,
    /// Where the kernel told.
    pub sender: Option<Sender>,
    /// Where the agent told; as [`job`] has it.
    pub job: Option<&'a [u8]>,
    /// MSGID and facts of an audit record. Only the agent makes them: no text of anybody's is ever read for them.
    pub audit: Option<Audit<'a>>,
    /// Raw.
    pub text: Cow<'a, [u8]>,
    /// The message's whole length in bytes, where `text` is only its beginning.
    pub cut: Option<usize>,
}

/// What makes a record one that a site can go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit<'a> {
    /// MSGID.
    pub id: &'a str,
    /// Name and value; names are ours, values may be anybody's.
    pub data: &'a [(String, String)],
}

impl<'a> Record<'a> {
    /// A message of the kernel or of ourselves, taken at its word.
    pub fn trusted(message: Message<'a>, time: SystemTime) -> Self {
        let Message { facility, severity, tag: app, pid, text } = message;
        let text = Cow::Borrowed(text);
        Self {
            time,
            facility,
            severity,
            claimed: None,
            app,
            pid,
            sender: None,
            job: None,
            audit: None,
            text,
            cut: None,
        }
    }

    /// A message of `/dev/log` with the kernel's word on who sent it; whoever is not known to be root is not.
    pub fn from_sender(message: Message<'a>, sender: Option<Sender>, time: SystemTime) -> Self {
        let mut record = Self::trusted(message, time);
        if RESERVED.contains(&record.facility) && sender.is_none_or(|sender| sender.uid != 0) {
            record.claimed = Some(record.facility);
            record.facility = USER;
        }
        record.sender = sender;
        record.pid = sender.map(|sender| sender.pid).filter(|pid| *pid != 0);
        record
    }
}

/// Writes records down; what they have in common it keeps, so that one of a flood costs little.
#[derive(Debug, Default)]
pub struct Writer {
    /// As [`origin`] has it.
    origin: Vec<u8>,
    stamp: Stamp,
    out: Vec<u8>,
}

impl Writer {
    /// Of a machine that is as [`origin`] has it.
    pub fn new(origin: Vec<u8>) -> Self {
        Self { origin, ..Self::default() }
    }

    /// The record, but for the host's name. `synced` is whether the clock goes by a reference.
    pub fn write(&mut self, record: &Record<'_>, number: u64, synced: bool) -> Entry<'_> {
        let out = &mut self.out;
        out.clear();
        out.push(b'<');
        push_number(out, u64::from(record.facility.min(23)) * 8 + u64::from(record.severity.min(7)));
        out.extend_from_slice(b">1 ");
        self.stamp.push(out, record.time);
        out.push(b' ');
        let host_at = out.len() as u8;
        out.push(b' ');
        push_name(out, record.app, MAX_APP);
        out.push(b' ');
        match record.pid {
            Some(pid) => push_number(out, pid.into()),
            None => out.push(b'-'),
        }
        out.push(b' ');
        push_name(out, record.audit.map_or(b"", |audit| audit.id.as_bytes()), MAX_MSGID);
        out.push(b' ');
        push_data(out, record, &self.origin, number, synced);
        out.push(b' ');
        push_text(out, &record.text, record.cut, LIMIT - MAX_HOST);
        let (severity, audit) = (record.severity.min(7), record.audit.is_some());
        Entry { severity, audit, host_at, bytes: out }
    }
}

/// A host name fit for the header, `-` if there is none.
pub fn host_name(name: &str) -> String {
    let mut out = Vec::with_capacity(name.len().max(1));
    push_name(&mut out, name.as_bytes(), MAX_HOST);
    out.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests;
