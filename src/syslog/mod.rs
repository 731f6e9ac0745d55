//! The logger: collects the machine's log from the first moment on and forwards it to the site.
//!
//! One loop serves the sources, the agent and the server. Reading never waits for sending: between the two is a
//! bounded store, so no sender ever blocks, and what did not fit is counted and announced. What it holds outlives it:
//! the store's memory, the sources' descriptors and a ledger are the agent's, who gives them to the next logger.

mod clock;
pub mod collect;
mod hear;
mod kept;
pub mod lasting;
pub mod ledger;
mod once;
pub mod parse;
pub mod record;
mod rules;
pub mod spool;
pub mod store;
mod sync;
mod transport;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::collect::Collector;
use self::kept::Log;
use self::lasting::Lasting;
use self::ledger::Count;
use self::record::Writer;
use self::rules::Rules;
use self::store::superblock::{Names, State};
use self::sync::Sync;
use self::transport::Transport;
pub use self::transport::tls;
use crate::clock::Deadline;
use crate::context::syslog::Syslog;
use crate::protocol::channel::Channel;
use crate::protocol::{FromLogger, ToLogger};

/// Messages of the agent that are read before the sources have their turn: more than its socket holds, so that whatever
/// was said before a datagram came is heard before that is.
const BATCH: usize = 4096;
/// A flood is announced once in this time, not once a write.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// The agent is dead and the machine about to end: what a server in reach takes in this time.
const ORPHAN_DRAIN: Duration = Duration::from_secs(2);

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The machine's UUID.
    pub vm: String,
    /// The kernel's boot id.
    pub boot: String,
}

/// The role's life: collects, obeys `control`, forwards. Returns the exit code: 0 after a drain that the agent asked for,
/// 1 when the agent was lost, 2 if its memory cannot be mapped.
pub fn run(lasting: &mut Lasting, origin: &Origin, control: Channel) -> i32 {
    match Logger::begin(lasting, origin, control) {
        Ok(logger) => logger.live(),
        Err(error) => {
            log::error!("cannot map the log's memory: {error}");
            2
        }
    }
}

struct Logger<'a> {
    collector: Collector<'a>,
    control: Channel,
    log: Log,
    rules: Rules,
    transport: Transport,
    /// The machine's name, `-` as long as it has none, and those of the machines whose records wait on the spool.
    names: Names,
    /// Keeps the spool equal to the memory, where there is one.
    spool: Option<Sync>,
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
    /// What the agent was told last of whether a server takes records.
    told: bool,
}

#[derive(Clone, Copy)]
struct Ready {
    datagrams: bool,
    streams: bool,
    kmsg: bool,
    clock: bool,
    control: bool,
}

impl Ready {
    const EVERYTHING: Self = Self { datagrams: true, streams: true, kmsg: true, clock: true, control: true };
}

impl<'a> Logger<'a> {
    fn begin(lasting: &'a mut Lasting, origin: &Origin, control: Channel) -> io::Result<Self> {
        let (store, ledger) = lasting.map()?;
        let names = lasting.names().clone();
        let mut log = Log::new(store, ledger, Writer::new(record::origin(&origin.vm, &origin.boot)));
        let spool = log.start_sync(lasting, &names);
        Ok(Self {
            collector: Collector::new(&mut lasting.sources, log.ledger.get(Count::Kernel))?,
            control,
            log,
            rules: Rules::default(),
            transport: Transport::new(),
            names,
            spool,
            announced: Deadline::after(Duration::ZERO),
            ending: None,
            orphan: false,
            deaf: false,
            more: false,
            told: false,
        })
    }

    fn live(mut self) -> i32 {
        let mut ready = Ready::EVERYTHING;
        loop {
            self.collect(ready);
            self.announce();
            self.forward();
            self.tell();
            self.sync();
            if self.is_done() {
                return self.leave();
            }
            ready = self.wait();
        }
    }

    fn obey(&mut self) {
        self.more = false;
        for _ in 0..BATCH {
            match self.control.try_recv() {
                Ok(Some((ToLogger::Record { number, record }, _))) => {
                    self.take(number, &record);
                }
                Ok(Some((ToLogger::Job { uid, job, owner }, _))) => {
                    let gap = self.rules.name(uid, job, &owner);
                    self.tell_gaps(gap);
                }
                Ok(Some((ToLogger::Hostname(name), _))) => self.rename(&name),
                Ok(Some((ToLogger::Target { syslog, nameservers }, credentials))) => {
                    self.aim(&syslog, &credentials, nameservers);
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

    fn rename(&mut self, name: &str) {
        self.names.set(record::host_name(name));
        if let Some(spool) = &mut self.spool {
            spool.set_state(State { uses: self.log.begin_use(), names: self.names.clone() });
        }
    }

    fn aim(&mut self, syslog: &Syslog, credentials: &[u8], nameservers: Vec<IpAddr>) {
        self.rules.set(syslog);
        let credentials = serde_json::from_slice(credentials).unwrap_or_default();
        if let Err(error) = self.transport.set_target(&mut self.log.store, syslog, &credentials, nameservers) {
            log::error!("{error}");
        }
    }

    fn end(&mut self, time: Duration) {
        // What was said before the order belongs to it.
        self.collect_the_rest();
        self.ending = Some(Deadline::after(time));
        self.transport.hurry();
    }

    /// When drops are to be announced, if there are any: at once if nothing else waits to be sent. Not while the word would
    /// be dropped itself, and be one more to announce.
    fn announcement(&self) -> Option<Deadline> {
        let store = &self.log.store;
        let now = Deadline::after(Duration::ZERO);
        (store.has_drops() && store.has_room()).then(|| if store.is_sent() { now } else { self.announced })
    }

    /// A word on what was dropped; it is an audit record, so no flood drops that too.
    fn announce(&mut self) {
        if self.announcement().is_some_and(Deadline::passed) {
            self.announced = Deadline::after(ANNOUNCE);
            self.log.announce_drops();
        }
        if self.rules.due().is_some_and(|due| due.passed() || self.ending.is_some()) {
            let gaps = self.rules.take_gaps();
            self.tell_gaps(gaps);
        }
    }

    fn forward(&mut self) {
        self.log.deliver(|store| self.transport.step(store, &self.names));
        let Log { store, ledger, .. } = &mut self.log;
        ledger.set(Count::Waiting, store.waiting());
        ledger.set(Count::Tail, self.transport.in_tail());
        if self.ending.is_some() && store.is_sent() && !store.has_drops() && self.rules.due().is_none() {
            self.transport.finish();
        }
    }

    /// Whether a server takes records, when that is new; its end after the drain is none.
    fn tell(&mut self) {
        let up = self.transport.is_up();
        if up != self.told && (up || self.ending.is_none()) {
            self.told = up;
            // An agent that does not hear is dead, and that shows when it is listened to.
            let _ = self.control.send(&if up { FromLogger::Reached } else { FromLogger::Lost }, b"");
        }
    }

    fn sync(&mut self) {
        let said = self.spool.as_mut().and_then(|spool| spool.step(&mut self.log.store));
        if let Some(said) = said {
            self.log.push_own(&said);
        }
    }

    fn is_done(&self) -> bool {
        self.ending.is_some_and(|deadline| deadline.passed() || self.transport.is_over())
    }

    fn leave(mut self) -> i32 {
        let Log { store, ledger, .. } = &mut self.log;
        if let Some(spool) = self.spool.take() {
            if spool.finish(store) {
                ledger.set(Count::Spooled, store.waiting());
            } else {
                log::error!("the spool does not hold the last records");
            }
        }
        ledger.add(Count::Unnumbered, self.rules.take_gaps().iter().map(|gap| gap.count).sum());
        ledger.add(Count::Dropped, store.take_drops().count());
        let in_tail = self.transport.in_tail();
        let dropped = ledger.get(Count::Dropped) + ledger.get(Count::Unnumbered);
        let undelivered = dropped + store.waiting() - in_tail;
        let answer = FromLogger::Drained { delivered: ledger.get(Count::Delivered) + in_tail, undelivered };
        // Few are sent this way, so it fits into the socket; an agent that is gone needs no answer.
        let _ = self.control.send(&answer, b"");
        i32::from(self.orphan)
    }

    fn wait(&self) -> Ready {
        let spool = self.spool.as_ref();
        let sync = spool.and_then(|spool| spool.timer(&self.log.store));
        let timers = [self.ending, self.transport.timer(), self.announcement(), self.rules.due(), sync];
        let timeout = timers.into_iter().flatten().min().map_or(PollTimeout::NONE, Deadline::poll_timeout);
        // A socket of ours that is watched for nothing, and so never ready, in the place of what is not there.
        let nothing = || PollFd::new(self.collector.datagrams(), PollFlags::empty());
        let reading = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let control = PollFd::new(self.control.as_fd(), self.control.interest());
        let mut fds = [
            reading(self.collector.datagrams()),
            self.collector.streams().map_or_else(nothing, reading),
            self.collector.kmsg().map_or_else(nothing, reading),
            self.log.clock.fd().map_or_else(nothing, reading),
            // The channel of a dead agent would be readable for ever.
            if self.deaf { nothing() } else { control },
            self.transport.interest().map_or_else(nothing, |(fd, flags)| PollFd::new(fd, flags)),
            spool.and_then(Sync::interest).map_or_else(nothing, |(fd, flags)| PollFd::new(fd, flags)),
        ];
        let timeout = if self.more { PollTimeout::ZERO } else { timeout };
        // Interrupted, or out of memory: then nothing is ready, and the next call knows more.
        let _ = poll(&mut fds, timeout);
        let [datagrams, streams, kmsg, clock, control, ..] = fds.map(|fd| fd.any().unwrap_or(true));
        Ready { datagrams, streams, kmsg, clock, control: control || self.more }
    }
}

#[cfg(test)]
mod tests;
