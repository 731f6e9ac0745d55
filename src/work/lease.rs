//! A token in our hands, and the time for which it is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::Pace;
use super::source::Held;
use crate::clock::Deadline;

/// A lock on a token. Times count from before the request that began them, so they end before the server's do.
#[derive(Debug)]
pub struct Lease {
    /// What and by which lock.
    pub held: Held,
    /// Until then the lock is surely ours.
    pub until: Deadline,
    /// Then it is to be renewed.
    pub renew_at: Deadline,
    /// Why the last try to renew it failed.
    pub failure: Option<String>,
    renewals: u32,
}

impl Lease {
    /// A lock that was asked for at the time of `until`.
    pub fn new(held: Held, until: Deadline, pace: &Pace) -> Self {
        let mut lease = Self { held, until, renew_at: until, failure: None, renewals: 0 };
        lease.renewed(until, pace);
        lease
    }

    /// The lock was renewed.
    pub fn renewed(&mut self, until: Deadline, pace: &Pace) {
        self.until = until;
        self.renew_at = Deadline::after(wait(&self.held.lock, self.renewals, pace));
        self.renewals = self.renewals.wrapping_add(1);
        self.failure = None;
    }

    /// The lock could not be renewed; it is tried again soon.
    pub fn postponed(&mut self, why: String, pace: &Pace) {
        self.renew_at = Deadline::after(pace.retry()).min(self.until);
        self.failure = Some(why);
    }

    /// What it is on.
    pub fn id(&self) -> &str {
        &self.held.id
    }

    /// How long a call may take that is of use only while the lock is ours.
    pub fn limit(&self, wanted: Duration, pace: &Pace) -> Duration {
        // Not nothing after the end: a process that did not run for long may find a lock that the server still keeps.
        let left = self.until.left();
        wanted.min(if left.is_zero() { pace.retry() } else { left.max(Duration::from_millis(1)) })
    }
}

/// A third of the lock, less up to an eighth of that: machines that started together must not renew together.
/// A hash of the uuid spreads them as well as a random number does.
fn wait(lock: &str, renewals: u32, pace: &Pace) -> Duration {
    let mut hasher = DefaultHasher::new();
    (lock, renewals).hash(&mut hasher);
    let third = pace.lock / 3;
    third - third / 8 * (hasher.finish() % 1024) as u32 / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        lock: Duration::from_secs(300),
        connect: Duration::from_secs(10),
        call: Duration::from_secs(30),
        farewell: Duration::from_secs(10),
    };

    #[test]
    fn renewals_spread_below_a_third() {
        let waits: Vec<_> = (0..100).map(|n| wait("6ccd780c", n, &PACE).as_millis()).collect();
        assert!(waits.iter().all(|wait| (87_500..=100_000).contains(wait)), "{waits:?}");
        assert!(waits.iter().max().unwrap() - waits.iter().min().unwrap() > 10_000, "{waits:?}");
        assert_ne!(wait("a", 0, &PACE), wait("b", 0, &PACE));
    }

    #[test]
    fn a_call_never_outlasts_the_lock_by_more_than_the_margin() {
        let mut lease = Lease::new(Held::default(), Deadline::after(PACE.held()), &PACE);
        assert_eq!(lease.limit(Duration::from_secs(30), &PACE), Duration::from_secs(30));
        lease.until = Deadline::after(Duration::from_secs(20));
        assert!(lease.limit(Duration::from_secs(30), &PACE) <= Duration::from_secs(20));
        lease.until = Deadline::after(Duration::ZERO);
        assert_eq!(lease.limit(Duration::from_secs(30), &PACE), Duration::from_secs(5));
        lease.postponed("500".to_owned(), &PACE);
        assert!(lease.renew_at.passed());
    }
}
