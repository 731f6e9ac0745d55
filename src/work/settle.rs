//! The end of a token's stay: completed, put aside, or given back.
//!
//! Once the machine ends, every step that remains is tried once and briefly; what would need another try is
//! given back.

use std::time::Duration;

use super::lease::Lease;
use super::role::{Leaving, Loss, Worker};
use super::source::Reply;
use crate::clock::Deadline;
use crate::protocol::Fate;

/// What became of a token, and one line about it.
pub(super) type Settled = (Fate, String);

impl Worker {
    /// Result first, then the proof that the token is still ours, then the end of the token.
    pub(super) fn finish(&mut self, lease: &mut Lease, result: &[u8]) -> Settled {
        // One for all three: each could outlast a lock, as the lock is renewed meanwhile.
        let due = Deadline::after(self.pace.held());
        let steps = self.store(lease, result, due).and_then(|()| self.prove(lease, due));
        match steps.and_then(|()| self.take_off(lease, due)) {
            Ok(note) => (Fate::Completed, note),
            Err(settled) => settled,
        }
    }

    /// Its payload failed: for another try by whoever gets it next, or for good.
    pub(super) fn failed(&mut self, lease: &mut Lease, leases: Option<u32>, why: &str, again: bool) -> Settled {
        let id = lease.id().to_owned();
        let limit = self.source.lease_limit();
        // A source that does not count hands it out for ever.
        let often = leases.filter(|leases| *leases >= limit);
        let cause = match (again, often) {
            (false, _) => "another try is of no use".to_owned(),
            (true, Some(leases)) => {
                format!("it was handed out {} ({limit} at most)", crate::text::count(leases.into(), "time"))
            }
            (true, None) => {
                log::info!("worker: token {id} goes back: {why}");
                return self.release(lease, why);
            }
        };
        log::info!("worker: token {id} is put aside, as {cause}: {why}");
        self.put_aside(lease, why, Deadline::after(self.pace.held()))
    }

    /// So that nobody is given it again; given back where that does not work by `due`.
    pub(super) fn put_aside(&mut self, lease: &mut Lease, why: &str, due: Deadline) -> Settled {
        // It is not taken from somebody else who works on it by now.
        if let Err(settled) = self.prove(lease, due) {
            return settled;
        }
        loop {
            let limit = self.limit(self.pace.brief(), due);
            let what = match self.source.fail(&lease.held, why, lease.limit(limit, &self.pace)) {
                Reply::Done(()) => {
                    return (Fate::Failed, format!("token {} is in {} now", lease.id(), self.source.failed_place()));
                }
                Reply::Unsure { why: what, .. } => {
                    if self.pause().is_ok() && !due.passed() && !lease.until.passed() {
                        log::warn!("worker: token {} is not put aside yet: {what}", lease.id());
                        continue;
                    }
                    what
                }
                Reply::Absent(what) | Reply::Refused(what) => what,
            };
            let (fate, note) = self.release(lease, why);
            return (fate, format!("token {} cannot be put aside: {what}; {note}", lease.id()));
        }
    }

    fn store(&mut self, lease: &mut Lease, result: &[u8], due: Deadline) -> Result<(), Settled> {
        loop {
            self.keep_until(lease, due)?;
            let limit = self.limit(self.pace.transfer(), due);
            let (why, unknown) = match self.source.store(&lease.held, result, lease.limit(limit, &self.pace)) {
                Reply::Done(()) => return Ok(()),
                Reply::Absent(why) | Reply::Refused(why) => return Err(self.unstored(lease, &why, false)),
                Reply::Unsure { why, sent } => (why, sent),
            };
            if self.pause().is_err() || due.passed() {
                return Err(self.unstored(lease, &why, unknown));
            }
            log::warn!("worker: the result of token {} is not stored yet: {why}", lease.id());
            // It is found out whether it was stored before it is stored twice.
            if unknown && self.stored(lease, result, &why, due)? {
                return Ok(());
            }
        }
    }

    /// Whether a store of unknown outcome (`doubt`) worked.
    fn stored(&mut self, lease: &mut Lease, result: &[u8], doubt: &str, due: Deadline) -> Result<bool, Settled> {
        loop {
            self.keep_until(lease, due)?;
            let limit = self.limit(self.pace.transfer(), due);
            match self.source.stored(&lease.held, result, lease.limit(limit, &self.pace)) {
                Reply::Done(true) => return Ok(true),
                // A listing that cannot be read: a result stored twice is better than work done twice.
                found @ (Reply::Done(false) | Reply::Absent(_) | Reply::Refused(_)) => {
                    let unknown = !matches!(found, Reply::Done(_));
                    return match self.heed() {
                        Ok(()) => Ok(false),
                        Err(Leaving) => Err(self.unstored(lease, doubt, unknown)),
                    };
                }
                Reply::Unsure { .. } => {
                    if self.pause().is_err() || due.passed() {
                        return Err(self.unstored(lease, doubt, true));
                    }
                }
            }
        }
    }

    fn prove(&mut self, lease: &mut Lease, due: Deadline) -> Result<(), Settled> {
        loop {
            let limit = self.limit(self.pace.brief(), due);
            self.renew(lease, limit).map_err(|loss| self.lapse(lease, loss))?;
            let Some(why) = lease.failure.clone() else { return Ok(()) };
            if self.pause().is_err() || due.passed() {
                let loss = self.late(lease, &why);
                return Err(self.lapse(lease, loss));
            }
        }
    }

    fn take_off(&mut self, lease: &Lease, due: Deadline) -> Result<String, Settled> {
        let id = lease.id();
        // Whether an earlier try may have deleted it: then "not there" is what was wanted.
        let mut unknown = false;
        loop {
            let limit = self.limit(self.pace.brief(), due);
            let why = match self.source.finish(&lease.held, lease.limit(limit, &self.pace)) {
                Reply::Done(()) => return Ok(self.completed(lease)),
                Reply::Absent(_) if unknown => return Ok(self.completed(lease)),
                Reply::Absent(_) => return Err((Fate::Lost, format!("token {id} was deleted elsewhere"))),
                Reply::Unsure { why, sent } => {
                    unknown |= sent;
                    if self.pause().is_ok() && !due.passed() && !lease.until.passed() {
                        log::warn!("worker: token {id} is not deleted yet: {why}");
                        continue;
                    }
                    why
                }
                Reply::Refused(why) => why,
            };
            let (fate, note) = self.release(lease, &why);
            let end = if unknown { "and perhaps deleted" } else { "but not deleted" };
            return Err((fate, format!("token {id} is done {end}: {why}; {note}")));
        }
    }

    /// How long the next call may take. A `Stop` that has come meanwhile makes it brief but does not prevent it.
    fn limit(&mut self, wanted: Duration, due: Deadline) -> Duration {
        let _ = self.heed();
        self.hurried(wanted.min(due.left().max(self.pace.retry())))
    }

    fn keep_until(&mut self, lease: &mut Lease, due: Deadline) -> Result<(), Settled> {
        let limit = self.limit(self.pace.brief(), due);
        self.keep(lease, limit).map_err(|loss| self.lapse(lease, loss))
    }

    fn completed(&self, lease: &Lease) -> String {
        match self.source.result_place(&lease.held) {
            Some(place) => format!("token {} is done, its result is {place}", lease.id()),
            None => format!("token {} is done", lease.id()),
        }
    }

    fn unstored(&mut self, lease: &Lease, why: &str, unknown: bool) -> Settled {
        let (fate, note) = self.release(lease, why);
        let end = if unknown { "is perhaps stored" } else { "cannot be stored" };
        (fate, format!("the result of token {} {end}: {why}; {note}", lease.id()))
    }

    /// The lock is gone while the token is being settled.
    fn lapse(&mut self, lease: &Lease, loss: Loss) -> Settled {
        if loss.told {
            return (Fate::Lost, loss.why);
        }
        let (fate, note) = self.release(lease, &loss.why);
        (fate, format!("{}; {note}", loss.why))
    }

    /// Gives the token back, within the time for a farewell.
    pub(super) fn release(&mut self, lease: &Lease, why: &str) -> Settled {
        let id = lease.id();
        let deadline = self.farewell();
        let mut unknown = false;
        loop {
            let limit = deadline.left().min(self.pace.farewell / 3);
            let fault = match self.source.release(&lease.held, why, limit) {
                Reply::Done(()) => return (Fate::Released, format!("token {id} is free again")),
                Reply::Absent(_) if unknown => return (Fate::Released, format!("token {id} is free again")),
                Reply::Absent(_) => return (Fate::Lost, format!("the lock on token {id} was gone already")),
                Reply::Refused(fault) => fault,
                Reply::Unsure { why: fault, sent } => {
                    unknown |= sent;
                    std::thread::sleep(deadline.left().min(self.pace.farewell / 10));
                    if !deadline.passed() {
                        continue;
                    }
                    fault
                }
            };
            return (Fate::Stranded, format!("token {id} stays locked until its lock runs out: {fault}"));
        }
    }
}
