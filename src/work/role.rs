//! The worker's life: claim, hold, settle ([`super::settle`]), and again.

use std::io;
use std::time::Duration;

use super::answer::{self, Claim};
use super::lease::Lease;
use super::topos::{Pool, Reply, Value};
use super::{Identity, Pace};
use crate::agent::channel::Channel;
use crate::agent::protocol::{Fate, FromWorker, ToWorker, Token};
use crate::clock::Deadline;

/// An idle worker wakes this often for nothing, as no wait is without a deadline.
const IDLE: Duration = Duration::from_secs(3600);
/// How long a token that is ours is tried to be read. ToPoS users have needed 3 tries 10 s apart.
const FETCH: Duration = Duration::from_secs(120);

/// The role's state between messages.
pub struct Worker {
    pub(super) pool: Pool,
    identity: Identity,
    owner: String,
    pub(super) pace: Pace,
    channel: Channel,
    /// While this runs, a claim whose answer was lost may have locked a token for us.
    strays: Option<Deadline>,
    leaving: bool,
}

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

/// A token that was claimed and yet brings no work.
enum Unread {
    /// It was deleted, or its lock was.
    Gone,
    Fault(String),
    AgentGone(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::AgentGone(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::AgentGone(error)
    }
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
    /// An idle worker.
    pub fn new(pool: Pool, identity: Identity, pace: Pace, channel: Channel) -> Self {
        let owner = identity.owner();
        Self { pool, identity, owner, pace, channel, strays: None, leaving: false }
    }

    /// Serves until `Stop`.
    ///
    /// # Errors
    /// When the agent is gone; the token that was held then is given back.
    pub fn serve(mut self) -> io::Result<()> {
        self.recover();
        while !self.leaving {
            match self.channel.recv::<ToWorker>(Deadline::after(IDLE))? {
                None => {}
                Some((ToWorker::Claim, _)) => self.work()?,
                Some((ToWorker::Stop, _)) => self.leaving = true,
                Some((message, _)) => log::warn!("worker: {message:?} without a token"),
            }
        }
        Ok(())
    }

    fn work(&mut self) -> io::Result<()> {
        let (mut lease, value) = match self.claim()? {
            Ok(claimed) => claimed,
            Err(answer) => return self.channel.send(&answer, b""),
        };
        match self.hold(&mut lease, value) {
            End::Settled(fate, note) => self.channel.send(&FromWorker::Settled { fate, note }, b""),
            End::AgentGone(error) => {
                self.release(&lease);
                Err(error)
            }
        }
    }

    /// Frees what an earlier life of this machine left locked. Best effort: such locks also run out.
    fn recover(&mut self) {
        let Reply::Done(locks) = self.pool.locks(self.pace.call) else { return };
        let deadline = Deadline::after(self.pace.call);
        let machine = self.identity.machine();
        for lock in locks {
            if answer::is_leftover(&lock, &machine, &self.identity.boot_id, &self.owner) && !deadline.passed() {
                self.free(&lock.uuid, "an earlier life of this machine");
            }
        }
    }

    /// Frees what a claim locked whose answer never came.
    fn free_strays(&mut self) -> Result<(), FromWorker> {
        let Some(until) = self.strays else { return Ok(()) };
        if until.passed() {
            self.strays = None;
            return Ok(());
        }
        match self.pool.locks(self.pace.call) {
            Reply::Done(locks) => {
                // An idle worker has no lock: whatever bears its description is astray.
                for lock in locks.iter().filter(|lock| answer::is_own(lock, &self.owner)) {
                    self.free(&lock.uuid, "a claim whose answer was lost");
                }
                Ok(())
            }
            Reply::Unsure { why, .. } => Err(FromWorker::Fault { why }),
            Reply::Absent | Reply::Refused(_) => Ok(()),
        }
    }

    fn free(&self, uuid: &str, whose: &str) {
        if let Reply::Done(()) = self.pool.release(uuid, self.pace.brief()) {
            log::info!("worker: freed lock {uuid} of {whose}");
        }
    }

    /// A token with its value, or the answer to give instead.
    fn claim(&mut self) -> io::Result<Result<(Lease, Value), FromWorker>> {
        // Twice, as a token that is gone by the time it is fetched says nothing about the next one.
        for _ in 0..2 {
            if let Err(fault) = self.free_strays() {
                return Ok(Err(fault));
            }
            let until = Deadline::after(self.pace.held());
            let mut lease = match self.pool.claim(&self.owner, self.pace.call) {
                Claim::Leased { id, lock } => Lease::new(id, lock, until, &self.pace),
                Claim::Empty => return Ok(Err(FromWorker::NoWork)),
                Claim::Refused { why, broken } => return Ok(Err(FromWorker::Refused { why, broken })),
                Claim::Unsure { why, sent } => {
                    if sent {
                        self.strays = Some(Deadline::after(self.pace.lock + self.pace.call));
                    }
                    return Ok(Err(FromWorker::Fault { why }));
                }
            };
            match self.fetch(&mut lease) {
                Ok(value) => return Ok(Ok((lease, value))),
                Err(Unread::Gone) => {
                    let _ = self.pool.release(&lease.lock, self.pace.brief());
                }
                Err(Unread::Fault(why)) => {
                    let (_, note) = self.release(&lease);
                    return Ok(Err(FromWorker::Fault { why: format!("{why}; {note}") }));
                }
                Err(Unread::AgentGone(error)) => {
                    self.release(&lease);
                    return Err(error);
                }
            }
        }
        Ok(Err(FromWorker::NoWork))
    }

    fn fetch(&mut self, lease: &mut Lease) -> Result<Value, Unread> {
        let deadline = Deadline::after(FETCH.min(self.pace.held()));
        loop {
            self.keep(lease).map_err(|loss| if loss.told { Unread::Gone } else { Unread::Fault(loss.why) })?;
            match self.pool.token(&lease.id, lease.limit(self.pace.transfer(), &self.pace)) {
                Reply::Done(value) => return Ok(value),
                Reply::Absent => return Err(Unread::Gone),
                Reply::Refused(why) => return Err(Unread::Fault(why)),
                Reply::Unsure { why, .. } if deadline.passed() => return Err(Unread::Fault(why)),
                Reply::Unsure { .. } => self.pause()?,
            }
        }
    }

    /// From `Claimed` to what is to be `Settled`.
    fn hold(&mut self, lease: &mut Lease, value: Value) -> End {
        let token = Token { id: lease.id.clone(), leases: value.leases, media_type: value.media_type };
        if let Err(error) = self.channel.send(&FromWorker::Claimed(token), &value.body) {
            return End::AgentGone(error);
        }
        drop(value.body);
        loop {
            match self.channel.recv::<ToWorker>(lease.renew_at) {
                Err(error) => return End::AgentGone(error),
                Ok(None) => {
                    if let Err(loss) = self.renew(lease) {
                        return self.lost(lease, loss).unwrap_or_else(End::AgentGone);
                    }
                }
                Ok(Some((ToWorker::Finished, result))) => {
                    return match self.finish(lease, &result) {
                        Ok(note) => End::Settled(Fate::Completed, note),
                        Err(end) => end,
                    };
                }
                Ok(Some((message @ (ToWorker::Release { .. } | ToWorker::Stop), _))) => {
                    self.leaving = message == ToWorker::Stop;
                    let (fate, note) = self.release(lease);
                    return End::Settled(fate, note);
                }
                Ok(Some((ToWorker::Claim, _))) => log::warn!("worker: Claim while token {} is held", lease.id),
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
                Some((ToWorker::Finished | ToWorker::Release { .. }, _)) => break,
                Some((ToWorker::Stop, _)) => {
                    self.leaving = true;
                    break;
                }
            }
        }
        if told {
            return Ok(End::Settled(Fate::Lost, why));
        }
        // A renewal whose answer was lost keeps the token locked for nothing.
        let (_, note) = self.release(lease);
        Ok(End::Settled(Fate::Lost, format!("{why}; {note}")))
    }

    /// Renews the lock if that is due.
    pub(super) fn keep(&mut self, lease: &mut Lease) -> Result<(), Loss> {
        if lease.renew_at.passed() { self.renew(lease) } else { Ok(()) }
    }

    /// Renews the lock. A failure that may pass is no loss while the lock lives; it shows in `lease.failing`.
    pub(super) fn renew(&mut self, lease: &mut Lease) -> Result<(), Loss> {
        let until = Deadline::after(self.pace.held());
        let expired = lease.until.passed();
        match self.pool.renew(&lease.lock, lease.limit(self.pace.brief(), &self.pace)) {
            Reply::Done(()) => {
                if lease.failing {
                    log::info!("worker: the lock on token {} is renewed again", lease.id);
                }
                lease.renewed(until, &self.pace);
                Ok(())
            }
            Reply::Absent => Err(Loss { why: self.whereabouts(lease), told: true }),
            Reply::Unsure { why, .. } | Reply::Refused(why) => {
                if expired {
                    let why = format!("the lock on token {} could not be renewed in time: {why}", lease.id);
                    return Err(Loss { why, told: false });
                }
                if !lease.failing {
                    log::warn!("worker: the lock on token {} is not renewed yet: {why}", lease.id);
                }
                lease.postponed(&self.pace);
                Ok(())
            }
        }
    }

    fn whereabouts(&self, lease: &Lease) -> String {
        let id = &lease.id;
        match self.pool.look(id, self.pace.brief()) {
            Reply::Absent => format!("token {id} was deleted elsewhere: finished or cancelled"),
            Reply::Done(()) => format!("the lock on token {id} ran out or was broken"),
            Reply::Unsure { .. } | Reply::Refused(_) => format!("the lock on token {id} is gone"),
        }
    }

    /// Waits before another try, and notices an agent that is gone.
    pub(super) fn pause(&mut self) -> io::Result<()> {
        match self.channel.recv::<ToWorker>(Deadline::after(self.pace.retry()))? {
            Some((ToWorker::Stop, _)) => self.leaving = true,
            Some((message, _)) => log::warn!("worker: unexpected {message:?}"),
            None => {}
        }
        Ok(())
    }
}
