//! The worker's life: claim ([`super::claim`]), hold, settle ([`super::settle`]), and again; from whatever source.

use std::io;
use std::time::Duration;

use super::lease::Lease;
use super::source::{Reply, Source, Value};
use super::{Pace, ban_list};
use crate::clock::Deadline;
use crate::protocol::channel::Channel;
use crate::protocol::{Fate, FromWorker, ToWorker, Token};

/// An idle worker wakes this often for nothing, as no wait is without a deadline.
const IDLE: Duration = Duration::from_secs(3600);

/// The role's state between messages.
pub struct Worker {
    pub(super) source: Box<dyn Source>,
    ban_list: Option<ban_list::Source>,
    pub(super) pace: Pace,
    channel: Channel,
    /// The locks of this machine's earlier lives were looked for, or another slot's worker does that.
    pub(super) recovered: bool,
    /// What claims without an answer have locked was looked for a last time.
    pub(super) swept: bool,
    /// `Stop` was seen, or the agent is gone: what remains is to be done by then.
    leaving: Option<Deadline>,
}

/// The machine ends: nothing more is waited for.
pub(super) struct Leaving;

/// How a token's stay ends.
pub(super) enum End {
    Settled(Fate, String),
    AgentGone(io::Error),
}

/// A lock that is ours no more.
pub(super) struct Loss {
    pub(super) why: String,
    /// The server said so, as against: it was silent for too long.
    pub(super) told: bool,
}

/// Answers every claim alike, where no work can ever come.
pub fn refuse(mut channel: Channel, why: &str) -> io::Result<()> {
    loop {
        match channel.recv::<ToWorker>(Deadline::after(IDLE))? {
            Some((ToWorker::Claim, _)) => {
                channel.send(&FromWorker::Refused { why: why.to_owned(), broken: true }, b"")?;
            }
            Some((ToWorker::Stop, _)) => return Ok(()),
            _ => {}
        }
    }
}

impl Worker {
    /// An idle worker of this slot. That of slot 0 looks for what the whole machine has left.
    pub fn new(
        source: Box<dyn Source>,
        ban_list: Option<ban_list::Source>,
        slot: u32,
        pace: Pace,
        channel: Channel,
    ) -> Self {
        Self { source, ban_list, pace, channel, recovered: slot != 0, swept: false, leaving: None }
    }

    /// Serves until `Stop`.
    ///
    /// # Errors
    /// When the agent is gone; the token that was held then is given back.
    pub fn serve(mut self) -> io::Result<()> {
        while self.leaving.is_none() {
            match self.channel.recv::<ToWorker>(self.or_ban_list(Deadline::after(IDLE)))? {
                None => self.fetch_ban_list()?,
                Some((ToWorker::Claim, _)) => self.work()?,
                Some((ToWorker::Stop, _)) => self.leave(),
                Some((message, _)) => log::warn!("worker: {message:?} without a token"),
            }
        }
        self.say_out();
        self.free_last_strays();
        Ok(())
    }

    /// The agent hears the last word even where it has not yet taken a token of megabytes before it.
    fn say_out(&mut self) {
        let deadline = Deadline::after(self.pace.farewell);
        let step = self.pace.farewell / 100;
        while self.channel.backlog() > 0
            && !deadline.passed()
            && self.channel.recv::<ToWorker>(Deadline::after(step)).is_ok()
        {}
    }

    /// This deadline, or that of the next look at the ban list.
    fn or_ban_list(&self, deadline: Deadline) -> Deadline {
        self.ban_list.as_ref().map_or(deadline, |list| list.due().min(deadline))
    }

    /// If it is due.
    fn fetch_ban_list(&mut self) -> io::Result<()> {
        let limit = self.pace.brief();
        let Some(list) = self.ban_list.as_mut().filter(|list| list.due().passed()) else { return Ok(()) };
        let (message, body) = list.fetch(limit);
        self.channel.send(&message, &body)
    }

    fn work(&mut self) -> io::Result<()> {
        // The agent knows the newest one before it decides about the token.
        self.fetch_ban_list()?;
        let (mut lease, value) = match self.claim() {
            Ok(claimed) => claimed,
            Err(answer) => return self.channel.send(&answer, b""),
        };
        match self.hold(&mut lease, value) {
            End::Settled(fate, note) => self.channel.send(&FromWorker::Settled { fate, note }, b""),
            End::AgentGone(error) => {
                self.release(&lease, "the agent is gone");
                Err(error)
            }
        }
    }

    /// From `Claimed` to what is to be `Settled`.
    fn hold(&mut self, lease: &mut Lease, value: Value) -> End {
        let Value { body, media_type, owner, leases, pilot } = value;
        let token = Token { id: lease.id().to_owned(), leases, media_type, owner, pilot };
        if let Err(error) = self.channel.send(&FromWorker::Claimed(token), &body) {
            return End::AgentGone(error);
        }
        drop(body);
        loop {
            match self.channel.recv::<ToWorker>(self.or_ban_list(lease.renew_at)) {
                Err(error) => return End::AgentGone(error),
                Ok(None) if !lease.renew_at.passed() => {
                    if let Err(error) = self.fetch_ban_list() {
                        return End::AgentGone(error);
                    }
                }
                Ok(None) => {
                    if let Err(loss) = self.renew(lease, self.pace.brief()) {
                        return self.lost(lease, loss).unwrap_or_else(End::AgentGone);
                    }
                }
                Ok(Some((ToWorker::Finished, result))) => {
                    let (fate, note) = self.finish(lease, &result);
                    return End::Settled(fate, note);
                }
                Ok(Some((ToWorker::Failed { why, again }, _))) => {
                    let (fate, note) = self.failed(lease, leases, &why, again);
                    return End::Settled(fate, note);
                }
                Ok(Some((ToWorker::Release { why }, _))) => {
                    log::info!("worker: token {} goes back: {why}", lease.id());
                    let (fate, note) = self.release(lease, &why);
                    return End::Settled(fate, note);
                }
                Ok(Some((ToWorker::Stop, _))) => {
                    let why = "no more work is wanted";
                    log::info!("worker: token {} goes back: {why}", lease.id());
                    self.leave();
                    let (fate, note) = self.release(lease, why);
                    return End::Settled(fate, note);
                }
                Ok(Some((ToWorker::Claim, _))) => log::warn!("worker: Claim while token {} is held", lease.id()),
            }
        }
    }

    /// Tells the agent, and waits until the payload is stopped. Whatever it answers, the token is not touched.
    fn lost(&mut self, lease: &Lease, loss: Loss) -> io::Result<End> {
        let Loss { why, told } = loss;
        log::warn!("worker: {why}");
        self.channel.send(&FromWorker::LeaseLost { why: why.clone() }, b"")?;
        loop {
            match self.channel.recv::<ToWorker>(Deadline::after(IDLE))? {
                None | Some((ToWorker::Claim, _)) => {}
                Some((ToWorker::Finished | ToWorker::Failed { .. } | ToWorker::Release { .. }, _)) => break,
                Some((ToWorker::Stop, _)) => {
                    self.leave();
                    break;
                }
            }
        }
        if told {
            return Ok(End::Settled(Fate::Lost, why));
        }
        // A renewal whose answer was lost keeps the token locked for nothing.
        let (_, note) = self.release(lease, &why);
        Ok(End::Settled(Fate::Lost, format!("{why}; {note}")))
    }

    /// Renews the lock if that is due.
    pub(super) fn keep(&mut self, lease: &mut Lease, limit: Duration) -> Result<(), Loss> {
        if lease.renew_at.passed() { self.renew(lease, limit) } else { Ok(()) }
    }

    /// Renews the lock. A failure that may pass is no loss while the lock lives; it shows in `lease.failure`.
    pub(super) fn renew(&mut self, lease: &mut Lease, limit: Duration) -> Result<(), Loss> {
        let until = Deadline::after(self.pace.held());
        let expired = lease.until.passed();
        // What has failed up to the end is not tried beyond it: the rest of the lock's time is for the payload's end.
        if let Some(why) = lease.failure.clone().filter(|_| expired) {
            return Err(self.late(lease, &why));
        }
        match self.source.renew(&lease.held, lease.limit(limit, &self.pace)) {
            Reply::Done(()) => {
                if lease.failure.is_some() {
                    log::info!("worker: the lock on token {} is renewed again", lease.id());
                }
                lease.renewed(until, &self.pace);
                Ok(())
            }
            Reply::Absent(_) => Err(Loss { why: self.whereabouts(lease), told: true }),
            Reply::Unsure { why, .. } | Reply::Refused(why) => {
                if expired {
                    return Err(self.late(lease, &why));
                }
                if lease.failure.is_none() {
                    log::warn!("worker: the lock on token {} is not renewed yet: {why}", lease.id());
                }
                lease.postponed(why, &self.pace);
                Ok(())
            }
        }
    }

    /// Nobody has said so, but the lock counts as lost.
    pub(super) fn late(&self, lease: &Lease, why: &str) -> Loss {
        Loss { why: format!("the lock on token {} could not be renewed in time: {why}", lease.id()), told: false }
    }

    fn whereabouts(&mut self, lease: &Lease) -> String {
        let id = lease.id();
        // It only words a message, and the machine may be about to end.
        match self.source.look(&lease.held, self.pace.brief().min(self.pace.farewell / 2)) {
            Reply::Absent(_) => format!("token {id} was deleted elsewhere: finished or cancelled"),
            Reply::Done(()) => format!("the lock on token {id} ran out or was broken"),
            Reply::Unsure { .. } | Reply::Refused(_) => format!("the lock on token {id} is gone"),
        }
    }

    /// Waits before another try.
    pub(super) fn pause(&mut self) -> Result<(), Leaving> {
        self.listen(self.pace.retry())
    }

    /// Between two calls. Not while a payload runs: `Finished` would be lost.
    pub(super) fn heed(&mut self) -> Result<(), Leaving> {
        self.listen(Duration::ZERO)
    }

    fn listen(&mut self, span: Duration) -> Result<(), Leaving> {
        let deadline = Deadline::after(span);
        while self.leaving.is_none() {
            match self.channel.recv::<ToWorker>(deadline) {
                Ok(None) => return Ok(()),
                Ok(Some((ToWorker::Stop, _))) => self.leave(),
                Ok(Some((message, _))) => log::warn!("worker: unexpected {message:?}"),
                // The same as a Stop; that nobody is there shows again when the answer is sent.
                Err(_) => self.leave(),
            }
        }
        Err(Leaving)
    }

    fn leave(&mut self) {
        self.leaving.get_or_insert_with(|| Deadline::after(self.pace.farewell));
    }

    /// How long a call may take now. Once the machine ends, half of the farewell is for the steps that remain
    /// and half for giving the token back.
    pub(super) fn hurried(&self, limit: Duration) -> Duration {
        // Never 0, which ureq takes for a second.
        let rest = |end: Deadline| end.left().saturating_sub(self.pace.farewell / 2).max(Duration::from_millis(1));
        self.leaving.map_or(limit, |end| limit.min(rest(end)))
    }

    /// For giving a token back.
    pub(super) fn farewell(&self) -> Deadline {
        let rest = |end: Deadline| end.left().max(self.pace.farewell / 2);
        Deadline::after(self.leaving.map_or(self.pace.farewell, rest))
    }
}
