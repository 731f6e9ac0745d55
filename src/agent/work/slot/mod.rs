//! One slot: it works on one token at a time, beside all others.
//!
//! | state | until | then |
//! |---|---|---|
//! | resting | its pause is over and claims are wanted ([`super::limits`]) | asks |
//! | asking | the worker answers | works; settles, if nobody may work on it here; rests |
//! | working | the job is over ([`super::job`]) | settles |
//! | settling | the worker says what became of the token | rests |
//! | over | | its worker leaves, or is lost |
//!
//! A wish to end goes through the same states: a claim under way is given back, a job is stopped, a token released.

mod settling;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::PollFlags;

use self::settling::What;
use super::common::Common;
use crate::agent::job::Running;
use crate::agent::patience::Patience;
use crate::agent::runner::{Fault, machine_fault};
use crate::agent::worker::Worker;
use crate::agent::{Agent, audit, logger, report};
use crate::clock::Deadline;
use crate::payload::outcome::End;
use crate::protocol::{Fate, FromWorker, ToWorker, Token};

/// Bounds of the pause after a claim that found nothing.
const IDLE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// After one that failed. A server that comes back is met by a few machines a second, and not by all that waited.
const FAULT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// After a token whose work failed: what is wrong with this machine may pass, and other machines may do better meanwhile.
const FAILED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The worker bounds each claim itself (`work::run`); one that says nothing for longer is lost.
const CLAIM_LIMIT: Duration = Duration::from_secs(600);
/// When the machine ends: a call that is under way (30 s), and giving the token back (10 s).
pub const FAREWELL: Duration = Duration::from_secs(45);

/// A slot and its worker.
pub struct Slot {
    number: usize,
    worker: Worker,
    state: State,
    idle: Patience,
    fault: Patience,
    failed: Patience,
    /// Its worker was told that no more work is wanted.
    told: bool,
}

enum State {
    Resting(Deadline),
    /// The worker answers by then.
    Asking(Deadline),
    Working(Box<Held>, Box<Running>),
    Settling(Box<Held>, What, Deadline),
    Over,
}

/// A claimed token.
struct Held {
    token: Token,
    start_ms: u64,
}

impl Slot {
    /// One that asks as soon as it may.
    ///
    /// Machines that boot together ask together, and that is as it should be: only a server that answers late or not at
    /// all has too many of them, and then each rests for a time of its own. A pause before the first claim would make
    /// every machine of every site wait for the day on which that happens.
    pub fn new(number: usize, worker: Worker) -> Self {
        let [idle, fault, failed] = [IDLE, FAULT, FAILED].map(Patience::new);
        Self { number, worker, state: State::Resting(now()), idle, fault, failed, told: false }
    }

    /// Its worker, to be let go.
    pub fn into_worker(self) -> Worker {
        self.worker
    }

    /// Whether it would ask for a token now.
    pub fn would_ask(&self) -> bool {
        matches!(self.state, State::Resting(until) if until.passed())
    }

    /// Whether a claim is under way.
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }

    /// Whether a token is worked on, or was and is not settled.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Working(..) | State::Settling(_, What::Job(_), _))
    }

    /// Whether it has no token and none is under way to it.
    pub fn is_free(&self) -> bool {
        matches!(self.state, State::Resting(_) | State::Over)
    }

    /// What ends a wait before [`Slot::due`].
    pub fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Over => Vec::new(),
            // Once its end is decided, the worker is heard again when there is something to settle.
            State::Working(_, running) if running.is_ending() => running.sources(),
            State::Working(_, running) => running.sources().into_iter().chain([self.worker.source()]).collect(),
            _ => vec![self.worker.source()],
        }
    }

    /// When the next step is to be taken; `None` if the slot waits for others alone.
    pub fn due(&self) -> Option<Deadline> {
        match &self.state {
            State::Asking(until) | State::Settling(_, _, until) => Some(*until),
            State::Working(_, running) => Some(running.due()),
            State::Resting(_) | State::Over => None,
        }
    }

    /// When its pause is over.
    pub fn rests_until(&self) -> Option<Deadline> {
        match self.state {
            State::Resting(until) => Some(until),
            _ => None,
        }
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// The worker is gone.
    pub fn ask(&mut self) -> Result<(), Fault> {
        self.worker.send(&ToWorker::Claim, &[])?;
        self.state = State::Asking(Deadline::after(CLAIM_LIMIT));
        Ok(())
    }

    /// Another ban list counts: a job of somebody whom it names is stopped.
    pub fn judge(&mut self, agent: &Agent, common: &Common) {
        let State::Working(held, running) = &mut self.state else { return };
        if let Some(decision) = common.bans.stops(&held.token.owner) {
            running.stop(agent, End::Banned(format!("stopped: {decision}")));
        }
    }

    /// The machine ends. Once is enough, and any number of times does no harm.
    pub fn stop(&mut self, agent: &Agent) {
        match &mut self.state {
            State::Working(_, running) => running.stop(agent, End::Stopped),
            State::Resting(_) => {
                self.state = State::Over;
                // It leaves while others still work.
                self.tell_stop();
            }
            // A claim that is under way: the worker gives back what it brings, unless it is on its way to us already.
            State::Asking(until) | State::Settling(_, _, until) if !self.told => {
                *until = (*until).min(Deadline::after(FAREWELL));
                self.tell_stop();
            }
            _ => {}
        }
    }

    /// One that is gone does not hear it; that shows when its answer is due, if one is.
    fn tell_stop(&mut self) {
        self.told = true;
        let _ = self.worker.send(&ToWorker::Stop, &[]);
    }

    /// Its worker broke its word or died: a token that it had stays locked until its lock runs out.
    pub fn lose(&mut self, agent: &Agent) {
        match &mut self.state {
            // Who works on it is stopped first; what follows finds that the worker is gone.
            State::Working(_, running) => running.stop(agent, unwatched("the worker is gone, and the lease with it")),
            state => *state = State::Over,
        }
    }

    /// Goes as far as it can.
    ///
    /// # Errors
    /// The worker is gone, late, or talks nonsense.
    pub fn step(&mut self, agent: &mut Agent, common: &mut Common) -> Result<(), Fault> {
        // Several messages may have come at once, and no wait returns for those that were read with the first.
        while self.advance(agent, common)? {}
        Ok(())
    }

    /// One step; whether it was one.
    fn advance(&mut self, agent: &mut Agent, common: &mut Common) -> Result<bool, Fault> {
        let until = match self.state {
            State::Over => return Ok(false),
            State::Working(..) => return self.work(agent, common),
            State::Resting(until) | State::Asking(until) | State::Settling(_, _, until) => until,
        };
        let heard = self.worker.heard(&mut common.bans);
        let is_settling = matches!(self.state, State::Settling(..));
        match heard {
            Ok(Some(FromWorker::Settled { fate, note })) if is_settling => self.settled(agent, common, fate, note),
            // It crossed our word on the way; what became of the token is still to come.
            Ok(Some(FromWorker::LeaseLost { .. })) if is_settling => {}
            Ok(Some(answer)) if self.is_asking() => self.answered(agent, common, answer)?,
            Ok(None) if self.rests_until().is_some() || !until.passed() => return Ok(false),
            // Whatever went wrong with the worker, the token was here and is in the report.
            amiss => {
                if is_settling {
                    let note = "the worker could not settle it; its lock will run out".to_owned();
                    self.settled(agent, common, Fate::Stranded, note);
                }
                self.state = State::Over;
                match amiss {
                    Err(fault) => return Err(fault),
                    // It was told to leave, and had its time.
                    Ok(None) if self.told => {}
                    Ok(None) => return Err(machine_fault("the worker did not answer in time")),
                    Ok(Some(message)) => {
                        return Err(nonsense(&format!("{message:?} where nothing of the kind was due")));
                    }
                }
            }
        }
        Ok(true)
    }

    fn answered(&mut self, agent: &mut Agent, common: &mut Common, answer: FromWorker) -> Result<(), Fault> {
        common.claims.answered(&answer);
        let FromWorker::Claimed(token) = answer else { return self.without_token(agent, common, answer) };
        common.met_work();
        let held = Box::new(Held { token, start_ms: report::now_ms() });
        if self.told {
            // The worker had it in hand when it heard that no more is wanted, and gives it back.
            let why = "the machine ends".to_owned();
            self.state = State::Settling(held, What::GivenBack(why), Deadline::after(FAREWELL));
            return Ok(());
        }
        // A claim may take long: what was so before it need not be so any more.
        let unwanted = common.unwanted().or_else(|| logger::ready(agent).err().map(str::to_owned));
        if let Some(why) = unwanted {
            self.give_back(held, What::GivenBack(why.clone()), why, common);
            return Ok(());
        }
        let (decision, list) = common.bans.decide(&held.token.owner);
        audit::authz(&held.token, &decision, list);
        if !decision.is_allowed() {
            let why = End::Banned(decision.to_string()).to_string();
            self.give_back(held, What::Refused(decision), why, common);
            return Ok(());
        }
        log::info!("token {}: claimed", held.token.id);
        let body = self.worker.take_body();
        let number = common.tally.jobs;
        common.tally.jobs += 1;
        match Running::begin(agent, number, &held.token, &body, &self.worker.pool) {
            Ok(running) => {
                self.state = State::Working(held, Box::new(running));
                Ok(())
            }
            Err(ended) => {
                self.settle(agent, common, held, ended);
                Ok(())
            }
        }
    }

    fn without_token(&mut self, agent: &mut Agent, common: &mut Common, answer: FromWorker) -> Result<(), Fault> {
        match answer {
            _ if self.told => self.state = State::Over,
            FromWorker::NoWork => {
                common.met_nothing();
                self.fault.reset();
                let pause = common.idle_pause(&mut self.idle);
                self.rest(agent, pause);
            }
            FromWorker::Fault { why } => {
                let secs = common.rules.fault.as_secs();
                common.met_fault(Err(machine_fault(format!("no work source for {secs} s: {why}"))));
                let pause = common.fault_pause(&mut self.fault);
                log::warn!("work source: {why}; next try in {} s", pause.as_secs());
                self.rest(agent, pause);
            }
            FromWorker::Refused { why, broken } => {
                common.refused(why, broken);
                self.rest(agent, Duration::ZERO);
            }
            other => return Err(nonsense(&format!("{other:?} where the answer to a claim was due"))),
        }
        Ok(())
    }

    fn rest(&mut self, agent: &mut Agent, pause: Duration) {
        self.state = State::Resting(Deadline::after(pause));
        logger::save_report(agent);
    }

    /// The job's part of a step.
    fn work(&mut self, agent: &mut Agent, common: &mut Common) -> Result<bool, Fault> {
        let State::Working(held, running) = &mut self.state else { return Ok(false) };
        let mut ended = running.step(agent, &held.token);
        if ended.is_none() && !running.is_ending() {
            let end = match self.worker.heard(&mut common.bans) {
                Ok(None) => return Ok(false),
                Ok(Some(FromWorker::LeaseLost { why })) => End::LeaseLost(why),
                Ok(Some(other)) => unwatched(&format!("the worker says {other:?} during a job")),
                Err(_) => unwatched("the worker is gone, and the lease with it"),
            };
            running.stop(agent, end);
            ended = running.step(agent, &held.token);
        }
        let Some(ended) = ended else { return Ok(false) };
        let State::Working(held, _) = std::mem::replace(&mut self.state, State::Over) else { return Ok(false) };
        self.settle(agent, common, held, Box::new(ended));
        Ok(true)
    }
}

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn nonsense(what: &str) -> Fault {
    machine_fault(format!("the worker reports {what}"))
}

fn unwatched(why: &str) -> End {
    End::Unwatched { why: why.to_owned(), errno: None }
}
