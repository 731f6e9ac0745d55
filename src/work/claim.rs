//! From `Claim` to a token in hand, or to the answer that there is none.

use std::time::Duration;

use super::answer::{self, Claim};
use super::lease::Lease;
use super::role::{Leaving, Worker};
use super::topos::{Reply, Value};
use crate::agent::protocol::FromWorker;
use crate::clock::Deadline;

/// How long a token that is ours is tried to be read. ToPoS users have needed 3 tries 10 s apart.
const FETCH: Duration = Duration::from_secs(120);

/// A token that was claimed and yet brings no work.
enum Unread {
    /// It was deleted, or its lock was.
    Gone,
    Fault(String),
    Leaving,
}

impl From<Leaving> for Unread {
    fn from(Leaving: Leaving) -> Self {
        Self::Leaving
    }
}

impl Worker {
    /// Frees what an earlier life of this machine left locked. Best effort: such locks also run out.
    fn recover(&mut self) -> Result<(), Leaving> {
        if std::mem::replace(&mut self.recovered, true) {
            return Ok(());
        }
        let deadline = Deadline::after(self.pace.call);
        let Reply::Done(locks) = self.pool.locks(deadline.left()) else { return Ok(()) };
        let machine = self.identity.machine();
        for lock in locks {
            if answer::is_leftover(&lock, &machine, &self.identity.boot_id, &self.owner) {
                self.heed()?;
                if deadline.passed() {
                    break;
                }
                self.free(&lock.uuid, "an earlier life of this machine", deadline);
            }
        }
        Ok(())
    }

    /// Frees what a claim locked whose answer never came.
    fn free_strays(&mut self) -> Result<(), FromWorker> {
        let Some(until) = self.strays else { return Ok(()) };
        if until.passed() {
            self.strays = None;
            return Ok(());
        }
        let deadline = Deadline::after(self.hurried(self.pace.call));
        match self.pool.locks(deadline.left()) {
            Reply::Done(locks) => {
                // An idle worker has no lock: whatever bears its description is astray.
                for lock in locks.iter().filter(|lock| answer::is_own(lock, &self.owner)) {
                    if !deadline.passed() {
                        self.free(&lock.uuid, "a claim whose answer was lost", deadline);
                    }
                }
                Ok(())
            }
            Reply::Unsure { why, .. } => Err(FromWorker::Fault { why }),
            Reply::Absent(_) | Reply::Refused(_) => Ok(()),
        }
    }

    /// There will be no next claim that looks for them.
    pub(super) fn free_last_strays(&mut self) {
        if let Err(FromWorker::Fault { why }) = self.free_strays() {
            log::warn!("worker: a claim whose answer was lost may have locked a token: {why}");
        }
        self.strays = None;
    }

    fn free(&self, uuid: &str, whose: &str, deadline: Deadline) {
        if let Reply::Done(()) = self.pool.release(uuid, deadline.left().min(self.pace.brief())) {
            log::info!("worker: freed lock {uuid} of {whose}");
        }
    }

    /// A token with its value, or the answer to give instead.
    pub(super) fn claim(&mut self) -> Result<(Lease, Value), FromWorker> {
        let due = Deadline::after(self.pace.claim());
        self.recover().map_err(|Leaving| FromWorker::NoWork)?;
        // Twice, as a token that is gone by the time it is fetched says nothing about the next one.
        for _ in 0..2 {
            self.heed().map_err(|Leaving| FromWorker::NoWork)?;
            if due.passed() {
                break;
            }
            let strays = self.free_strays();
            self.heed().map_err(|Leaving| FromWorker::NoWork)?;
            strays?;
            let until = Deadline::after(self.pace.held());
            let mut lease = match self.pool.claim(&self.owner, self.pace.call) {
                Claim::Leased { id, lock } => Lease::new(id, lock, until, &self.pace),
                Claim::Empty => return Err(FromWorker::NoWork),
                Claim::Refused { why, broken } => return Err(FromWorker::Refused { why, broken }),
                Claim::Unsure { why, sent } => {
                    if sent {
                        self.strays = Some(Deadline::after(self.pace.lock + self.pace.call));
                    }
                    return match self.heed() {
                        Ok(()) => Err(FromWorker::Fault { why }),
                        Err(Leaving) => {
                            self.free_last_strays();
                            Err(FromWorker::NoWork)
                        }
                    };
                }
            };
            match self.fetch(&mut lease, due) {
                Ok(value) => return Ok((lease, value)),
                Err(Unread::Gone) => {
                    let _ = self.pool.release(&lease.lock, self.pace.brief().min(self.pace.farewell / 2));
                }
                Err(Unread::Fault(why)) => {
                    let (_, note) = self.release(&lease);
                    return Err(FromWorker::Fault { why: format!("{why}; {note}") });
                }
                Err(Unread::Leaving) => {
                    let (_, note) = self.release(&lease);
                    log::info!("worker: no more work is wanted: {note}");
                    return Err(FromWorker::NoWork);
                }
            }
        }
        Err(FromWorker::NoWork)
    }

    fn fetch(&mut self, lease: &mut Lease, due: Deadline) -> Result<Value, Unread> {
        let deadline = Deadline::after(FETCH.min(self.pace.held())).min(due);
        let brief = self.pace.brief();
        loop {
            self.keep(lease, brief).map_err(|loss| if loss.told { Unread::Gone } else { Unread::Fault(loss.why) })?;
            self.heed()?;
            let limit = self.pace.transfer().min(due.left().max(self.pace.retry()));
            match self.pool.token(&lease.id, lease.limit(limit, &self.pace)) {
                Reply::Done(value) => {
                    self.heed()?;
                    return Ok(value);
                }
                Reply::Absent(_) => return Err(Unread::Gone),
                Reply::Refused(why) => return Err(Unread::Fault(why)),
                Reply::Unsure { why, .. } => {
                    self.pause()?;
                    if deadline.passed() {
                        return Err(Unread::Fault(why));
                    }
                }
            }
        }
    }
}
