//! The machine's clock as the log sees it: the time of a record, whether it is right, and that somebody set it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

use crate::clock::Deadline;
use crate::sys::synced::is_synced;

/// Neither answer changes faster than people and NTP clients do.
const ASK: Duration = Duration::from_secs(1);
/// What lies between two readings of two clocks on a busy host is less; nobody misses a smaller step.
const LEAST_MICROS: i128 = 10_000;
/// In the year 2255: the kernel counts nanoseconds in 63 bits. The timer is there to be cancelled, not to go off.
const NEVER: i64 = 9_000_000_000;

/// One look at it serves all records that were waiting.
#[derive(Debug)]
pub struct Clock {
    now: SystemTime,
    uptime: Duration,
    synced: bool,
    ask: Deadline,
    /// Cancelled by whoever sets the clock; `None` if the kernel has none, and then nobody hears of it.
    timer: Option<TimerFd>,
    /// Nanoseconds that the clock is ahead of the time since boot.
    ahead: i128,
}

impl Clock {
    /// As it is now.
    pub fn new() -> Self {
        Self {
            now: SystemTime::now(),
            uptime: uptime(ClockId::CLOCK_MONOTONIC),
            synced: is_synced(),
            ask: Deadline::after(ASK),
            timer: timer(),
            ahead: ahead(),
        }
    }

    /// Readable when it was set.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.timer.as_ref().map(AsFd::as_fd)
    }

    /// Looks at it.
    pub fn look(&mut self) {
        self.now = SystemTime::now();
        self.uptime = uptime(ClockId::CLOCK_MONOTONIC);
    }

    /// By how many microseconds somebody has set it since this was asked last; slewing is not setting. Costs system calls
    /// only if its descriptor is `ready`, or once in a while.
    pub fn step(&mut self, ready: bool) -> Option<i64> {
        if !ready && !self.ask.passed() {
            return None;
        }
        self.ask = Deadline::after(ASK);
        let set = self.timer.as_ref().is_some_and(|timer| timer.wait().is_ok());
        self.synced = is_synced();
        let before = std::mem::replace(&mut self.ahead, ahead());
        let micros = (self.ahead - before) / 1000;
        (set && micros.abs() >= LEAST_MICROS).then(|| i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// The time, when it was last looked at.
    pub fn now(&self) -> SystemTime {
        self.now
    }

    /// The same on the clock that nobody sets, CLOCK_MONOTONIC.
    pub fn uptime(&self) -> Duration {
        self.uptime
    }

    /// Whether it went by a reference then.
    pub fn is_synced(&self) -> bool {
        self.synced
    }
}

fn timer() -> Option<TimerFd> {
    let timer = TimerFd::new(TimerClock::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).ok()?;
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    timer.set(Expiration::OneShot(TimeSpec::new(NEVER, 0)), flags).ok()?;
    Some(timer)
}

/// Against CLOCK_BOOTTIME, which goes on in a suspended machine: waking up is not setting the clock.
fn ahead() -> i128 {
    let boot = uptime(ClockId::CLOCK_BOOTTIME);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |span: Duration| i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
    nanos(since) - nanos(boot)
}

fn uptime(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// Seconds with their fraction and a sign, as an audit record has them.
pub fn seconds(micros: i64) -> String {
    let (sign, whole) = (if micros < 0 { '-' } else { '+' }, micros.unsigned_abs());
    format!("{sign}{}.{:06}", whole / 1_000_000, whole % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_makes_no_step() {
        let mut clock = Clock::new();
        assert!(clock.fd().is_some());
        let before = clock.now();
        assert_eq!(clock.step(true), None);
        clock.ask = Deadline::after(Duration::ZERO);
        assert_eq!(clock.step(false), None);
        clock.look();
        assert!(clock.now() >= before && clock.ask.left() > Duration::ZERO);
    }

    #[test]
    fn corrections_have_a_sign_and_six_digits() {
        for (micros, text) in
            [(3_600_000_001, "+3600.000001"), (-500_000, "-0.500000"), (i64::MIN, "-9223372036854.775808")]
        {
            assert_eq!(seconds(micros), text);
        }
    }
}
