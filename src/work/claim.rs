//! From `Claim` to a token in hand, or to the answer that there is none.

use std::time::Duration;

use super::lease::Lease;
use super::role::{Leaving, Worker};
use super::source::{Claim, Fetched, Held, Reply, Value};
use crate::clock::Deadline;
use crate::protocol::{Fate, FromWorker};

/// How long a token that is ours is tried to be read. ToPoS users have needed 3 tries 10 s apart.
const FETCH: Duration = Duration::from_secs(120);
/// Claims in a row whose token is gone by the time it is fetched: that says nothing about the next one, but who sees it
/// again and again is better off with a pause.
const MAX_GONE: u32 = 2;

/// A token that was claimed and yet brings no work.
enum Unread {
    /// It was deleted, or its lock was.
    Gone,
    /// Nobody ever can.
    Unfit(String),
    Fault(String),
    Leaving,
}

impl From<Leaving> for Unread {
    fn from(Leaving: Leaving) -> Self {
        Self::Leaving
    }
}

impl Worker {
    /// Frees what earlier lives of this machine left locked; whether there was any. Best effort, and not before there is
    /// no other work: a pool that has some can wait until such locks run out, and all machines that boot together would
    /// otherwise have it search all its locks.
    fn recover(&mut self) -> Result<bool, Leaving> {
        if self.recovered {
            return Ok(false);
        }
        let deadline = Deadline::after(self.pace.call);
        let all = match self.source.recover(deadline.left()) {
            Reply::Done(all) => all,
            Reply::Absent(why) | Reply::Refused(why) => {
                self.recovered = true;
                log::warn!("worker: what earlier lives of this machine may have left locked is not looked for: {why}");
                return Ok(false);
            }
            // The next time that there is no work.
            Reply::Unsure { .. } => return Ok(false),
        };
        self.recovered = true;
        let mut any = false;
        for left in all {
            self.heed()?;
            if deadline.passed() {
                break;
            }
            any |= self.free(&left, "an earlier life of this machine", deadline);
        }
        Ok(any)
    }

    /// Frees what a claim locked whose answer never came.
    fn free_strays(&mut self) -> Result<(), FromWorker> {
        if !self.source.astray() {
            return Ok(());
        }
        let deadline = Deadline::after(self.hurried(self.pace.call));
        match self.source.strays(deadline.left()) {
            Reply::Done(all) => {
                for stray in all {
                    if !deadline.passed() {
                        self.free(&stray, "a claim whose answer was lost", deadline);
                    }
                }
                Ok(())
            }
            Reply::Unsure { why, .. } => Err(FromWorker::Fault { why }),
            Reply::Absent(why) | Reply::Refused(why) => {
                log::warn!("worker: a claim whose answer was lost may keep a token locked for a while: {why}");
                Ok(())
            }
        }
    }

    /// There will be no next claim that looks for them. Once: who leaves has little time.
    pub(super) fn free_last_strays(&mut self) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        if let Err(FromWorker::Fault { why }) = self.free_strays() {
            log::warn!("worker: a claim whose answer was lost may have locked a token: {why}");
        }
    }

    fn free(&mut self, left: &Held, whose: &str, deadline: Deadline) -> bool {
        let freed = self.source.release(left, whose, deadline.left().min(self.pace.brief())) == Reply::Done(());
        if freed {
            log::info!("worker: freed lock {} of {whose}", left.lock);
        }
        freed
    }

    /// A token with its value, or the answer to give instead.
    pub(super) fn claim(&mut self) -> Result<(Lease, Value), FromWorker> {
        let due = Deadline::after(self.pace.claim());
        let mut gone = 0;
        while gone < MAX_GONE {
            self.heed().map_err(|Leaving| FromWorker::NoWork)?;
            if due.passed() {
                break;
            }
            let strays = self.free_strays();
            self.heed().map_err(|Leaving| FromWorker::NoWork)?;
            strays?;
            let until = Deadline::after(self.pace.held());
            let mut lease = match self.source.claim(self.pace.call) {
                Claim::Leased(held) => Lease::new(held, until, &self.pace),
                Claim::Empty if self.recover().map_err(|Leaving| FromWorker::NoWork)? => continue,
                Claim::Empty => return Err(FromWorker::NoWork),
                Claim::Refused { why, broken } => return Err(FromWorker::Refused { why, broken }),
                Claim::Unsure { why } => {
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
                    gone += 1;
                    let limit = self.pace.brief().min(self.pace.farewell / 2);
                    let _ = self.source.release(&lease.held, "its work is gone", limit);
                }
                Err(Unread::Unfit(why)) => match self.put_aside(&mut lease, &why, due) {
                    (Fate::Failed, note) => log::warn!("worker: nobody can work on this: {why}; {note}"),
                    (_, note) => return Err(FromWorker::Fault { why: format!("{why}; {note}") }),
                },
                Err(Unread::Fault(why)) => {
                    let (_, note) = self.release(&lease, &why);
                    return Err(FromWorker::Fault { why: format!("{why}; {note}") });
                }
                Err(Unread::Leaving) => {
                    let (_, note) = self.release(&lease, "no more work is wanted");
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
            match self.source.fetch(&lease.held, lease.limit(limit, &self.pace)) {
                Reply::Done(Fetched::Value(value)) => {
                    self.heed()?;
                    return Ok(value);
                }
                Reply::Done(Fetched::Unfit(why)) => return Err(Unread::Unfit(why)),
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
