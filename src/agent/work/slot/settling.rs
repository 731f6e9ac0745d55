//! The end of a token's stay in a slot: the worker is told what came of it, and says what became of it.

use std::time::Duration;

use super::{FAREWELL, Held, Slot, State};
use crate::agent::job::{self, Ended};
use crate::agent::work::common::{Common, Why};
use crate::agent::work::tally::Settled;
use crate::agent::work::told;
use crate::agent::{Agent, audit, logger, platform};
use crate::ban::judge::Decision;
use crate::clock::Deadline;
use crate::payload::outcome::End;
use crate::protocol::{Fate, ToWorker, Token};

/// What is settled.
pub(super) enum What {
    /// A token that was worked on.
    Job(Box<Ended>),
    /// One that may not be worked on here; another site may run it.
    Refused(Decision),
    /// One that came when none was wanted any more, and why not.
    GivenBack(String),
}

impl Slot {
    pub(super) fn give_back(&mut self, held: Box<Held>, what: What, why: String, common: &Common) {
        let _ = self.worker.take_body();
        // One that is gone shows when its answer is due.
        let _ = self.worker.send(&ToWorker::Release { why }, &[]);
        self.state = State::Settling(held, what, Deadline::after(common.settle));
    }

    /// A job is over: its token is completed or given back.
    pub(super) fn settle(&mut self, agent: &Agent, common: &Common, held: Box<Held>, ended: Box<Ended>) {
        let end = &ended.outcome.end;
        let why = end.to_string();
        let (word, body) = match &ended.result {
            Some(result) => (ToWorker::Finished, result.as_slice()),
            None if end.is_failure() => {
                (ToWorker::Failed { why, again: agent.policy.payload.tries_again(end) }, [].as_slice())
            }
            None => (ToWorker::Release { why }, [].as_slice()),
        };
        // One that is gone shows when its answer is due.
        let _ = self.worker.send(&word, body);
        let limit = if *end == End::Stopped { FAREWELL } else { common.settle };
        self.state = State::Settling(held, What::Job(ended), Deadline::after(limit));
    }

    pub(super) fn settled(&mut self, agent: &mut Agent, common: &mut Common, fate: Fate, note: String) {
        let State::Settling(held, what, _) = std::mem::replace(&mut self.state, State::Over) else { return };
        let Held { token, start_ms } = *held;
        let pause = match what {
            What::GivenBack(why) => {
                audit::settled(&token, None, fate, 0, &note);
                log::warn!("token {}: {fate:?}, as {why}", token.id);
                Duration::ZERO
            }
            What::Refused(decision) => {
                audit::settled(&token, None, fate, 0, &note);
                if common.tally.refuse(&token.id) {
                    log::warn!("token {}: {decision}; {note}", token.id);
                    let outcome = job::nothing_of(End::Banned(decision.to_string()));
                    let ended = Ended { name: None, outcome, result: None, said: None, dirty: None };
                    agent.report.add_token(told::report(token, start_ms, ended, fate, note));
                    Duration::ZERO
                } else {
                    // The pool hands out what was handed out least: one that comes again means that all have been here.
                    common.met_nothing();
                    common.idle_pause(&mut self.idle)
                }
            }
            What::Job(ended) => self.worked(agent, common, token, start_ms, *ended, fate, note),
        };
        if !self.told {
            self.state = State::Resting(Deadline::after(pause));
        }
        logger::save_report(agent);
    }

    /// A token that was worked on is out of our hands. How long the slot rests.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the token")]
    fn worked(
        &mut self,
        agent: &mut Agent,
        common: &mut Common,
        token: Token,
        start_ms: u64,
        ended: Ended,
        fate: Fate,
        note: String,
    ) -> Duration {
        let bytes = ended.result.as_ref().map_or(0, Vec::len) as u64;
        audit::settled(&token, ended.name.as_deref(), fate, bytes, &note);
        told::log(&token, &ended, fate, &note);
        if let Some(verdict) = platform::pilot_ended(agent, &ended.outcome, ended.said.clone()) {
            common.finish(if ended.said.is_some() { Why::Pilot(verdict) } else { Why::Said(Ok(verdict)) });
        }
        let settled = common.tally.settled(self.number, &token.id, fate, &ended.outcome);
        if let Some(what) = &ended.dirty {
            common.dirty(what);
        }
        agent.report.add_token(told::report(token, start_ms, ended, fate, note));
        self.idle.reset();
        self.fault.reset();
        match settled {
            Settled::Done => {
                self.failed.reset();
                Duration::ZERO
            }
            Settled::Excused => Duration::ZERO,
            Settled::Failed => self.failed.pause(),
            Settled::TooMany(verdict) => {
                common.finish(Why::Said(Ok(verdict)));
                Duration::ZERO
            }
        }
    }
}
