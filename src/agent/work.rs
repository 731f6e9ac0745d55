//! The work phase: the worker claims, the agent decides and runs, the worker settles.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use super::bans::Bans;
use super::ending;
use super::events::DYING;
use super::job::{self, Ended};
use super::patience::Patience;
use super::protocol::{Fate, FromWorker, ToWorker, Token};
use super::report::{self, TokenReport};
use super::runner::{Done, Fault, machine_fault, site_fault};
use super::scripts::KILLED;
use super::worker::{self, Worker};
use super::{Agent, audit, disk, firewall, logger, medium, network};
use crate::ban::judge::Decision;
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::context::site::Limits;
use crate::image::payload::MAX_GRACE_SECS;
use crate::mounts;
use crate::payload::landlock::{self, Status};
use crate::payload::outcome::{End, Outcome, Usage};
use crate::payload::sysctl;
use crate::payload::view::Shared;
use crate::verdict::Verdict;
use crate::work::Credentials;

/// Between two claims that found nothing. Doubled up to the second; a thousand machines must not ask in step.
const IDLE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Between two claims that failed.
const FAULT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// The worker bounds each claim itself (`work::run`); one that says nothing for longer is lost.
const CLAIM_LIMIT: Duration = Duration::from_secs(600);
/// It settles a token while its lock lives; this is for the last call.
const SETTLE_MARGIN: Duration = Duration::from_secs(60);
/// When the machine ends: a call that is under way (30 s), and giving the token back (10 s).
const FAREWELL: Duration = Duration::from_secs(45);
/// From a wish to end to the end of the phase at most: the payload has its grace and is killed, the token is settled,
/// the worker leaves.
pub const STOPPING: Duration = Duration::from_secs(MAX_GRACE_SECS as u64)
    .saturating_add(KILLED)
    .saturating_add(ending::CLEARING)
    .saturating_add(DYING)
    .saturating_add(disk::SETTLING)
    .saturating_add(FAREWELL)
    .saturating_add(worker::LEAVE)
    .saturating_add(DYING);
/// A payload that fails this often in a row fails for a reason that the next token does not change; every
/// further try would only add to the leases of somebody's token.
const MAX_FAILURES: u32 = 3;
/// Refused tokens that are remembered; a pool that holds more of them is asked as slowly as an empty one.
const MAX_REFUSED: usize = 10_000;

/// What was done so far.
#[derive(Default)]
struct Tally {
    jobs: u32,
    completed: u32,
    failures_in_row: u32,
    /// Tokens that were not worked on, as the site forbids it.
    refused: HashSet<String>,
    /// Jobs that were stopped for the same reason.
    banned: u32,
    /// What the log has of claims.
    claims: audit::Claims,
    /// How long the worker may take to settle a token.
    settle: Duration,
}

/// Claims, runs and completes until there is a reason to end.
pub fn run(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let source = agent.site.work.clone().or_else(|| agent.policy.work.clone());
    // A password or a key may well be a secret of the CD.
    let credentials = source.as_ref().map(|source| Credentials::read(Path::new(COPY), source)).transpose();
    medium::remove_secrets(agent)?;
    let (Some(source), Some(credentials)) = (source, credentials.map_err(site_fault)?) else {
        // A site may do everything in its scripts; without a CD nobody has said anything at all.
        return if agent.report.has_context() {
            Ok(Done::End(Verdict::done("the scripts are done, and no work source is named")))
        } else {
            Err(site_fault("no context CD, and the image names no work source"))
        };
    };
    let settle = Duration::from_secs(source.lock_secs().into()) + SETTLE_MARGIN;
    // From here on ctxinit mounts for jobs alone, and they see what the site's daemons mount later.
    mounts::make_shared().map_err(machine_fault)?;
    match landlock::status(&agent.policy.payload) {
        Status::Absent => log::warn!("payloads: the kernel has no Landlock; everything else holds without it"),
        status => log::info!("payloads: Landlock: {status}"),
    }
    sysctl::tighten();
    let _shared = Shared::make(&agent.policy.payload).map_err(machine_fault)?;
    let bans = Bans::of(agent)?;
    let mut worker = Worker::start(agent, source, credentials, bans).map_err(site_fault)?;
    let mut tally = Tally { settle, ..Tally::default() };
    let result = serve(agent, &mut worker, &mut tally);
    worker.dismiss(agent);
    result.map(Done::End)
}

/// The loop of one slot.
fn serve(agent: &mut Agent, worker: &mut Worker, tally: &mut Tally) -> Result<Verdict, Fault> {
    let Limits { idle_secs, fault_secs } = agent.site.limits;
    let secs = |secs: u32| Duration::from_secs(secs.into());
    let mut idle = Patience::new(IDLE, secs(idle_secs));
    let mut fault = Patience::new(FAULT, secs(fault_secs));
    loop {
        firewall::keep(agent).map_err(|error| machine_fault(format!("firewall: {error}; no job starts here")))?;
        // Nothing is claimed that could not be decided about.
        if let Err(why) = worker.bans.ready() {
            match fault.next() {
                Some(pause) => {
                    network::attend_or_warn(agent);
                    worker.wait_for_bans(agent, pause)?;
                }
                None => return Ok(Verdict::refused(format!("nobody's work runs: {why}"))),
            }
            continue;
        }
        if let Err(why) = logger::ready(agent) {
            match fault.next() {
                Some(pause) => {
                    log::warn!("no job starts: {why}");
                    network::attend_or_warn(agent);
                    logger::save_report(agent);
                    logger::wait_until_ready(agent, pause)?;
                }
                None => return Err(site_fault(format!("no job started for {fault_secs} s: {why}"))),
            }
            continue;
        }
        let answer = claim(agent, worker)?;
        tally.claims.answered(&answer);
        match answer {
            // A claim may wait for long.
            FromWorker::Claimed(token) if logger::ready(agent).is_err() => give_back(agent, worker, tally, &token)?,
            FromWorker::Claimed(token) => {
                let (decision, list) = worker.bans.decide(&token.owner);
                audit::authz(&token, &decision, list);
                if !decision.is_allowed() {
                    // The pool hands out what was handed out least: one that comes again means that all have been here.
                    let pause = if refuse(agent, worker, tally, token, &decision)? {
                        Some(Duration::ZERO)
                    } else {
                        idle.next()
                    };
                    match pause {
                        Some(pause) => pause_for(agent, pause)?,
                        None => return Ok(tally.verdict()),
                    }
                    continue;
                }
                if let Some(verdict) = one_token(agent, worker, tally, token)? {
                    return Ok(verdict);
                }
                idle = Patience::new(IDLE, secs(idle_secs));
                fault = Patience::new(FAULT, secs(fault_secs));
            }
            FromWorker::NoWork => {
                fault = Patience::new(FAULT, secs(fault_secs));
                match idle.next() {
                    Some(pause) => pause_for(agent, pause)?,
                    None => return Ok(tally.verdict()),
                }
            }
            FromWorker::Fault { why } => match fault.next() {
                Some(pause) => {
                    log::warn!("work source: {why}; next try in {} s", pause.as_secs());
                    pause_for(agent, pause)?;
                }
                None => return Err(machine_fault(format!("no work source for {fault_secs} s: {why}"))),
            },
            FromWorker::Refused { why, broken: false } => return Ok(Verdict::refused(why)),
            FromWorker::Refused { why, broken: true } => return Ok(Verdict::grid_fault(why)),
            other => return Err(nonsense(&format!("{other:?} where the answer to a claim was due"))),
        }
    }
}

/// Gives a token back whose job would leave no trace.
fn give_back(agent: &mut Agent, worker: &mut Worker, tally: &Tally, token: &Token) -> Result<(), Fault> {
    let _ = worker.take_body();
    worker.send(&ToWorker::Release { why: "no syslog server takes the log".to_owned() }, &[])?;
    let (fate, note) = settled(agent, worker, tally.settle)?;
    audit::settled(token, None, fate, 0, &note);
    log::warn!("token {}: {fate:?}, as no syslog server takes the log", token.id);
    if agent.events.is_ending() { Err(Fault::Stop) } else { Ok(()) }
}

/// Gives a token back that may not be worked on here; another site may run it. Returns whether it is the first time.
fn refuse(
    agent: &mut Agent,
    worker: &mut Worker,
    tally: &mut Tally,
    token: Token,
    decision: &Decision,
) -> Result<bool, Fault> {
    let start_ms = report::now_ms();
    let _ = worker.take_body();
    let end = End::Banned(decision.to_string());
    worker.send(&ToWorker::Release { why: end.to_string() }, &[])?;
    let (fate, note) = settled(agent, worker, tally.settle)?;
    audit::settled(&token, None, fate, 0, &note);
    let first = tally.refused.len() < MAX_REFUSED && tally.refused.insert(token.id.clone());
    if first {
        log::warn!("token {}: {}; {note}", token.id, decision);
        let outcome = Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() };
        let ended = Ended { name: None, outcome, result: None, dirty: None };
        agent.report.add_token(token_report(token, start_ms, ended, fate, note));
        logger::save_report(agent);
    }
    if agent.events.is_ending() { Err(Fault::Stop) } else { Ok(first) }
}

fn nonsense(what: &str) -> Fault {
    machine_fault(format!("the worker reports {what}"))
}

/// Asks for a token.
fn claim(agent: &mut Agent, worker: &mut Worker) -> Result<FromWorker, Fault> {
    worker.send(&ToWorker::Claim, &[])?;
    let answer = worker.answer(agent, CLAIM_LIMIT);
    if let Err(Fault::Stop) = answer {
        // The claim is under way: the worker gives back what it brings, unless it is on its way to us already.
        agent.events.ending();
        worker.send(&ToWorker::Stop, &[])?;
        let farewell = Deadline::after(FAREWELL);
        if let Ok(FromWorker::Claimed(token)) = worker.answer(agent, farewell.left()) {
            let (fate, note) = settled(agent, worker, farewell.left())?;
            log::info!("token {}: {fate:?}, {note}", token.id);
        }
    }
    answer
}

/// The worker's word on what became of the token. A wish to end shortens the wait, but the worker is heard out.
fn settled(agent: &mut Agent, worker: &mut Worker, limit: Duration) -> Result<(Fate, String), Fault> {
    let mut limit = limit;
    loop {
        match worker.answer(agent, limit) {
            Ok(FromWorker::Settled { fate, note }) => return Ok((fate, note)),
            // It crossed our word on the way; what became of the token is still to come.
            Ok(FromWorker::LeaseLost { .. }) => {}
            Ok(other) => return Err(nonsense(&format!("{other:?} where a settled token was due"))),
            Err(Fault::Stop) if !agent.events.is_ending() => {
                agent.events.ending();
                worker.send(&ToWorker::Stop, &[])?;
                limit = FAREWELL;
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// One token from claim to settlement. A verdict ends the machine.
fn one_token(
    agent: &mut Agent,
    worker: &mut Worker,
    tally: &mut Tally,
    token: Token,
) -> Result<Option<Verdict>, Fault> {
    let start_ms = report::now_ms();
    log::info!("token {}: claimed", token.id);
    let body = worker.take_body();
    let ended = job::run(agent, tally.jobs, &token, &body, worker);
    tally.jobs += 1;
    let limit = if ended.outcome.end == End::Stopped {
        agent.events.ending();
        FAREWELL
    } else {
        tally.settle
    };
    let why = ended.outcome.end.to_string();
    let word = match &ended.result {
        Some(result) => worker.send(&ToWorker::Finished, result),
        None if ended.outcome.end.is_failure() => worker.send(&ToWorker::Failed { why, again: true }, &[]),
        None => worker.send(&ToWorker::Release { why }, &[]),
    };
    let settled = word.and_then(|()| settled(agent, worker, limit));
    // Whatever went wrong with the worker, the token was here and is in the report.
    let (fate, note, fault) = match settled {
        Ok((fate, note)) => (fate, note, None),
        Err(fault) => (Fate::Stranded, "the worker could not settle it; its lock will run out".to_owned(), Some(fault)),
    };

    audit::settled(&token, ended.name.as_deref(), fate, ended.result.as_ref().map_or(0, Vec::len) as u64, &note);
    tell(&token, &ended, fate, &note);
    tally.count(fate, &ended.outcome);
    if matches!(ended.outcome.end, End::Banned(_)) {
        tally.refused.insert(token.id.clone());
    }
    let dirty = ended.dirty.clone();
    let end = ended.outcome.end.to_string();
    agent.report.add_token(token_report(token, start_ms, ended, fate, note));
    logger::save_report(agent);
    if let Some(fault) = fault {
        return Err(fault);
    }
    if agent.events.is_ending() {
        return Err(Fault::Stop);
    }
    if let Some(what) = dirty {
        return Ok(Some(Verdict::machine_fault(format!("no more work in this machine: {what}"))));
    }
    if tally.failures_in_row >= MAX_FAILURES {
        return Ok(Some(Verdict::machine_fault(format!("{MAX_FAILURES} jobs in a row failed, the last: {end}"))));
    }
    Ok(None)
}

fn token_report(token: Token, start_ms: u64, ended: Ended, fate: Fate, note: String) -> TokenReport {
    let Ended { name, outcome, result, .. } = ended;
    TokenReport {
        id: token.id,
        job: name,
        start_ms,
        millis: outcome.wall_millis,
        end: outcome.end.to_string(),
        reason: outcome.end.coded(),
        fate,
        note,
        result_bytes: result.map_or(0, |result| result.len() as u64),
        usage: outcome.usage,
        left_behind: outcome.left_behind,
        // The site's log has every line; the report says what a failure said last.
        tail: if fate == Fate::Completed { Vec::new() } else { outcome.tail },
    }
}

/// The line that people watch for.
fn tell(token: &Token, ended: &Ended, fate: Fate, note: &str) {
    let Outcome { end, wall_millis: millis, left_behind, .. } = &ended.outcome;
    let id = &token.id;
    let left = match left_behind {
        0 => String::new(),
        1 => ", 1 process left behind and killed".to_owned(),
        count => format!(", {count} processes left behind and killed"),
    };
    let fate = match fate {
        Fate::Completed => {
            let bytes = ended.result.as_ref().map_or(0, Vec::len);
            return log::info!("token {id}: completed, {millis} ms, result {bytes} bytes{left}");
        }
        Fate::Released => "released",
        Fate::Failed => "failed for good",
        Fate::Lost => "lost",
        Fate::Stranded => "stranded",
    };
    log::warn!("token {id}: {fate}, {millis} ms, {end} ({}){left}; {note}", end.coded());
}

/// Waits, and renews DHCP leases meanwhile.
fn pause_for(agent: &mut Agent, pause: Duration) -> Result<(), Fault> {
    network::attend_or_warn(agent);
    logger::save_report(agent);
    Ok(agent.events.sleep(Deadline::after(pause))?)
}

impl Tally {
    fn count(&mut self, fate: Fate, outcome: &Outcome) {
        self.completed += u32::from(fate == Fate::Completed);
        // The site's word is no fault of the machine.
        if matches!(outcome.end, End::Banned(_)) {
            self.banned += 1;
            return;
        }
        // A success that could not be stored counts as a failure too: the same token would come again at once.
        let done = fate == Fate::Completed && outcome.success();
        self.failures_in_row = if done { 0 } else { self.failures_in_row + 1 };
    }

    /// There is no more work.
    fn verdict(&self) -> Verdict {
        let refused = match self.refused.len() {
            0 => String::new(),
            count => format!(", {count} refused"),
        };
        match (self.jobs - self.banned, self.completed) {
            (0, _) if !self.refused.is_empty() => {
                let tokens = crate::text::count(self.refused.len() as u64, "token");
                Verdict::refused(format!("nothing to do but {tokens} whose work is refused here"))
            }
            (0, _) => Verdict::no_work("nothing to do"),
            (jobs, 0) => Verdict::machine_fault(format!("none of {jobs} tokens completed{refused}")),
            (jobs, completed) if jobs == completed => Verdict::done(format!("{completed} tokens completed{refused}")),
            (jobs, completed) => Verdict::done(format!("{completed} of {jobs} tokens completed{refused}")),
        }
    }
}
