//! What all slots share: the rules, what was done, and why nothing more is claimed.

use std::fmt;
use std::time::{Duration, Instant};

use super::super::audit::Claims;
use super::super::bans::Bans;
use super::super::patience::Patience;
use super::super::runner::{Fault, machine_fault};
use super::limits::{Reason, Rules};
use super::tally::Tally;
use crate::verdict::Verdict;

/// Shared by all slots of a machine.
pub struct Common {
    /// When to claim no more.
    pub rules: Rules,
    /// How long the worker may take to settle a token.
    pub settle: Duration,
    /// Whose work may run.
    pub bans: Bans,
    /// What was done so far.
    pub tally: Tally,
    /// What the log has of claims.
    pub claims: Claims,
    /// Whether a slot works.
    working: bool,
    /// While nobody works: the first and the last answer that there is no work.
    quiet: Option<(Instant, Instant)>,
    /// The first and the last time that nothing could be claimed, and how the machine ends if that lasts.
    trouble: Option<(Instant, Instant, Result<Verdict, Fault>)>,
    /// Why no slot may claim, as it was told last.
    shut: Option<String>,
    /// Why the machine ends, once that is decided; what runs goes on.
    end: Option<Why>,
    /// What runs is stopped, too.
    stopping: bool,
    asked: bool,
    /// What the rules say for now.
    held: Option<Reason>,
}

impl Common {
    /// At the start of the phase.
    pub fn new(rules: Rules, settle: Duration, bans: Bans, slots: usize) -> Self {
        Self {
            rules,
            settle,
            bans,
            tally: Tally::new(slots),
            claims: Claims::default(),
            working: false,
            quiet: None,
            trouble: None,
            shut: None,
            end: None,
            stopping: false,
            asked: false,
            held: None,
        }
    }

    /// A token was claimed.
    pub fn met_work(&mut self) {
        self.trouble = None;
    }

    /// There is no work now.
    pub fn met_nothing(&mut self) {
        self.trouble = None;
        let now = Instant::now();
        self.quiet = Some((self.quiet.map_or(now, |(since, _)| since), now));
    }

    /// Whether somebody works: then there is work.
    pub fn at_work(&mut self, working: bool) {
        self.working = working;
        if working {
            self.quiet = None;
        }
    }

    /// Nothing can be claimed; this is the machine's end if that lasts.
    pub fn met_fault(&mut self, end: Result<Verdict, Fault>) {
        let now = Instant::now();
        let since = self.trouble.as_ref().map_or(now, |(since, ..)| *since);
        self.trouble = Some((since, now, end));
    }

    /// Whether claims may be made, as against: why not. Whether that is new.
    pub fn may_claim(&mut self, shut: Option<&str>) -> bool {
        std::mem::replace(&mut self.shut, shut.map(str::to_owned)) != self.shut
    }

    /// For how long, by the last answer: a limit is reached when one more was asked for then.
    pub fn quiet(&self) -> Option<Duration> {
        self.quiet.map(|(since, last)| last - since)
    }

    /// The same.
    pub fn trouble(&self) -> Option<Duration> {
        self.trouble.as_ref().map(|(since, last, _)| *last - *since)
    }

    /// In how long a rule has something to say about that.
    pub fn patience(&self) -> Option<Duration> {
        let (since, ..) = self.trouble.as_ref()?;
        let left = self.rules.fault.saturating_sub(since.elapsed());
        // After that it is the last try that counts, which is on its way.
        (!left.is_zero() || self.trouble() >= Some(self.rules.fault)).then_some(left)
    }

    /// The next pause of an idle slot. The last try is made when the limit is reached; none is while others work, for
    /// however long.
    pub fn idle_pause(&self, patience: &mut Patience) -> Duration {
        if self.working {
            return patience.pause();
        }
        let left = self.quiet.map_or(Duration::MAX, |(since, _)| self.rules.idle.saturating_sub(since.elapsed()));
        patience.pause().min(left)
    }

    /// The same of one whose claim failed.
    pub fn fault_pause(&self, patience: &mut Patience) -> Duration {
        let since = self.trouble.as_ref().map(|(since, ..)| since.elapsed());
        let left = since.map_or(Duration::MAX, |trouble| self.rules.fault.saturating_sub(trouble));
        patience.pause().min(left)
    }

    /// The source of work does not want this machine, or talks nonsense.
    pub fn refused(&mut self, why: String, broken: bool) {
        self.finish(Why::Said(Ok(if broken { Verdict::grid_fault(why) } else { Verdict::refused(why) })));
    }

    /// A job left something: the next one could meet it.
    pub fn dirty(&mut self, what: &str) {
        self.finish(Why::Said(Ok(Verdict::machine_fault(format!("no more work in this machine: {what}")))));
    }

    /// Nothing more is claimed, what runs goes on, and then the machine ends so. Of several reasons the first of the
    /// gravest kind counts.
    pub fn finish(&mut self, why: Why) {
        if self.end.as_ref().is_none_or(|known| known.gravity() < why.gravity()) {
            log::info!("no more tokens are claimed: {why}");
            self.end = Some(why);
        }
    }

    /// The same, and what runs is stopped.
    pub fn stop(&mut self, why: Why) {
        self.finish(why);
        self.stopping = true;
    }

    /// Whether the host, or what the machine cannot do without, wants the end.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// It does. From now on waits do not say so again.
    pub fn asked(&mut self) {
        self.asked = true;
        self.stop(Why::Said(Err(Fault::Stop)));
    }

    /// Whether what runs is stopped.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// A rule says that nothing is claimed for now; it may change its mind.
    pub fn hold(&mut self, reason: Option<Reason>) {
        self.held = reason;
    }

    /// Why a token that comes now is not wanted any more.
    pub fn unwanted(&self) -> Option<String> {
        match (&self.end, self.held) {
            (Some(_), _) => Some("the machine is about to end".to_owned()),
            (None, Some(Reason::Drain)) => Some("the machine is drained".to_owned()),
            (None, Some(Reason::Late | Reason::Deadline)) => Some("the machine's time is over".to_owned()),
            (None, _) => None,
        }
    }

    /// Whether the end is decided, or a rule says that it has come.
    pub fn is_over(&self) -> bool {
        self.end.is_some() || self.held.is_some()
    }

    /// How the machine ends; `words` are those of a rule.
    pub fn end(self, words: impl FnOnce(Reason, &Tally) -> Verdict) -> Result<Verdict, Fault> {
        match (self.end, self.held, self.trouble) {
            (Some(Why::Pilot(verdict)), ..) => Ok(verdict),
            (Some(Why::Said(end)), ..) | (None, Some(Reason::Fault), Some((.., end))) => end,
            (Some(Why::Rule(reason)), ..) | (None, Some(reason), _) => Ok(words(reason, &self.tally)),
            (None, None, _) => Err(machine_fault("the work is over for no reason")),
        }
    }
}

/// Why a machine ends.
#[derive(Debug)]
pub enum Why {
    /// A rule says so; its words are made when all is over.
    Rule(Reason),
    /// This happened.
    Said(Result<Verdict, Fault>),
    /// A pilot has said so itself.
    Pilot(Verdict),
}

impl Why {
    /// What is wrong counts more than a pilot's own word, which it may well give when it is stopped; that more than the
    /// host's wish to end, and that more than work that is done.
    fn gravity(&self) -> u8 {
        match self {
            Self::Said(Ok(verdict) | Err(Fault::Failed(verdict))) | Self::Pilot(verdict) if verdict.code >= 400 => 3,
            Self::Pilot(_) => 2,
            Self::Said(Err(Fault::Stop)) => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(reason) => reason.fmt(f),
            Self::Said(Ok(verdict) | Err(Fault::Failed(verdict))) | Self::Pilot(verdict) => f.write_str(&verdict.text),
            Self::Said(Err(Fault::Stop)) => f.write_str("the machine is asked to end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Seen, Word};
    use super::*;

    #[test]
    fn a_pilots_own_word_counts_however_it_was_stopped() {
        let zero = Duration::ZERO;
        let rules = Rules { idle: zero, fault: zero, max_tasks: 9, min_task: zero, grace: zero };
        let verdict = |code| Verdict { code, text: "x".to_owned() };
        let stops: [fn(&mut Common); 2] = [|common| common.stop(Why::Rule(Reason::Deadline)), Common::asked];
        for stop in stops {
            for (pilot, dirty, expected) in [(200, false, 200), (300, false, 300), (200, true, 700), (600, true, 600)] {
                let mut common = Common::new(rules, zero, Bans::default(), 1);
                stop(&mut common);
                common.finish(Why::Pilot(verdict(pilot)));
                if dirty {
                    common.dirty("x");
                }
                let end = common.end(|_, _| verdict(100)).map(|verdict| verdict.code);
                assert!(matches!(end, Ok(code) if code == expected), "{pilot} {dirty}: {end:?}");
            }
        }
    }

    #[test]
    fn a_limit_is_reached_by_a_last_try() {
        let span = Duration::from_millis(50);
        let (max_tasks, zero) = (9, Duration::ZERO);
        let rules = Rules { idle: span, fault: span, max_tasks, min_task: zero, grace: zero };
        let mut common = Common::new(rules, zero, Bans::default(), 1);
        let judge = |common: &Common| {
            rules.judge(&Seen { quiet: common.quiet(), trouble: common.trouble(), ..Seen::default() })
        };
        for reason in [Reason::Idle, Reason::Fault] {
            let meet = |common: &mut Common| match reason {
                Reason::Idle => common.met_nothing(),
                _ => common.met_fault(Ok(Verdict::done("x"))),
            };
            let mut patience = Patience::new((span * 100, span * 100));
            meet(&mut common);
            let pause = match reason {
                Reason::Idle => common.idle_pause(&mut patience),
                _ => common.fault_pause(&mut patience),
            };
            assert!(pause <= span, "{pause:?}");
            std::thread::sleep(span);
            // A server that is back by now, or a token that has come, is found.
            assert_eq!((judge(&common), common.patience()), (Word::Claim(9), None), "{reason}");
            meet(&mut common);
            assert_eq!(judge(&common), Word::Finish(reason));
            assert!(reason != Reason::Fault || common.patience() == Some(zero));
            common.at_work(true);
            common.at_work(false);
        }
    }

    #[test]
    fn a_slot_without_work_rests_while_another_works() {
        let zero = Duration::ZERO;
        let rules = Rules { idle: zero, fault: zero, max_tasks: 9, min_task: zero, grace: zero };
        let mut common = Common::new(rules, zero, Bans::default(), 2);
        let mut pause = |working| {
            common.at_work(working);
            common.met_nothing();
            // Full jitter may be as short as it likes, but not always.
            let most = Duration::from_secs(100);
            (0..100).map(|_| common.idle_pause(&mut Patience::new((most, most)))).max().unwrap()
        };
        assert!(pause(true) > Duration::from_secs(1));
        assert_eq!(pause(false), zero, "the limit of idle time is reached");
    }
}
