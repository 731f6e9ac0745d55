//! Waiting between tries: longer each time, never in step with other machines, and not for ever.

use std::time::{Duration, Instant};

use crate::sys::random;

/// Pauses that double from the first to the longest, for a limited time in all.
#[derive(Debug)]
pub struct Patience {
    pause: Duration,
    longest: Duration,
    limit: Duration,
    since: Option<Instant>,
}

impl Patience {
    /// `pauses` are the first and the longest; `limit` is counted from the first failed try.
    pub fn new(pauses: (Duration, Duration), limit: Duration) -> Self {
        Self { pause: pauses.0, longest: pauses.1, limit, since: None }
    }
}

/// How long to wait after one more failed try; ends when it is enough.
impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let left = self.limit.saturating_sub(self.since.get_or_insert_with(Instant::now).elapsed());
        if left.is_zero() {
            return None;
        }
        // Half to whole, at random: a thousand machines that booted together must not ask together.
        let pause = self.pause.mul_f64(0.5 + 0.5 * random::fraction());
        self.pause = (self.pause * 2).min(self.longest);
        Some(pause.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let secs = Duration::from_secs;
        let mut patience = Patience::new((secs(2), secs(5)), secs(1000));
        for longest in [2, 4, 5, 5] {
            let pause = patience.next().unwrap();
            assert!(pause <= secs(longest) && pause * 2 >= secs(longest), "{pause:?}");
        }
        assert_eq!(Patience::new((secs(2), secs(5)), secs(0)).next(), None);
        assert!(Patience::new((secs(60), secs(60)), secs(1)).next().unwrap() <= secs(1));
    }
}
