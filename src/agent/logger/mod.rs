//! The agent's side of the log: keeps one logger at work, whatever happens to it, and knows what became of the records.
//!
//! A logger that dies is followed by another at once. That one goes on with the same memory and the same sockets
//! ([`Lasting`]), is told again what the first was told, and gets those of the agent's records that are not stored.

mod feed;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

pub use self::feed::Feed;
use super::events::{Events, Stop};
use super::report::LogReport;
use super::{Agent, audit, roles};
use crate::clock::Deadline;
use crate::ids;
use crate::logging;
use crate::protocol::channel::Channel;
use crate::protocol::{FromLogger, ToLogger};
use crate::sys::process::{Child, Exit};
use crate::syslog::lasting::Lasting;
use crate::syslog::ledger::Count;
use crate::syslog::{self, Origin};

/// Deaths that may come within [`WINDOW`]: more are no accident, and the next logger would die like the last one.
const DEATHS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// Jobs that a new logger is told of. 1024 run at a time at most, and what earlier ones said is read within moments.
const JOBS: usize = 1040;
/// For a job's name to be on its way: a logger that takes longer does not hold up the work.
const NAMING: Duration = Duration::from_secs(1);
/// For the last log records; a server that takes longer has stalled.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The logger's answer comes after its own deadline, and after the last write to a spool (`sync::LAST`).
pub const ANSWER: Duration = Duration::from_secs(2);

/// The logger of the moment, and everything that outlives it.
#[derive(Debug)]
pub struct Log {
    lasting: Lasting,
    origin: Origin,
    logger: Option<Logger>,
    words: Words,
    deaths: Deaths,
    restarts: u64,
    reached: bool,
    /// Set once it is to drain.
    ending: Option<Deadline>,
    drained: Option<Drained>,
    /// Why no further one is started.
    broken: Option<String>,
}

#[derive(Debug)]
struct Logger {
    child: Child,
    /// Its channel once more, for waits: the feed has the other descriptor.
    ear: OwnedFd,
}

/// What each logger has to be told anew.
#[derive(Debug, Default)]
struct Words {
    hostname: Option<ToLogger>,
    target: Option<(ToLogger, Vec<u8>)>,
    jobs: VecDeque<ToLogger>,
}

/// The logger's last word.
#[derive(Clone, Copy, Debug)]
struct Drained {
    delivered: u64,
    undelivered: u64,
}

impl Log {
    /// Starts the first logger.
    ///
    /// # Errors
    /// Those of fork(2), pipe2(2) and socketpair(2).
    pub fn start(events: &mut Events, lasting: Lasting, origin: Origin) -> io::Result<Self> {
        let mut log = Self {
            lasting,
            origin,
            logger: None,
            words: Words::default(),
            deaths: Deaths::default(),
            restarts: 0,
            reached: false,
            ending: None,
            drained: None,
            broken: None,
        };
        log.begin(events)?;
        Ok(log)
    }

    fn begin(&mut self, events: &mut Events) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        let ear = Feed::ear(&ours)?;
        let keep = [self.lasting.fds(), vec![roles::fd(&theirs)]].concat();
        let stored = self.lasting.count(Count::Agent);
        let drain = self.drain_order();
        // Before it runs: what it finds at its sockets is to meet the names of jobs, and the limits.
        logging::with_feed(|feed| {
            feed.attach(ours, stored);
            self.words.all().for_each(|(word, body)| feed.say(word, body));
            feed.flush();
            if let Some(drain) = &drain {
                feed.close(drain);
            }
        });
        let (lasting, origin) = (&mut self.lasting, &self.origin);
        let child = roles::start(events, "logger", ids::LOGGER, &keep, || syslog::run(lasting, origin, theirs));
        if child.is_err() {
            logging::with_feed(Feed::detach);
        }
        self.logger = Some(Logger { child: child?, ear });
        Ok(())
    }

    fn drain_order(&self) -> Option<ToLogger> {
        let left = self.ending?.left().as_millis();
        Some(ToLogger::Drain { millis: u32::try_from(left).unwrap_or(u32::MAX) })
    }

    /// Tells the logger, and each one that follows it.
    pub fn say(&mut self, word: ToLogger, body: Vec<u8>) {
        logging::with_feed(|feed| feed.say(&word, &body));
        self.words.keep(word, body);
    }

    /// Hears it, and sees to it that one is there. Called at each of the agent's waits.
    pub fn attend(&mut self, events: &mut Events) {
        self.hear();
        let stored = self.lasting.count(Count::Agent);
        let attached = logging::with_feed(|feed| {
            feed.stored(stored);
            feed.flush();
            feed.is_attached()
        });
        let Some(logger) = &self.logger else { return };
        match logger.child.try_wait() {
            Ok(Some(exit)) => self.died(events, exit),
            Ok(None) if attached == Some(false) && self.drained.is_none() => {
                // It lives and hears nobody: the next one will do better.
                let _ = logger.child.signal(Signal::SIGKILL);
            }
            Ok(None) => {}
            Err(error) => log::error!("the logger cannot be waited for: {error}"),
        }
    }

    fn hear(&mut self) {
        while let Some(Ok(Some(word))) = logging::with_feed(Feed::heard) {
            match word {
                FromLogger::Reached if !self.reached => {
                    self.reached = true;
                    log::info!("a syslog server takes the log");
                }
                FromLogger::Lost if self.reached => {
                    self.reached = false;
                    log::warn!("no syslog server takes the log any more");
                }
                FromLogger::Reached | FromLogger::Lost => {}
                FromLogger::Drained { delivered, undelivered } => {
                    self.drained = Some(Drained { delivered, undelivered });
                }
            }
        }
    }

    fn died(&mut self, events: &mut Events, exit: Exit) {
        // What it said last.
        self.hear();
        logging::with_feed(Feed::detach);
        self.logger = None;
        if self.drained.is_some() {
            return;
        }
        self.reached = false;
        log::error!("the logger died: {exit}");
        while self.logger.is_none() {
            if self.deaths.is_too_many(Instant::now()) {
                let why = format!("the logger died {} times in {} s, the last: {exit}", DEATHS + 1, WINDOW.as_secs());
                log::error!("{why}; no other is started");
                self.broken = Some(why);
                return;
            }
            self.restarts += 1;
            match self.begin(events) {
                Ok(()) => audit::log_restart(&exit.to_string(), self.restarts),
                Err(error) => log::error!("no other logger can be started: {error}"),
            }
        }
    }

    /// Descriptors for a wait, which [`Log::attend`] follows.
    pub fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let Some(Logger { child, ear }) = &self.logger else { return Vec::new() };
        let interest = logging::with_feed(|feed| feed.interest()).unwrap_or(PollFlags::empty());
        // The ear of a feed without a channel would be ready for ever.
        let ear = (!interest.is_empty()).then(|| (ear.as_fd(), interest));
        [(child.as_fd(), PollFlags::POLLIN)].into_iter().chain(ear).collect()
    }

    /// Whether a server takes records now.
    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// Why there is no logger any more; then the machine ends, as its trace would.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn is_over(&self) -> bool {
        self.drained.is_some() || self.logger.is_none()
    }

    /// Gives the order to drain. A machine that ends as its loggers died has one more try: somebody should read why.
    fn drain(&mut self, events: &mut Events) {
        self.ending = Some(Deadline::after(DRAIN));
        match (&self.logger, self.drain_order()) {
            (Some(_), Some(order)) => drop(logging::with_feed(|feed| feed.close(&order))),
            _ => {
                self.deaths = Deaths::default();
                if let Err(error) = self.begin(events) {
                    log::error!("no other logger can be started: {error}");
                }
            }
        }
    }

    /// What became of the records so far; at the end in the logger's own words, if it could say them.
    pub fn report(&self) -> LogReport {
        let count = |of| self.lasting.count(of);
        let (unstored, lines) = logging::with_feed(|feed| feed.lost()).unwrap_or_default();
        let dropped = count(Count::Dropped) + count(Count::Unnumbered);
        let (delivered, undelivered) = match self.drained {
            Some(Drained { delivered, undelivered }) => (delivered, undelivered),
            None => {
                let tail = count(Count::Tail);
                let waiting = count(Count::Waiting).saturating_sub(tail);
                (count(Count::Delivered) + tail, dropped + waiting + unstored)
            }
        };
        LogReport {
            reached: self.reached,
            delivered,
            undelivered: undelivered + lines,
            waiting: undelivered.saturating_sub(dropped),
            dropped: dropped + lines,
            restarts: self.restarts,
            spooled: self.lasting.has_spool().then(|| count(Count::Spooled)),
        }
    }
}

impl Words {
    fn keep(&mut self, word: ToLogger, body: Vec<u8>) {
        match word {
            ToLogger::Hostname(_) => self.hostname = Some(word),
            ToLogger::Target { .. } => self.target = Some((word, body)),
            ToLogger::Job { .. } => {
                if self.jobs.len() == JOBS {
                    self.jobs.pop_front();
                }
                self.jobs.push_back(word);
            }
            ToLogger::Record { .. } | ToLogger::Drain { .. } => {}
        }
    }

    fn all(&self) -> impl Iterator<Item = (&ToLogger, &[u8])> {
        let bare = self.hostname.iter().chain(&self.jobs).map(|word| (word, [].as_slice()));
        bare.chain(self.target.iter().map(|(word, body)| (word, body.as_slice())))
    }
}

/// When loggers died.
#[derive(Debug, Default)]
struct Deaths(VecDeque<Instant>);

impl Deaths {
    /// One more.
    fn is_too_many(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        self.0.retain(|death| now.duration_since(*death) <= WINDOW);
        self.0.len() > DEATHS
    }
}

/// Tells the logger, if there is one.
pub fn say(agent: &mut Agent, word: ToLogger, body: Vec<u8>) {
    if let Some(log) = agent.events.log_mut() {
        log.say(word, body);
    }
}

/// Tells the logger whose processes a uid's are, and waits until the word is on its way: it may have others before it that the
/// logger has no room for yet.
pub fn name_job(events: &mut Events, uid: u32, job: String, owner: String) {
    if let Some(log) = events.log_mut() {
        log.say(ToLogger::Job { uid, job, owner }, Vec::new());
    }
    // A wish to end is met again by the next wait.
    let _ =
        events.wait_until(&[], Deadline::after(NAMING), |_| logging::with_feed(|feed| feed.is_sent()) != Some(false));
}

/// Whether a job may start: no trace, no work, where the site says so.
///
/// # Errors
/// Why it may not.
pub fn ready(agent: &Agent) -> Result<(), &'static str> {
    let required = agent.site.syslog.as_ref().is_some_and(|syslog| syslog.require);
    match required && !agent.events.log().is_some_and(Log::is_reached) {
        true => Err("no syslog server takes the log, and the context requires one (syslog.require)"),
        false => Ok(()),
    }
}

/// Waits for [`ready`], so long at most.
///
/// # Errors
/// [`Stop`].
pub fn wait_until_ready(agent: &mut Agent, limit: Duration) -> Result<(), Stop> {
    agent.events.wait_until(&[], Deadline::after(limit), |events| events.log().is_some_and(Log::is_reached))?;
    Ok(())
}

/// Puts what became of the log into the report, and saves that.
pub fn save_report(agent: &mut Agent) {
    agent.report.log = agent.events.log().map(Log::report).or(agent.report.log);
    agent.report.save();
}

/// Delivers what is logged so far, and says what became of it. What is logged from now on is for the console alone: it
/// would meet a logger that has answered and left.
pub fn drain(events: &mut Events) -> Option<LogReport> {
    events.with_log(Log::drain);
    let over = |events: &Events| events.log().is_none_or(Log::is_over);
    let _ = events.wait_until(&[], Deadline::after(DRAIN + ANSWER), over);
    events.log().map(Log::report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fourth_death_in_a_minute_is_too_many() {
        let start = Instant::now();
        let die = |times: &[u64]| {
            let mut deaths = Deaths::default();
            times.iter().map(|secs| deaths.is_too_many(start + Duration::from_secs(*secs))).collect::<Vec<_>>()
        };
        assert_eq!(die(&[0, 1, 59, 60]), [false, false, false, true]);
        assert_eq!(die(&[0, 1, 59, 61]), [false; 4]);
        assert_eq!(die(&[0, 30, 61, 91, 122, 152]), [false; 6]);
    }

    #[test]
    fn the_next_logger_is_told_what_the_last_one_was() {
        let mut words = Words::default();
        let job = |uid| ToLogger::Job { uid, job: format!("job-{uid}"), owner: String::new() };
        words.keep(ToLogger::Hostname("a".to_owned()), Vec::new());
        (0..JOBS as u32 + 4).for_each(|uid| words.keep(job(uid), Vec::new()));
        words.keep(ToLogger::Hostname("b".to_owned()), Vec::new());
        let all: Vec<ToLogger> = words.all().map(|(word, _)| word.clone()).collect();
        let expected: Vec<_> =
            [ToLogger::Hostname("b".to_owned())].into_iter().chain((4..JOBS as u32 + 4).map(job)).collect();
        assert_eq!(all, expected);
    }
}
