//! One job under the agent's eyes: started, watched, ended with everything that it made.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::output::Source;
use super::protocol::{FromWorker, Record, Token};
use super::worker::Worker;
use super::{Agent, disk, ending, firewall, network};
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
    /// What of it could not be removed: then this machine is fit for no other job.
    pub dirty: Option<String>,
}

/// Runs a job on a token to its end.
pub fn run(agent: &mut Agent, number: u32, token: &Token, body: &[u8], worker: &mut Worker) -> Ended {
    // A claim may have waited for long, with the site's services at work meanwhile.
    if let Err(error) = firewall::keep(agent) {
        return not_started(End::NotStarted { why: format!("firewall: {error}"), errno: None });
    }
    if let Some(why) = disk::missing(agent) {
        return not_started(End::NotStarted { why: why.to_owned(), errno: None });
    }
    let begun = Instant::now();
    let disk = agent.user_disk.as_ref();
    let (mut job, output) = match Job::begin(&agent.policy.payload, &agent.features, disk, number, token, body) {
        Ok(begun) => begun,
        Err(error) => return not_started(error.into()),
    };
    if let Err(end) = started(agent, &mut job) {
        let ended = ending::end(&mut agent.events, &job, Duration::ZERO);
        return Ended { dirty: remains(agent, job, ended), ..not_started(end) };
    }
    let pid = job.pid().unwrap_or(job.keeper().pid().as_raw() as u32);
    let source = Source { tag: "payload".to_owned(), pid, job: Some(job.name.clone()), show: false };
    audit(&source, format!("{} started: token {}, uid {}, process {pid}", job.name, token.id, job.uid));
    let output = agent.events.add_output(output, source.clone());

    let end = watch(agent, &mut job, worker);
    let by_itself = matches!(end, End::Exited(_));
    // What the first process left behind is none of anybody's any more.
    let left_behind = if by_itself { job.members().len() } else { 0 };
    let grace = Duration::from_secs(if by_itself { 0 } else { agent.policy.payload.grace_secs.into() });
    let ended = ending::end(&mut agent.events, &job, grace);
    let used = job.cgroup.usage();
    let mut outcome = Outcome {
        end: end.after_oom_kills(used.oom_kills.unwrap_or(0)),
        wall_millis: begun.elapsed().as_millis() as u64,
        usage: Usage::new(used, job.scratch_bytes()),
        left_behind,
        tail: agent.events.finish_output(output).tail,
    };
    if let Err(why) = disk::settle(agent)
        && outcome.success()
    {
        outcome.end = End::DiskLost(why);
    }
    let mut result = None;
    if outcome.success() {
        match job.result() {
            Ok(bytes) => result = Some(bytes),
            Err(error) => outcome.end = error.into(),
        }
    }
    let (name, end) = (job.name.clone(), &outcome.end);
    audit(&source, format!("{name} ended: {end} ({}), {} ms", end.coded(), outcome.wall_millis));
    Ended { name: Some(name), outcome, result, dirty: remains(agent, job, ended) }
}

/// What is left of a job that has ended like this.
fn remains(agent: &mut Agent, job: Job, ended: Result<(), String>) -> Option<String> {
    let remains = ended.and_then(|()| ending::clear(&mut agent.events, job)).err();
    if let Some(what) = &remains {
        log::error!("{what}");
    }
    remains
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
        Ok(true) => job.started().map_err(End::from),
        Ok(false) => {
            let limit = START_LIMIT.as_secs();
            let why = format!("its program did not run within {limit} s; does its file system answer?");
            Err(End::NotStarted { why, errno: Some(Errno::ETIMEDOUT as i32) })
        }
        Err(_) => Err(End::Stopped),
    }
}

/// Waits for the first of: the program's end, its limit, a lost lease, the end of the machine.
fn watch(agent: &mut Agent, job: &mut Job, worker: &mut Worker) -> End {
    let limit = agent.policy.payload.wall_secs;
    let deadline = Deadline::after(Duration::from_secs(limit.into()));
    loop {
        match job.ended() {
            Ok(Some(exit)) => return End::Exited(exit),
            Ok(None) => {}
            Err(error) => {
                let why = format!("{}: {error}", job.name);
                return End::Unwatched { why, errno: error.raw_os_error() };
            }
        }
        match worker.heard() {
            Ok(None) => {}
            Ok(Some(FromWorker::LeaseLost { why })) => return End::LeaseLost(why),
            Ok(Some(other)) => return unwatched(format!("the worker says {other:?} during a job")),
            Err(_) => return unwatched("the worker is gone, and the lease with it".to_owned()),
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

fn unwatched(why: String) -> End {
    End::Unwatched { why, errno: None }
}

fn not_started(end: End) -> Ended {
    let outcome = Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() };
    Ended { name: None, outcome, result: None, dirty: None }
}
