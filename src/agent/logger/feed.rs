//! The agent's records on their way to the logger.
//!
//! Each is kept until the ledger says that it is stored: what a killed logger had not stored goes to the next one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::process;

use nix::poll::PollFlags;

use crate::protocol::channel::Channel;
use crate::protocol::{FromLogger, Record, ToLogger};

/// Bytes that may wait for a logger that is stalled or not there, before records are dropped and counted: its own store
/// is the place to wait in.
const ROOM: usize = 1024 * 1024;
/// Of these, what may be in the channel's own buffer, so that little is held twice.
const WINDOW: usize = 64 * 1024;
/// What a record takes beside its text.
const OVERHEAD: usize = 256;

/// Records in their order, and the way to the logger while there is one.
#[derive(Debug)]
pub struct Feed {
    /// Not stored as far as is known, each with its number.
    queue: VecDeque<(u64, Record)>,
    /// How many of them this logger was sent.
    sent: usize,
    bytes: usize,
    /// Of the last record.
    number: u64,
    /// Lines that were dropped and not yet announced.
    unannounced: u64,
    /// All of them.
    dropped: u64,
    channel: Option<Channel>,
    closed: bool,
    /// A forked helper has a copy of all this, and counts for nobody.
    owner: u32,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            sent: 0,
            bytes: 0,
            number: 0,
            unannounced: 0,
            dropped: 0,
            channel: None,
            closed: false,
            owner: process::id(),
        }
    }
}

impl Feed {
    /// Takes a record, and sends it if there is a logger that takes it now.
    pub fn push(&mut self, record: Record) {
        if process::id() != self.owner {
            // It dies before any logger could be sent this again; and in the middle of what the agent was saying at the fork
            // there is no place for it.
            if !self.is_sent() {
                return;
            }
            return self.say(&ToLogger::Record { number: 0, record }, &[]);
        }
        // An audit record is not lost because a payload talks: there are few of them, and small ones.
        let room = if record.msgid.is_some() { 2 * ROOM } else { ROOM };
        if self.closed {
            return;
        }
        if self.bytes > room {
            self.dropped += 1;
            self.unannounced += 1;
            return;
        }
        self.announce();
        self.add(record);
        self.flush();
    }

    fn announce(&mut self) {
        if self.unannounced > 0 {
            let text = format!("{} lines dropped between agent and logger", self.unannounced);
            self.unannounced = 0;
            self.add(Record::now(4, "ctxinit", text));
        }
    }

    fn add(&mut self, record: Record) {
        self.number += 1;
        self.bytes += size(&record);
        self.queue.push_back((self.number, record));
    }

    /// Sends what the logger takes now.
    pub fn flush(&mut self) {
        self.flush_within(WINDOW);
    }

    fn flush_within(&mut self, window: usize) {
        let Some(channel) = &mut self.channel else { return };
        let mut result = channel.flush();
        while result.is_ok()
            && channel.backlog() < window
            && let Some((number, record)) = self.queue.get(self.sent)
        {
            result = channel.send(&ToLogger::Record { number: *number, record: record.clone() }, &[]);
            if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidInput) {
                // No logger takes so long a record, so it must not be kept for the next one.
                self.bytes -= size(record);
                self.queue.remove(self.sent);
                self.dropped += 1;
                self.unannounced += 1;
                result = Ok(());
            } else {
                self.sent += 1;
            }
        }
        if result.is_err() {
            self.channel = None;
        }
    }

    /// Says something that is not kept, ahead of the records that wait.
    pub fn say(&mut self, message: &ToLogger, body: &[u8]) {
        if self.channel.as_mut().is_some_and(|channel| channel.send(message, body).is_err()) {
            self.channel = None;
        }
    }

    /// Says this behind all records; no more of them are taken.
    pub fn close(&mut self, last: &ToLogger) {
        self.announce();
        self.closed = true;
        self.flush_within(usize::MAX);
        self.say(last, &[]);
    }

    /// What the logger has said; an error is the end of it.
    pub fn heard(&mut self) -> io::Result<Option<FromLogger>> {
        let Some(channel) = &mut self.channel else { return Ok(None) };
        let heard = channel.try_recv();
        if heard.is_err() {
            self.channel = None;
        }
        Ok(heard?.map(|(message, _)| message))
    }

    /// A new logger is at the other end, and everything up to this number is stored.
    pub fn attach(&mut self, channel: Channel, stored: u64) {
        self.channel = Some(channel);
        self.sent = 0;
        self.stored(stored);
    }

    /// There is no logger any more.
    pub fn detach(&mut self) {
        self.channel = None;
    }

    /// Whether nothing that was said waits on our side.
    pub fn is_sent(&self) -> bool {
        self.channel.as_ref().is_none_or(|channel| channel.backlog() == 0)
    }

    /// Whether one can be spoken to.
    pub fn is_attached(&self) -> bool {
        self.channel.is_some()
    }

    /// Records up to this number need not be sent again.
    pub fn stored(&mut self, number: u64) {
        while let Some((of, record)) = self.queue.front()
            && *of <= number
        {
            self.bytes -= size(record);
            self.sent = self.sent.saturating_sub(1);
            self.queue.pop_front();
        }
    }

    /// Records that no logger has stored, and lines that were dropped.
    pub fn lost(&self) -> (u64, u64) {
        (self.queue.len() as u64, self.dropped)
    }

    /// For a wait, until the next logger is attached.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn ear(channel: &Channel) -> io::Result<OwnedFd> {
        channel.as_fd().try_clone_to_owned()
    }

    /// What a wait is to wake for.
    pub fn interest(&self) -> PollFlags {
        self.channel.as_ref().map_or(PollFlags::empty(), Channel::interest)
    }
}

fn size(record: &Record) -> usize {
    let data: usize = record.data.iter().map(|(name, value)| name.len() + value.len()).sum();
    OVERHEAD + record.text.len() + data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record::now(6, "ctxinit", text.to_owned())
    }

    /// Numbers and texts of what arrives.
    fn arrived(logger: &mut Channel) -> Vec<(u64, String)> {
        let next = || match logger.try_recv() {
            Ok(Some((ToLogger::Record { number, record }, _))) => Some((number, record.text)),
            Ok(Some((other, _))) => Some((0, format!("{other:?}"))),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    fn numbered(texts: &[(u64, &str)]) -> Vec<(u64, String)> {
        texts.iter().map(|(number, text)| (*number, (*text).to_owned())).collect()
    }

    #[test]
    fn what_is_not_stored_goes_to_the_next_logger() {
        let mut feed = Feed::default();
        feed.push(record("early"));
        let (ours, mut first) = Channel::pair().unwrap();
        feed.attach(ours, 0);
        feed.flush();
        ["b", "c", "d"].into_iter().for_each(|text| feed.push(record(text)));
        assert_eq!(arrived(&mut first), numbered(&[(1, "early"), (2, "b"), (3, "c"), (4, "d")]));
        feed.stored(2);
        drop(first);
        feed.push(record("e"));
        assert!(feed.heard().is_err() || !feed.is_attached());
        feed.push(record("f"));
        let (ours, mut second) = Channel::pair().unwrap();
        feed.attach(ours, 3);
        feed.push(record("g"));
        assert_eq!(arrived(&mut second), numbered(&[(4, "d"), (5, "e"), (6, "f"), (7, "g")]));
        feed.stored(7);
        assert_eq!((feed.lost(), feed.bytes, feed.sent), ((0, 0), 0, 0));
    }

    #[test]
    fn a_stalled_logger_costs_lines_that_are_counted_and_no_audit_records() {
        let mut feed = Feed::default();
        let (ours, mut logger) = Channel::pair().unwrap();
        feed.attach(ours, 0);
        let long = "x".repeat(1000);
        let many = 4000;
        (0..many).for_each(|_| feed.push(record(&long)));
        feed.push(Record { msgid: Some("job-end".to_owned()), ..record("audit") });
        let (kept, dropped) = feed.lost();
        assert_eq!(kept + dropped, many + 2, "the record that announces is one more");
        assert!(feed.bytes < ROOM + 4000 && dropped > 1000, "{} bytes, {dropped} dropped", feed.bytes);
        feed.close(&ToLogger::Drain { millis: 1 });
        feed.push(record("late"));
        let mut seen = Vec::new();
        while seen.last().is_none_or(|(number, _)| *number > 0) {
            feed.flush();
            seen.extend(arrived(&mut logger));
        }
        let numbers = seen.iter().map(|(number, _)| *number);
        assert!(numbers.eq((1..=kept).chain([0])));
        let note = format!("{dropped} lines dropped between agent and logger");
        let last: Vec<&str> = seen.iter().rev().take(3).map(|(_, text)| text.as_str()).collect();
        assert_eq!(last, ["Drain { millis: 1 }", "audit", note.as_str()]);
    }

    #[test]
    fn a_record_that_no_logger_takes_is_dropped_once() {
        let mut feed = Feed::default();
        let (ours, mut logger) = Channel::pair().unwrap();
        feed.attach(ours, 0);
        feed.push(record(&"x".repeat(300 * 1024)));
        feed.push(record("next"));
        let note = "1 lines dropped between agent and logger";
        assert_eq!(arrived(&mut logger), numbered(&[(2, note), (3, "next")]));
        assert!(feed.is_attached());
    }
}
