//! Pauses between tries: longer each time, and never in step with other machines.

use std::time::Duration;

use crate::sys::random;

/// Pauses whose upper bound doubles from the first to the longest.
#[derive(Debug)]
pub struct Patience {
    bounds: (Duration, Duration),
    bound: Duration,
}

impl Patience {
    /// The first bound and the longest.
    pub fn new(bounds: (Duration, Duration)) -> Self {
        Self { bounds, bound: bounds.0 }
    }

    /// How long to wait after one more try that was in vain.
    ///
    /// Anything from nothing to the bound ("full jitter"): machines that failed together, as a server that goes away
    /// makes them, spread over the whole of it. A pause with a fixed part would leave them in a pack.
    pub fn pause(&mut self) -> Duration {
        let pause = self.bound.mul_f64(random::fraction());
        self.bound = (self.bound * 2).min(self.bounds.1);
        pause
    }

    /// A try was not in vain.
    pub fn reset(&mut self) {
        self.bound = self.bounds.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn bounds_grow_to_the_longest_and_begin_anew() {
        let mut patience = Patience::new((SECS(2), SECS(5)));
        for bound in [2, 4, 5, 5] {
            assert_eq!(patience.bound, SECS(bound));
            assert!(patience.pause() <= SECS(bound));
        }
        patience.reset();
        assert_eq!(patience.bound, SECS(2));
    }

    #[test]
    fn pauses_fill_all_of_their_bound() {
        let pauses: Vec<Duration> = (0..1000).map(|_| Patience::new((SECS(100), SECS(100))).pause()).collect();
        for tenth in 0..10 {
            let here = pauses.iter().filter(|pause| (tenth * 10..tenth * 10 + 10).contains(&pause.as_secs())).count();
            // A hundred are expected; six standard deviations are 57.
            assert!((43..=157).contains(&here), "{here} of 1000 pauses in the {tenth}. tenth");
        }
    }
}
