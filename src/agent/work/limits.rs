//! When a machine claims no more, and when it stops what runs: the rules, and nothing else.

use std::fmt;
use std::time::Duration;

use super::super::ending::CLEARING;
use super::super::scripts::KILLED;

/// For tokens to be given back: a release takes 10 s at most.
const RELEASE: Duration = Duration::from_secs(10);

/// What site and image say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long there may be no work for any slot.
    pub idle: Duration,
    /// How long the source of work may be out of reach.
    pub fault: Duration,
    /// Tokens that are worked on, all slots together.
    pub max_tasks: u32,
    /// No token is claimed that would have less time than this before the deadline.
    pub min_task: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// What is seen of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Tokens that are or were worked on.
    pub tasks: u32,
    /// Claims under way.
    pub asking: u32,
    /// Whether any slot works on a token.
    pub busy: bool,
    /// While nobody works: from the first to the last answer that there is no work.
    pub quiet: Option<Duration>,
    /// From the first to the last time that nothing could be claimed.
    pub trouble: Option<Duration>,
    /// Until the machine is to be gone.
    pub left: Option<Duration>,
    /// The site wants no new work to begin.
    pub drain: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// As many slots as this may ask for a token.
    Claim(u32),
    /// Nobody asks, and what runs goes on.
    Finish(Reason),
    /// What runs is stopped.
    Stop(Reason),
}

/// Which rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The time is over.
    Deadline,
    /// There is too little left of it for one more token.
    Late,
    /// The site wants it.
    Drain,
    /// As many tokens as the site wants.
    Tasks,
    /// The source of work is gone.
    Fault,
    /// There is no work.
    Idle,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the machine's time is over",
            Self::Late => "too little time is left for another one",
            Self::Drain => "the site drains this machine",
            Self::Tasks => "as many as the site wants (limits.max_tasks)",
            Self::Fault => "the source of work is gone",
            Self::Idle => "there is no work",
        })
    }
}

impl Rules {
    /// The first rule that has something to say. Those that stop come first, and then those that the site decides about.
    pub fn judge(&self, seen: &Seen) -> Word {
        let less = |span: Duration| seen.left.is_some_and(|left| left <= span);
        if less(self.stopping()) {
            return Word::Stop(Reason::Deadline);
        }
        if seen.drain {
            return Word::Finish(Reason::Drain);
        }
        if less(self.stopping() + self.min_task) {
            return Word::Finish(Reason::Late);
        }
        if seen.tasks >= self.max_tasks {
            return Word::Finish(Reason::Tasks);
        }
        if seen.trouble.is_some_and(|trouble| trouble >= self.fault) {
            return Word::Finish(Reason::Fault);
        }
        // A claim under way may still bring something.
        if !seen.busy && seen.asking == 0 && seen.quiet.is_some_and(|quiet| quiet >= self.idle) {
            return Word::Finish(Reason::Idle);
        }
        Word::Claim((self.max_tasks - seen.tasks).saturating_sub(seen.asking))
    }

    /// How long before the deadline payloads are asked to end: all of them are gone by then, and their tokens free.
    pub fn stopping(&self) -> Duration {
        self.grace + KILLED + CLEARING + RELEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules =
        Rules { idle: secs(120), fault: secs(900), max_tasks: 10, min_task: secs(100), grace: secs(5) };

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn each_rule_has_its_moment() {
        let seen = Seen::default();
        let left = |span| Seen { left: Some(span), ..seen };
        let stopping = RULES.stopping();
        let moment = Duration::from_millis(1);
        let quiet = Seen { quiet: Some(secs(120)), ..seen };
        let fault = Seen { trouble: Some(secs(900)), ..seen };
        let cases = [
            ("nothing yet", seen, Word::Claim(10)),
            ("some are worked on and asked for", Seen { tasks: 4, asking: 3, busy: true, ..seen }, Word::Claim(3)),
            ("the rest is asked for", Seen { tasks: 4, asking: 6, ..seen }, Word::Claim(0)),
            ("enough", Seen { tasks: 10, busy: true, ..seen }, Word::Finish(Reason::Tasks)),
            ("time enough", left(stopping + secs(100) + moment), Word::Claim(10)),
            ("too late for one more", left(stopping + secs(100)), Word::Finish(Reason::Late)),
            ("time for what runs", left(stopping + moment), Word::Finish(Reason::Late)),
            ("time to stop", left(stopping), Word::Stop(Reason::Deadline)),
            ("time is over", left(Duration::ZERO), Word::Stop(Reason::Deadline)),
            ("drained", Seen { drain: true, ..seen }, Word::Finish(Reason::Drain)),
            ("drained, in time", Seen { drain: true, ..left(secs(1000)) }, Word::Finish(Reason::Drain)),
            ("drained, at the end", Seen { drain: true, ..left(secs(1)) }, Word::Stop(Reason::Deadline)),
            ("drained, and enough", Seen { drain: true, tasks: 10, ..seen }, Word::Finish(Reason::Drain)),
            ("quiet for a while", Seen { quiet: Some(secs(119)), ..seen }, Word::Claim(10)),
            ("quiet", quiet, Word::Finish(Reason::Idle)),
            ("quiet, but somebody works", Seen { busy: true, ..quiet }, Word::Claim(10)),
            ("quiet, but somebody asks", Seen { asking: 1, ..quiet }, Word::Claim(9)),
            ("ill for a while", Seen { trouble: Some(secs(899)), ..seen }, Word::Claim(10)),
            ("ill", fault, Word::Finish(Reason::Fault)),
            ("ill, whoever works", Seen { busy: true, ..fault }, Word::Finish(Reason::Fault)),
        ];
        for (name, seen, word) in cases {
            assert_eq!(RULES.judge(&seen), word, "{name}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_met_by_the_first_answer() {
        let rules = Rules { idle: Duration::ZERO, fault: Duration::ZERO, ..RULES };
        let now = Some(Duration::ZERO);
        assert_eq!(rules.judge(&Seen::default()), Word::Claim(10));
        assert_eq!(rules.judge(&Seen { quiet: now, ..Seen::default() }), Word::Finish(Reason::Idle));
        assert_eq!(rules.judge(&Seen { trouble: now, ..Seen::default() }), Word::Finish(Reason::Fault));
    }

    #[test]
    fn stopping_leaves_time_for_all_that_it_takes() {
        assert!(RULES.stopping() >= RULES.grace + KILLED + RELEASE);
    }
}
