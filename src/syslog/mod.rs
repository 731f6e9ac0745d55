//! The logger: collects the machine's log from the first moment on and forwards it to the site.
//!
//! One loop serves the sources, the agent and the server. Reading never waits for sending: between the two is a
//! bounded store, so no sender ever blocks, and what did not fit is counted and announced. What it holds outlives it:
//! the store's memory, the sources' descriptors and a ledger are the agent's, who gives them to the next logger.

mod clock;
pub mod collect;
pub mod lasting;
pub mod ledger;
pub mod parse;
pub mod record;
mod rules;
pub mod spool;
pub mod store;
mod sync;
mod transport;

use std::fmt::Display;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::clock::Clock;
use self::collect::{Collector, KernelRecord};
use self::lasting::Lasting;
use self::ledger::{Count, Ledger};
use self::parse::Message;
use self::record::{Audit, Record, Writer};
use self::rules::{Gap, Rules};
use self::store::superblock::{Names, State};
use self::store::{Dropped, Drops, Store};
use self::sync::Sync;
use self::transport::Transport;
pub use self::transport::tls;
use crate::agent::channel::Channel;
use crate::agent::protocol::{self, FromLogger, ToLogger};
use crate::clock::Deadline;
use crate::context::syslog::Syslog;

/// Records that are read from one source before the others have their turn.
const BATCH: usize = 256;
/// The same for a source that gives many at a time.
const TURNS: usize = 8;
/// As much as a full queue of datagrams gives, and all that clients of streams have under way.
const LAST_TURNS: usize = 64;
/// A flood is announced once in this time, not once a write.
const ANNOUNCE: Duration = Duration::from_secs(1);
/// The agent is dead and the machine about to end: what a server in reach takes in this time.
const ORPHAN_DRAIN: Duration = Duration::from_secs(2);
const WARNING: u8 = 4;
const USER: u8 = 1;
const DAEMON: u8 = 3;
const SYSLOG: u8 = 5;

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
    let (store, ledger) = match lasting.map() {
        Ok(memory) => memory,
        Err(error) => {
            log::error!("cannot map the log's memory: {error}");
            return 2;
        }
    };
    let next_of_kernel = ledger.get(Count::Kernel);
    let mut log = Log::new(store, ledger, Writer::new(record::origin(&origin.vm, &origin.boot)));
    let names = lasting.names().clone();
    let spool = log.start_sync(lasting, &names);
    let mut logger = Logger {
        collector: Collector::new(&mut lasting.sources, next_of_kernel),
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
    };
    let mut ready = Ready::EVERYTHING;
    loop {
        logger.collect(ready);
        logger.announce();
        logger.forward();
        logger.tell();
        logger.sync();
        if logger.is_done() {
            return logger.leave();
        }
        ready = logger.wait();
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

/// What collecting writes to; apart from the sources, whose buffer the records borrow.
struct Log {
    store: Store,
    ledger: Ledger,
    writer: Writer,
    clock: Clock,
    /// Of the agent's records, one that the last logger had stored and not yet written down.
    stored: Option<u64>,
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

impl Log {
    /// Goes on where the last one was killed, and says so.
    fn new(store: Store, ledger: Ledger, writer: Writer) -> Self {
        let mut log = Self { store, ledger, writer, clock: Clock::new(), stored: None };
        let starts = log.ledger.get(Count::Starts);
        log.ledger.set(Count::Starts, starts + 1);
        if starts == 0 {
            // Of an earlier life of the machine.
            log.ledger.set(Count::Before, log.store.last());
            log.ledger.set(Count::Last, log.store.last());
            log.ledger.set(Count::Earlier, log.store.waiting());
        }
        log.begin_use();
        if starts > 0 {
            log.recover();
            // Before anything is stored, which may drop more.
            log.announce_unannounced();
            let (waiting, last) = (log.store.waiting(), log.ledger.get(Count::Last) - log.ledger.get(Count::Before));
            log.push_own(&format!(
                "the logger was started again after number {last}: {waiting} records may come twice, and what it had \
                 read from its senders and not yet written down is lost"
            ));
        }
        log
    }

    /// The next in the count of uses of the memory.
    fn begin_use(&mut self) -> u64 {
        self.ledger.add(Count::Uses, 1);
        let uses = self.ledger.get(Count::Uses);
        self.store.begin_use(uses, self.ledger.get(Count::Before));
        uses
    }

    fn start_sync(&mut self, lasting: &Lasting, names: &Names) -> Option<Sync> {
        let state = State { uses: self.ledger.get(Count::Uses), names: names.clone() };
        match lasting.sync(state)? {
            Ok(sync) => {
                if self.ledger.get(Count::Starts) > 1 {
                    self.store.change_all();
                }
                Some(sync)
            }
            Err(error) => {
                self.push_own(&format!("the spool is not written: {error}: records wait in memory alone"));
                None
            }
        }
    }

    /// The last logger may have been killed between a record and the numbers that go with it.
    fn recover(&mut self) {
        let Self { store, ledger, .. } = self;
        let last = ledger.get(Count::Last).max(store.last());
        ledger.set(Count::Last, last);
        let next = ledger.get(Count::AgentNext);
        if next > ledger.get(Count::Agent) && last >= ledger.get(Count::AgentAs) {
            ledger.set(Count::Agent, next);
            self.stored = Some(next);
        }
    }

    /// What the last logger had dropped and not yet announced when it was killed: all that was made and is neither here nor
    /// accounted for.
    fn announce_unannounced(&mut self) {
        let count = |of| self.ledger.get(of);
        let made = count(Count::Last) - count(Count::Before) + count(Count::Earlier);
        let known = count(Count::Delivered) + count(Count::Dropped) + self.store.waiting();
        let (missing, last) = (made.saturating_sub(known), count(Count::Last) - count(Count::Before));
        if missing > 0 {
            self.ledger.add(Count::Dropped, missing);
            let text = format!("dropped {missing} records before number {last}: the queue was full");
            self.push_gap(missing, 1, last, &text);
        }
    }

    /// Says what was dropped, in numbers that a site sees.
    fn announce_drops(&mut self) {
        let before = self.ledger.get(Count::Before);
        let Dropped { earlier, own } = self.store.take_drops();
        self.ledger.add(Count::Dropped, earlier + own.map_or(0, |own| own.count));
        if earlier > 0 {
            let text = format!("dropped {earlier} records of earlier boots: the spool was full");
            self.push_audit("log-gap", &[("source", &"spool"), ("count", &earlier)], &text);
        }
        if let Some(Drops { count, first, last }) = own {
            let (first, last) = (first - before, last - before);
            let text = format!("dropped {count} records, numbers {first} to {last}: the queue was full");
            self.push_gap(count, first, last, &text);
        }
    }

    /// Runs what stores one of the agent's. Whenever this process is killed, the next one knows whether it is stored.
    fn of_agent(&mut self, number: u64, store: impl FnOnce(&mut Self)) {
        if self.stored.take_if(|stored| *stored == number).is_some() {
            return;
        }
        self.ledger.set(Count::AgentAs, self.ledger.get(Count::Last) + 1);
        self.ledger.set(Count::AgentNext, number);
        store(self);
        // Those of its helpers have no number.
        self.ledger.set(Count::Agent, number.max(self.ledger.get(Count::Agent)));
    }

    fn push(&mut self, record: &Record<'_>) {
        let number = self.ledger.get(Count::Last) + 1;
        let entry = self.writer.write(record, number - self.ledger.get(Count::Before), self.clock.is_synced());
        self.store.push(number, &entry);
        self.ledger.set(Count::Last, number);
    }

    fn push_admitted(&mut self, record: Option<Record<'_>>) {
        record.iter().for_each(|record| self.push(record));
    }

    /// What a site goes by when it asks whether something is missing.
    fn push_audit(&mut self, id: &str, data: &[(&str, &dyn Display)], text: &str) {
        let data: Vec<_> = data.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
        let message =
            Message { facility: record::AUDIT, severity: WARNING, tag: b"ctxinit", pid: None, text: text.as_bytes() };
        let audit = Some(Audit { id, data: &data });
        self.push(&Record { audit, ..Record::trusted(message, self.clock.now()) });
    }

    /// Numbers that nobody will see.
    fn push_gap(&mut self, count: u64, first: u64, last: u64, text: &str) {
        let data: [(&str, &dyn Display); 4] =
            [("source", &"queue"), ("count", &count), ("first", &first), ("last", &last)];
        self.push_audit("log-gap", &data, text);
    }

    fn push_own(&mut self, text: &str) {
        let message =
            Message { facility: SYSLOG, severity: WARNING, tag: b"ctxinit", pid: None, text: text.as_bytes() };
        self.push(&Record::trusted(message, self.clock.now()));
    }
}

impl Logger<'_> {
    fn collect(&mut self, ready: Ready) {
        if let Some(micros) = self.log.clock.step(ready.clock) {
            self.log.clock.look();
            let seconds = clock::seconds(micros);
            let text = format!("the clock was set by {seconds} seconds");
            self.log.push_audit("clock-step", &[("correction", &seconds)], &text);
        }
        for turn in 0..TURNS {
            let first = turn == 0;
            let came =
                (ready.datagrams && self.collector.receive()) | (first && ready.streams && self.collector.accept());
            self.log.clock.look();
            // What the agent says of a job it says before the job can say anything: if that has come, so has this.
            if !self.deaf && (came || (first && ready.control)) {
                self.obey();
            }
            self.hear();
            if !came {
                break;
            }
        }
        if ready.streams {
            self.hear_streams();
        }
        if ready.kmsg {
            self.hear_kernel();
        }
    }

    /// Whatever was said before now.
    fn collect_the_rest(&mut self) {
        self.hear();
        for _ in 0..LAST_TURNS {
            let came = self.collector.receive() | self.collector.accept();
            self.log.clock.look();
            self.hear();
            if !self.hear_streams() && !came {
                break;
            }
        }
        self.hear_kernel();
    }

    /// Datagrams that were received.
    fn hear(&mut self) {
        let Self { collector, log, rules, .. } = self;
        let uptime = log.clock.uptime();
        collector.messages(log.clock.now(), |record| log.push_admitted(rules.admit(record, uptime)));
    }

    fn hear_streams(&mut self) -> bool {
        let Self { collector, log, rules, .. } = self;
        let uptime = log.clock.uptime();
        collector.read_streams(log.clock.now(), |record| log.push_admitted(rules.admit(record, uptime)))
    }

    fn hear_kernel(&mut self) {
        let Self { collector, log, rules, .. } = self;
        for _ in 0..BATCH {
            match collector.next_kernel_record(log.clock.now()) {
                Some(KernelRecord::Record { record, sequence, missed }) => {
                    if !missed.is_empty() {
                        let count = missed.end - missed.start;
                        let text = format!("{count} records of the kernel were overwritten before they were read");
                        let (from, to) = (missed.start, missed.end - 1);
                        log.push_audit(
                            "log-gap",
                            &[("source", &"kernel"), ("count", &count), ("from", &from), ("to", &to)],
                            &text,
                        );
                    }
                    log.push_admitted(rules.is_wanted(record.severity).then_some(record));
                    log.ledger.set(Count::Kernel, sequence.saturating_add(1));
                }
                Some(KernelRecord::Broken(error)) => {
                    log.push_own(&format!("the kernel's log cannot be read any more: {error}"));
                }
                None => break,
            }
        }
    }

    /// A record of the agent. A job's output counts as what the job says.
    fn take(&mut self, number: u64, record: &protocol::Record) {
        let Self { log, rules, .. } = self;
        let message = from_agent(record);
        let wanted = message.audit.is_some() || rules.is_wanted(message.severity);
        log.of_agent(number, |log| match &record.job {
            _ if !wanted => {}
            Some(name) => {
                // For a job that nobody has named to us.
                let data = record::job(name, "");
                let message = Record { job: Some(&data), ..message };
                log.push_admitted(rules.admit_named(message, name, log.clock.uptime()));
            }
            None => log.push(&message),
        });
    }

    /// Records of a job that were too many; each is an audit record, so no flood drops that too.
    fn tell_gaps(&mut self, gaps: impl IntoIterator<Item = Gap>) {
        for Gap { uid, job, count } in gaps {
            self.log.ledger.add(Count::Unnumbered, count);
            let text = format!("dropped {count} records of {job}: more than the site takes of one payload");
            let data: [(&str, &dyn Display); 4] =
                [("source", &"rate"), ("uid", &uid), ("job", &job), ("count", &count)];
            self.log.push_audit("log-gap", &data, &text);
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

    /// When drops are to be announced, if there are any: at once if nothing else waits to be sent.
    fn announcement(&self) -> Option<Deadline> {
        let store = &self.log.store;
        let now = Deadline::after(Duration::ZERO);
        store.has_drops().then(|| if store.is_sent() { now } else { self.announced })
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
        let Log { store, ledger, .. } = &mut self.log;
        let done = self.transport.step(store, &self.names);
        ledger.add(Count::Delivered, done);
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
    Record { audit, ..Record::trusted(message, time) }
}
