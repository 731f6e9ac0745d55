//! When a machine's time is over: the least of what the site has said in four places.
//!
//! Unix seconds throughout. What the site says may come, move and go again; a server that is away or talks nonsense
//! changes nothing.

use std::fmt;

use super::keys::Value;

/// DIRAC's: written inside the machine, by what hears its power button.
pub const LOCAL_FILE: &str = "/var/run/shutdown_time";

/// Who has said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// `shutdowntime_job`.
    Job,
    /// `shutdowntime`.
    Machine,
    /// [`LOCAL_FILE`].
    Local,
    /// `jobstart_secs` and `wall_limit_secs`.
    Wall,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job => "shutdowntime_job",
            Self::Machine => "shutdowntime",
            Self::Local => LOCAL_FILE,
            Self::Wall => "wall_limit_secs",
        })
    }
}

/// An end, and who has said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Unix seconds.
    pub at: u64,
    /// The first of those who say the same.
    pub cause: Cause,
}

/// What the site has said so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// When this machine started: who speaks of an earlier end means another one.
    vm_start: u64,
    jobstart: Option<u64>,
    wall_limit: Option<u64>,
    machine: Option<u64>,
    job: Option<u64>,
    local: Option<u64>,
}

impl Times {
    /// Nothing is known but when the machine started.
    pub fn of_machine_since(vm_start: u64) -> Self {
        Self { vm_start, jobstart: None, wall_limit: None, machine: None, job: None, local: None }
    }

    /// The clock was set, or the machine was paused: the earliest start that was seen counts, so that neither makes a
    /// shutdowntime look older than the machine.
    pub fn started(&mut self, vm_start: u64) {
        self.vm_start = self.vm_start.min(vm_start);
    }

    /// The static keys `jobstart_secs` and `wall_limit_secs`.
    pub fn wall(&mut self, jobstart: Option<u64>, limit: Option<u64>) {
        self.jobstart = jobstart;
        self.wall_limit = limit;
    }

    /// A dynamic key, as it was read last: one that is absent was withdrawn, one that is odd says nothing new.
    pub fn hear(&mut self, cause: Cause, value: &Value) {
        let slot = match cause {
            Cause::Machine => &mut self.machine,
            Cause::Job => &mut self.job,
            Cause::Local => &mut self.local,
            Cause::Wall => return,
        };
        match value {
            Value::Good(_) => *slot = value.number().or(*slot),
            Value::Absent => *slot = None,
            Value::Odd(_) => {}
        }
    }

    /// The least of them all that is not before the machine's start.
    pub fn end(&self) -> Option<End> {
        let wall = self.wall_limit.map(|limit| self.jobstart.unwrap_or(self.vm_start).saturating_add(limit));
        let said =
            [(Cause::Job, self.job), (Cause::Machine, self.machine), (Cause::Local, self.local), (Cause::Wall, wall)];
        said.into_iter()
            .filter_map(|(cause, at)| at.map(|at| End { at, cause }))
            .filter(|end| end.at >= self.vm_start)
            .min()
    }

    /// What `shutdowntime` of the machine's own features says to its jobs: the machine's, whoever has said it.
    pub fn machine_end(&self) -> Option<u64> {
        [self.machine, self.local].into_iter().flatten().filter(|at| *at >= self.vm_start).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: u64 = 1_000_000;

    fn at(secs: u64) -> Value {
        Value::Good((BOOT + secs).to_string())
    }

    fn end(times: &Times) -> Option<(u64, Cause)> {
        times.end().map(|end| (end.at - BOOT, end.cause))
    }

    #[test]
    fn the_least_of_all_counts() {
        let mut times = Times::of_machine_since(BOOT);
        assert_eq!(end(&times), None);
        times.wall(None, Some(500));
        assert_eq!(end(&times), Some((500, Cause::Wall)));
        times.wall(Some(BOOT - 100), Some(500));
        assert_eq!(end(&times), Some((400, Cause::Wall)));
        times.hear(Cause::Machine, &at(300));
        assert_eq!(end(&times), Some((300, Cause::Machine)));
        times.hear(Cause::Job, &at(300));
        assert_eq!(end(&times), Some((300, Cause::Job)));
        times.hear(Cause::Local, &at(200));
        assert_eq!((end(&times), times.machine_end()), (Some((200, Cause::Local)), Some(BOOT + 200)));
    }

    #[test]
    fn an_end_comes_moves_and_goes() {
        let mut times = Times::of_machine_since(BOOT);
        times.wall(None, Some(500));
        for (said, expected) in [
            (at(300), 300),
            (Value::Odd("503".to_owned()), 300),
            (at(100), 100),
            (at(450), 450),
            (at(900), 500),
            (Value::Absent, 500),
            (Value::Odd("away".to_owned()), 500),
        ] {
            times.hear(Cause::Machine, &said);
            assert_eq!(times.end().map(|end| end.at - BOOT), Some(expected), "{said:?}");
        }
    }

    #[test]
    fn an_end_before_the_start_is_somebody_elses() {
        let mut times = Times::of_machine_since(BOOT);
        times.hear(Cause::Job, &Value::Good((BOOT - 1).to_string()));
        times.hear(Cause::Machine, &Value::Good("0".to_owned()));
        times.wall(Some(5), Some(10));
        assert_eq!((times.end(), times.machine_end()), (None, None));
        // Past by now, but not by then: that one is over.
        times.hear(Cause::Machine, &at(0));
        assert_eq!(end(&times), Some((0, Cause::Machine)));
    }

    #[test]
    fn numbers_that_are_too_large_do_not_turn_around() {
        let mut times = Times::of_machine_since(BOOT);
        times.wall(Some(u64::MAX), Some(u64::MAX));
        assert_eq!(times.end().map(|end| end.at), Some(u64::MAX));
    }
}
