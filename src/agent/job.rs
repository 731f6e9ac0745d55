//! One job under the agent's eyes: started, watched, ended with everything that it made.

use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::output::Source;
use super::protocol::{FromWorker, Record, Token};
use super::worker::Worker;
use super::{Agent, network, scripts};
use crate::clock::Deadline;
use crate::logging;
use crate::payload::Job;
use crate::payload::outcome::{End, Outcome, Usage};

/// From the fork to the program's first instruction, a millisecond. A repository that is mounted on demand takes seconds;
/// a server that is gone is not waited for longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A job that is over.
pub struct Ended {
    /// Its name, if it got that far.
    pub name: Option<String>,
    /// How it went.
    pub outcome: Outcome,
    /// What counts as its result; none unless it succeeded.
    pub result: Option<Vec<u8>>,
    /// Whether a process of it could not be killed: then this machine is fit for no other job.
    pub dirty: bool,
}

/// Runs a job on a token to its end.
pub fn run(agent: &mut Agent, number: u32, token: &Token, body: &[u8], worker: &mut Worker) -> Ended {
    let begun = Instant::now();
    let (mut job, output) = match Job::begin(&agent.policy.payload, &agent.features, number, token, body) {
        Ok(begun) => begun,
        Err(error) => return not_started(End::Failed(format!("not started: {error}"))),
    };
    if let Err(end) = started(agent, &mut job) {
        let clean = end_all(agent, &job, Duration::ZERO);
        return Ended { dirty: !clean, ..not_started(end) };
    }
    let pid = job.pid().unwrap_or(job.keeper().pid().as_raw() as u32);
    let source = Source { tag: "payload".to_owned(), pid, job: Some(job.name.clone()), show: false };
    audit(&source, format!("{} started: token {}, uid {}, process {pid}", job.name, token.id, job.uid));
    let output = agent.events.add_output(output, source.clone());

    let end = watch(agent, &mut job, worker);
    let by_itself = matches!(end, End::Exited(_));
    // What the first process left behind is none of anybody's any more.
    let left_behind = if by_itself { job.payload_processes().len() } else { 0 };
    let grace = Duration::from_secs(if by_itself { 0 } else { agent.policy.payload.grace_secs.into() });
    let clean = end_all(agent, &job, grace);
    let used = job.cgroup.usage();
    let mut outcome = Outcome {
        end: if used.oom_kills.unwrap_or(0) > 0 { End::OutOfMemory } else { end },
        wall_millis: begun.elapsed().as_millis() as u64,
        usage: Usage {
            cpu_millis: used.cpu_micros.unwrap_or(0) / 1000,
            memory_kib: used.memory_peak.unwrap_or(0) / 1024,
            oom_kills: used.oom_kills.unwrap_or(0),
            pids_refused: used.pids_refused.unwrap_or(0),
        },
        left_behind,
        tail: agent.events.finish_output(output).tail,
    };
    let mut result = None;
    if outcome.success() {
        match job.result() {
            Ok(bytes) => result = Some(bytes),
            Err(error) => outcome.end = End::Failed(error.to_string()),
        }
    }
    audit(&source, format!("{} ended: {}, {} ms", job.name, outcome.end, outcome.wall_millis));
    Ended { name: Some(job.name.clone()), outcome, result, dirty: !clean }
}

/// Start and end of each job are in the log, so that a site can tell who ran what and when; on the console
/// the token's line says enough.
fn audit(job: &Source, text: String) {
    let record = Record { pid: Some(job.pid), job: job.job.clone(), ..Record::now(5, "ctxinit", text) };
    logging::forward(record, false);
}

/// Waits until the program runs.
fn started(agent: &mut Agent, job: &mut Job) -> Result<(), End> {
    match agent.events.wait(&[(job.start_known(), PollFlags::POLLIN)], Deadline::after(START_LIMIT)) {
        Ok(true) => job.started().map_err(|error| End::Failed(format!("not started: {error}"))),
        Ok(false) => {
            let limit = START_LIMIT.as_secs();
            Err(End::Failed(format!(
                "not started: its program did not run within {limit} s; does its file system answer?"
            )))
        }
        Err(_) => Err(End::Stopped),
    }
}

/// SIGTERM to everybody of the job, then SIGKILL, until nobody is left. False if somebody is.
fn end_all(agent: &mut Agent, job: &Job, grace: Duration) -> bool {
    if !grace.is_zero() {
        job.cgroup.terminate(Some(job.keeper().pid()));
        agent.events.wait_through(&[(job.status(), PollFlags::POLLIN)], Deadline::after(grace));
    }
    let clean = scripts::end_tree(&mut agent.events, &job.cgroup, job.keeper(), Duration::ZERO);
    agent.events.bury(job.keeper());
    clean
}

/// Waits for the first of: the program's end, its limit, a lost lease, the end of the machine.
fn watch(agent: &mut Agent, job: &mut Job, worker: &mut Worker) -> End {
    let limit = agent.policy.payload.wall_secs;
    let deadline = Deadline::after(Duration::from_secs(limit.into()));
    loop {
        match job.ended() {
            Ok(Some(exit)) => return End::Exited(exit),
            Ok(None) => {}
            Err(error) => return End::Failed(format!("{}: {error}", job.name)),
        }
        match worker.heard() {
            Ok(None) => {}
            Ok(Some(FromWorker::LeaseLost { why })) => return End::LeaseLost(why),
            Ok(Some(other)) => return End::Failed(format!("the worker says {other:?} during a job")),
            Err(_) => return End::Failed("the worker is gone, and the lease with it".to_owned()),
        }
        // A job may run for longer than a DHCP lease.
        network::attend_or_warn(agent);
        let mut fds = network::sources(&agent.dhcp);
        fds.extend([(job.status(), PollFlags::POLLIN), worker.source()]);
        match agent.events.wait(&fds, deadline) {
            Ok(true) => {}
            Ok(false) => return End::TooLong(limit),
            Err(_) => return End::Stopped,
        }
    }
}

fn not_started(end: End) -> Ended {
    let outcome = Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() };
    Ended { name: None, outcome, result: None, dirty: false }
}
