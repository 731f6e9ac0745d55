//! The end of a token's stay: completed, or given back.
//!
//! Once the machine ends, every step that remains is tried once and briefly; what would need another try is
//! given back.

use std::time::Duration;

use super::lease::Lease;
use super::role::{End, Leaving, Loss, Worker};
use super::topos::Reply;
use crate::agent::protocol::Fate;
use crate::clock::Deadline;

impl Worker {
    /// Result first, then the proof that the token is still ours, then the end of the token.
    pub(super) fn finish(&mut self, lease: &mut Lease, result: &[u8]) -> Result<String, End> {
        // One for all three: each could outlast a lock, as the lock is renewed meanwhile.
        let due = Deadline::after(self.pace.held());
        self.store(lease, result, due)?;
        self.prove(lease, due)?;
        self.delete(lease, due)
    }

    fn store(&mut self, lease: &mut Lease, result: &[u8], due: Deadline) -> Result<(), End> {
        if !self.pool.keeps_results() {
            return Ok(());
        }
        loop {
            self.keep_until(lease, due)?;
            let limit = self.limit(self.pace.transfer(), due);
            let (why, unknown) = match self.pool.store(&lease.id, result, lease.limit(limit, &self.pace)) {
                Reply::Done(()) => return Ok(()),
                Reply::Absent(why) | Reply::Refused(why) => return Err(self.unstored(lease, &why, false)),
                Reply::Unsure { why, sent } => (why, sent),
            };
            if self.pause().is_err() || due.passed() {
                return Err(self.unstored(lease, &why, unknown));
            }
            log::warn!("worker: the result of token {} is not stored yet: {why}", lease.id);
            // It is found out whether it was stored before it is stored twice.
            if unknown && self.stored(lease, &why, due)? {
                return Ok(());
            }
        }
    }

    /// Whether a store of unknown outcome (`doubt`) worked.
    fn stored(&mut self, lease: &mut Lease, doubt: &str, due: Deadline) -> Result<bool, End> {
        loop {
            self.keep_until(lease, due)?;
            let limit = self.limit(self.pace.transfer(), due);
            match self.pool.stored(&lease.id, lease.limit(limit, &self.pace)) {
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

    fn prove(&mut self, lease: &mut Lease, due: Deadline) -> Result<(), End> {
        loop {
            let limit = self.limit(self.pace.brief(), due);
            self.renew(lease, limit).map_err(|loss| self.lapse(lease, loss))?;
            let Some(why) = lease.failure.clone() else { return Ok(()) };
            if self.pause().is_err() || due.passed() {
                let why = format!("the lock on token {} could not be renewed in time: {why}", lease.id);
                return Err(self.lapse(lease, Loss { why, told: false }));
            }
        }
    }

    fn delete(&mut self, lease: &Lease, due: Deadline) -> Result<String, End> {
        let Lease { id, .. } = lease;
        // Whether an earlier try may have deleted it: then "not there" is what was wanted.
        let mut unknown = false;
        loop {
            let limit = self.limit(self.pace.brief(), due);
            let why = match self.pool.delete(id, lease.limit(limit, &self.pace)) {
                Reply::Done(()) => return Ok(self.completed(id)),
                Reply::Absent(_) if unknown => return Ok(self.completed(id)),
                Reply::Absent(_) => {
                    return Err(End::Settled(Fate::Lost, format!("token {id} was deleted elsewhere")));
                }
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
            let (fate, note) = self.release(lease);
            let end = if unknown { "and perhaps deleted" } else { "but not deleted" };
            return Err(End::Settled(fate, format!("token {id} is done {end}: {why}; {note}")));
        }
    }

    /// How long the next call may take. A `Stop` that has come meanwhile makes it brief but does not prevent it.
    fn limit(&mut self, wanted: Duration, due: Deadline) -> Duration {
        let _ = self.heed();
        self.hurried(wanted.min(due.left().max(self.pace.retry())))
    }

    fn keep_until(&mut self, lease: &mut Lease, due: Deadline) -> Result<(), End> {
        let limit = self.limit(self.pace.brief(), due);
        self.keep(lease, limit).map_err(|loss| self.lapse(lease, loss))
    }

    fn completed(&self, id: &str) -> String {
        match self.pool.keeps_results() {
            true => format!("token {id} is done, its result is {}", self.pool.result_name(id)),
            false => format!("token {id} is done"),
        }
    }

    fn unstored(&self, lease: &Lease, why: &str, unknown: bool) -> End {
        let (fate, note) = self.release(lease);
        let end = if unknown { "is perhaps stored" } else { "cannot be stored" };
        End::Settled(fate, format!("the result of token {} {end}: {why}; {note}", lease.id))
    }

    /// The lock is gone while the token is being completed.
    fn lapse(&self, lease: &Lease, loss: Loss) -> End {
        if loss.told {
            return End::Settled(Fate::Lost, loss.why);
        }
        let (fate, note) = self.release(lease);
        End::Settled(fate, format!("{}; {note}", loss.why))
    }

    /// Gives the token back, within the time for a farewell.
    pub(super) fn release(&self, lease: &Lease) -> (Fate, String) {
        let Lease { id, lock, .. } = lease;
        let deadline = self.farewell();
        let mut unknown = false;
        loop {
            let limit = deadline.left().min(self.pace.farewell / 3);
            let why = match self.pool.release(lock, limit) {
                Reply::Done(()) => return (Fate::Released, format!("token {id} is free again")),
                Reply::Absent(_) if unknown => return (Fate::Released, format!("token {id} is free again")),
                Reply::Absent(_) => return (Fate::Lost, format!("the lock on token {id} was gone already")),
                Reply::Refused(why) => why,
                Reply::Unsure { why, sent } => {
                    unknown |= sent;
                    std::thread::sleep(deadline.left().min(self.pace.farewell / 10));
                    if !deadline.passed() {
                        continue;
                    }
                    why
                }
            };
            return (Fate::Stranded, format!("token {id} stays locked until its lock runs out: {why}"));
        }
    }
}
