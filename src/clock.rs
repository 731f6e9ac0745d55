//! Deadlines on the monotonic clock.
//!
//! CLOCK_MONOTONIC stands still while a hypervisor has the machine paused, so a pause never makes a
//! script or a job run into its limit. A lease is judged by asking the server again, not by this clock alone.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// A point in time by which something must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `span` from now.
    pub fn after(span: Duration) -> Self {
        Self(Instant::now() + span)
    }

    /// This moment.
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// Time left; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the time has come.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// For poll(2): rounded up, so that a loop never spins through the last millisecond.
    pub fn poll_timeout(self) -> PollTimeout {
        let millis = self.left().as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    }
}
