//! The end of a token's stay: completed, or given back.

use super::lease::Lease;
use super::role::{End, Loss, Worker};
use super::topos::Reply;
use crate::agent::protocol::Fate;
use crate::clock::Deadline;

impl Worker {
    /// Result first, then the proof that the token is still ours, then the end of the token.
    pub(super) fn finish(&mut self, lease: &mut Lease, result: &[u8]) -> Result<String, End> {
        self.store(lease, result)?;
        loop {
            self.renew(lease).map_err(|loss| self.lapse(lease, loss))?;
            if !lease.failing {
                break;
            }
            self.pause()?;
        }
        self.delete(lease)
    }

    fn store(&mut self, lease: &mut Lease, result: &[u8]) -> Result<(), End> {
        if !self.pool.keeps_results() {
            return Ok(());
        }
        let deadline = Deadline::after(self.pace.held());
        // Whether an earlier try may have stored it: then that is found out before it is stored twice.
        let mut unknown = false;
        loop {
            self.keep(lease).map_err(|loss| self.lapse(lease, loss))?;
            let limit = lease.limit(self.pace.transfer(), &self.pace);
            if unknown {
                match self.pool.stored(&lease.id, limit) {
                    Reply::Done(true) => return Ok(()),
                    // A listing that cannot be read: a result stored twice is better than work done twice.
                    Reply::Done(false) | Reply::Absent | Reply::Refused(_) => unknown = false,
                    Reply::Unsure { why, .. } if deadline.passed() => return Err(self.unstored(lease, &why)),
                    Reply::Unsure { .. } => self.pause()?,
                }
                continue;
            }
            match self.pool.store(&lease.id, result, limit) {
                Reply::Done(()) => return Ok(()),
                Reply::Absent => return Err(self.unstored(lease, "404 for its pool")),
                Reply::Refused(why) => return Err(self.unstored(lease, &why)),
                Reply::Unsure { why, sent } => {
                    if deadline.passed() {
                        return Err(self.unstored(lease, &why));
                    }
                    log::warn!("worker: the result of token {} is not stored yet: {why}", lease.id);
                    unknown = sent;
                    self.pause()?;
                }
            }
        }
    }

    fn delete(&mut self, lease: &Lease) -> Result<String, End> {
        let Lease { id, .. } = lease;
        // Whether an earlier try may have deleted it: then "not there" is what was wanted.
        let mut unknown = false;
        loop {
            let why = match self.pool.delete(id, lease.limit(self.pace.brief(), &self.pace)) {
                Reply::Done(()) => return Ok(self.completed(id)),
                Reply::Absent if unknown => return Ok(self.completed(id)),
                Reply::Absent => {
                    return Err(End::Settled(Fate::Lost, format!("token {id} was deleted elsewhere")));
                }
                Reply::Unsure { why, sent } if !lease.until.passed() => {
                    unknown |= sent;
                    log::warn!("worker: token {id} is not deleted yet: {why}");
                    self.pause()?;
                    continue;
                }
                Reply::Unsure { why, .. } | Reply::Refused(why) => why,
            };
            let (fate, note) = self.release(lease);
            return Err(End::Settled(fate, format!("token {id} is done but not deleted: {why}; {note}")));
        }
    }

    fn completed(&self, id: &str) -> String {
        match self.pool.keeps_results() {
            true => format!("token {id} is done, its result is {}", self.pool.result_name(id)),
            false => format!("token {id} is done"),
        }
    }

    fn unstored(&self, lease: &Lease, why: &str) -> End {
        let (fate, note) = self.release(lease);
        End::Settled(fate, format!("the result of token {} cannot be stored: {why}; {note}", lease.id))
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
        let deadline = Deadline::after(self.pace.farewell);
        let mut unknown = false;
        loop {
            let limit = deadline.left().min(self.pace.farewell / 3);
            let why = match self.pool.release(lock, limit) {
                Reply::Done(()) => return (Fate::Released, format!("token {id} is free again")),
                Reply::Absent if unknown => return (Fate::Released, format!("token {id} is free again")),
                Reply::Absent => return (Fate::Lost, format!("the lock on token {id} was gone already")),
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
