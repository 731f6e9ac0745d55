//! How long to wait between two tries to reach a server.

use std::time::Duration;

use crate::sys::random;

/// First and longest pause between two tries, before jitter.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause after so many failures: doubled by each, then anything from nothing to that, so that a server that comes
/// back is not met by all machines of a site at once.
pub fn pause(failures: u32) -> Duration {
    jitter(longest(failures))
}

fn longest(failures: u32) -> Duration {
    let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).and_then(|factor| PAUSE.checked_mul(factor));
    doubled.unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
}

fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(random::fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let millis: Vec<_> = (1..=9).map(|failures| longest(failures).as_millis()).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(longest(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn jitter_is_full() {
        let spread: Vec<_> = (0..200).map(|_| jitter(LONGEST_PAUSE)).collect();
        assert!(spread.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(spread.iter().any(|pause| *pause < LONGEST_PAUSE / 4));
        assert!(spread.iter().any(|pause| *pause > LONGEST_PAUSE * 3 / 4));
    }
}
