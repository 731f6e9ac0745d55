//! The logger: collects the machine's log from the first moment on and forwards it to the site.
//!
//! One loop serves the sources, the agent and the server. Reading never waits for sending: between the two is a
//! bounded queue, so no sender ever blocks, and what did not fit is counted and announced.

mod backoff;
pub mod collect;
pub mod parse;
mod queue;
mod record;
mod transport;
mod window;

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::collect::{KernelRecord, Sources};
use self::parse::Message;
use self::queue::Queue;
use self::record::{Audit, Entry, Record};
use self::transport::Transport;
use crate::agent::channel::Channel;
use crate::agent::protocol::{self, FromLogger, ToLogger};
use crate::clock::Deadline;

/// Records that are read from one source before the others have their turn.
const BATCH: usize = 256;
/// A flood is announced once in this time, not once a write.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// The agent is dead and the machine about to end: what a server in reach takes in this time.
const ORPHAN_DRAIN: Duration = Duration::from_secs(2);
const WARNING: u8 = 4;
const USER: u8 = 1;
const DAEMON: u8 = 3;
const SYSLOG: u8 = 5;

/// The role's life: collects from `sources`, obeys `control`. Returns the exit code, 0 after a drain that the agent
/// asked for and 1 when the agent was lost.
pub fn run(sources: Sources, control: Channel) -> i32 {
    let mut logger = Logger {
        sources,
        control,
        log: Log { queue: Queue::new(queue::CAPACITY), collected: 0, scratch: Vec::new() },
        transport: Transport::new(),
        host: record::host_name(""),
        announced: Deadline::after(Duration::ZERO),
        ending: None,
        orphan: false,
        deaf: false,
        more: false,
        delivered: 0,
        dropped: 0,
    };
    let mut ready = Ready { dev_log: true, kmsg: true, control: true, link: true };
    loop {
        logger.collect(ready);
        if ready.control {
            logger.obey();
        }
        logger.transport.step(ready.link);
        logger.forward();
        if logger.is_done() {
            return logger.leave();
        }
        ready = logger.wait();
    }
}

struct Logger {
    sources: Sources,
    control: Channel,
    log: Log,
    transport: Transport,
    /// The machine's name, `-` as long as it has none.
    host: String,
    /// When drops may be announced again.
    announced: Deadline,
    /// Set by the order to drain.
    ending: Option<Deadline>,
    /// The agent went away without such an order.
    orphan: bool,
    /// The channel has ended.
    deaf: bool,
    /// The channel holds messages that were already read from its socket, so poll(2) does not see them.
    more: bool,
    delivered: u64,
    dropped: u64,
}

/// What collecting writes to; apart from the sources, whose buffer the records borrow.
struct Log {
    queue: Queue,
    collected: u64,
    scratch: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Ready {
    dev_log: bool,
    kmsg: bool,
    control: bool,
    link: bool,
}

impl Log {
    fn entry(&mut self, record: &Record<'_>) -> Entry {
        self.collected += 1;
        record::render(record, self.collected, &mut self.scratch)
    }

    fn push(&mut self, record: &Record<'_>) {
        let entry = self.entry(record);
        self.queue.push(entry);
    }

    fn own(&mut self, text: &str) -> Entry {
        let message =
            Message { facility: SYSLOG, severity: WARNING, tag: b"ctxinit", pid: None, text: text.as_bytes() };
        self.entry(&Record::trusted(message, SystemTime::now()))
    }

    fn push_own(&mut self, text: &str) {
        let entry = self.own(text);
        self.queue.push(entry);
    }
}

impl Logger {
    fn collect(&mut self, ready: Ready) {
        let Self { sources, log, .. } = self;
        if ready.dev_log {
            for _ in 0..BATCH {
                let Some(record) = sources.next_message() else { break };
                log.push(&record);
            }
        }
        if ready.kmsg {
            for _ in 0..BATCH {
                match sources.next_kernel_record() {
                    Some(KernelRecord::Record(record, missed)) => {
                        if missed > 0 {
                            log.push_own(&format!("{missed} kernel records were overwritten before they were read"));
                        }
                        log.push(&record);
                    }
                    Some(KernelRecord::Broken(error)) => {
                        log.push_own(&format!("the kernel's log cannot be read any more: {error}"));
                    }
                    None => break,
                }
            }
        }
    }

    fn obey(&mut self) {
        self.more = false;
        for _ in 0..BATCH {
            match self.control.try_recv() {
                Ok(Some((ToLogger::Record(record), _))) => self.log.push(&from_agent(&record)),
                Ok(Some((ToLogger::Hostname(name), _))) => self.host = record::host_name(&name),
                Ok(Some((ToLogger::Target { syslog, nameservers }, _))) => {
                    self.transport.set_target(syslog, nameservers);
                }
                Ok(Some((ToLogger::Drain { millis }, _))) => self.end(Duration::from_millis(millis.into())),
                Ok(None) => return,
                Err(error) => {
                    // End-of-file or nonsense: either way nobody is there who could tell us anything.
                    self.deaf = true;
                    if self.ending.is_none() {
                        self.orphan = true;
                        self.log.push_own(&format!("the agent is lost: {error}"));
                        self.end(ORPHAN_DRAIN);
                    }
                    return;
                }
            }
        }
        self.more = true;
    }

    fn end(&mut self, time: Duration) {
        // What was said before the order belongs to it.
        let everything = Ready { dev_log: true, kmsg: true, control: false, link: false };
        self.collect(everything);
        self.ending = Some(Deadline::after(time));
        self.transport.hurry();
    }

    fn forward(&mut self) {
        while self.transport.is_up() {
            self.delivered += self.transport.write();
            if !self.transport.window.is_empty() || !self.fill() {
                break;
            }
        }
        let waiting = !self.transport.window.is_empty() || !self.log.queue.is_empty() || self.log.queue.has_drops();
        if self.ending.is_some() && !waiting {
            self.transport.finish();
        }
    }

    /// Moves records from the queue to the empty window, behind the word on those that were dropped. Returns whether
    /// there were any.
    fn fill(&mut self) -> bool {
        let Self { log, transport, host, .. } = self;
        if (self.announced.passed() || log.queue.is_empty())
            && let Some(drops) = log.queue.take_drops()
        {
            self.dropped += drops.count;
            self.announced = Deadline::after(ANNOUNCE);
            transport.window.push(&log.own(&drops.to_string()), host);
        }
        while transport.window.has_room()
            && let Some(entry) = log.queue.pop()
        {
            transport.window.push(&entry, host);
        }
        !transport.window.is_empty()
    }

    fn is_done(&self) -> bool {
        self.ending.is_some_and(|deadline| deadline.passed() || self.transport.is_over())
    }

    fn leave(mut self) -> i32 {
        let dropped = self.dropped + self.log.queue.take_drops().map_or(0, |drops| drops.count);
        let waiting = self.log.queue.len() + self.transport.window.len();
        let answer = FromLogger::Drained { delivered: self.delivered, undelivered: dropped + waiting as u64 };
        // The only message this way, so it fits into the socket; an agent that is gone needs no answer.
        let _ = self.control.send(&answer, b"");
        i32::from(self.orphan)
    }

    fn wait(&self) -> Ready {
        let timers = [self.ending, self.transport.timer()];
        let timeout = timers.into_iter().flatten().min().map_or(PollTimeout::NONE, Deadline::poll_timeout);
        // A socket of ours that is watched for nothing, and so never ready, in the place of what is not there.
        let nothing = || PollFd::new(self.sources.dev_log(), PollFlags::empty());
        let control = PollFd::new(self.control.as_fd(), self.control.interest());
        let mut fds = [
            PollFd::new(self.sources.dev_log(), PollFlags::POLLIN),
            self.sources.kmsg().map_or_else(nothing, |fd| PollFd::new(fd, PollFlags::POLLIN)),
            // The channel of a dead agent would be readable for ever.
            if self.deaf { nothing() } else { control },
            self.transport.interest().map_or_else(nothing, |(fd, flags)| PollFd::new(fd, flags)),
        ];
        let timeout = if self.more { PollTimeout::ZERO } else { timeout };
        // Interrupted, or out of memory: then nothing is ready, and the next call knows more.
        let _ = poll(&mut fds, timeout);
        let [dev_log, kmsg, control, link] = fds.map(|fd| fd.any().unwrap_or(true));
        Ready { dev_log, kmsg, control: control || self.more, link }
    }
}

/// Payloads speak as users, the machinery as a daemon. No stamp: what the agent passes on has come to it by a pipe.
fn from_agent(record: &protocol::Record) -> Record<'_> {
    let audit = record.msgid.as_deref().map(|id| Audit { id, data: &record.data });
    let facility = match (audit, &record.job) {
        (Some(_), _) => record::AUDIT,
        (None, Some(_)) => USER,
        (None, None) => DAEMON,
    };
    let (tag, text) = (record.tag.as_bytes(), record.text.as_bytes());
    let message = Message { facility, severity: record.severity, tag, pid: record.pid, text };
    let time = UNIX_EPOCH + Duration::from_micros(record.unix_micros);
    Record { job: record.job.as_deref(), audit, ..Record::trusted(message, time) }
}
