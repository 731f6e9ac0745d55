//! One job under the agent's eyes: started, watched, ended with everything that it made.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::audit::{self, JobFacts};
use super::console::Console;
use super::output::Source;
use super::protocol::{FromWorker, Token};
use super::worker::Worker;
use super::{Agent, disk, ending, firewall, logger, network};
use crate::ban::owner::Owner;
use crate::clock::Deadline;
use crate::payload::outcome::{End, Outcome, Usage};
use crate::payload::{self, Job};

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
        return not_started(token, End::NotStarted { why: format!("firewall: {error}"), errno: None });
    }
    if let Some(why) = disk::missing(agent) {
        return not_started(token, End::NotStarted { why: why.to_owned(), errno: None });
    }
    let begun = Instant::now();
    // Before anything of it can speak.
    if let Some((uid, job)) = payload::to_be(number) {
        let owner = if token.owner == Owner::Unknown { String::new() } else { token.owner.to_string() };
        logger::name_job(&mut agent.events, uid, job, owner);
    }
    let disk = agent.user_disk.as_ref();
    let (mut job, output) = match Job::begin(&agent.policy.payload, &agent.features, disk, number, token, body) {
        Ok(begun) => begun,
        Err(error) => return not_started(token, error.into()),
    };
    // Before anything of the program runs: a machine that dies in between has said whose it was.
    let name = job.name.clone();
    let keeper = job.keeper().pid().as_raw() as u32;
    let command = agent.policy.payload.command.words();
    audit::job_start(token, &JobFacts { name: &name, uid: job.uid, keeper, pool: &worker.pool, command });
    if let Err(end) = started(agent, &mut job) {
        let ended = ending::end(&mut agent.events, &job, Duration::ZERO);
        let dirty = cleared(agent, ended, job);
        let outcome = nothing_of(end);
        audit::job_end(token, Some(&name), &outcome, dirty.as_deref());
        return Ended { name: Some(name), outcome, result: None, dirty };
    }
    let pid = job.pid().unwrap_or(keeper);
    let source = Source { tag: "payload".to_owned(), pid, job: Some(name.clone()), show: false };
    let output = agent.events.add_output(output, source);

    let mut console = job.take_shell().map(|shell| Console::join(&mut agent.events, shell, &name));
    let end = watch(agent, &mut job, &mut console, token, worker);
    let by_itself = matches!(end, End::Exited(_));
    // What the first process left behind is none of anybody's any more.
    let left_behind = if by_itself { job.payload_processes().len() } else { 0 };
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
    if let Some(console) = console {
        console.leave(&mut agent.events);
    }
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
    let dirty = cleared(agent, ended, job);
    audit::job_end(token, Some(&name), &outcome, dirty.as_deref());
    Ended { name: Some(name), outcome, result, dirty }
}

/// Removes an ended job. What is left of it, if anything.
fn cleared(agent: &mut Agent, ended: Result<(), String>, job: Job) -> Option<String> {
    let what = ended.and_then(|()| ending::clear(&mut agent.events, job)).err()?;
    log::error!("{what}");
    Some(what)
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

/// Waits for the first of: the program's end, its limit, a lost lease, a ban, the end of the machine. A program's shell on the
/// console keeps the job for whoever wants to know why it ended, but not beyond its limit.
fn watch(agent: &mut Agent, job: &mut Job, console: &mut Option<Console>, token: &Token, worker: &mut Worker) -> End {
    let limit = agent.policy.payload.wall_secs;
    let deadline = Deadline::after(Duration::from_secs(limit.into()));
    let mut exited = None;
    loop {
        if exited.is_none() {
            exited = match job.ended() {
                Ok(exit) => exit,
                Err(error) => {
                    let why = format!("the keeper of {}: {error}", job.name);
                    return End::Unwatched { why, errno: error.raw_os_error() };
                }
            };
            if let (Some(exit), Some(_)) = (exited, &console) {
                log::info!("{}: {exit}; it stays until its shell on the console ends, or its time is over", job.name);
            }
        }
        match exited {
            Some(exit) if console.as_ref().is_none_or(|console| console.is_over(&agent.events)) => {
                return End::Exited(exit);
            }
            _ => {}
        }
        match worker.heard() {
            Ok(None) => {}
            Ok(Some(FromWorker::LeaseLost { why })) => return End::LeaseLost(why),
            Ok(Some(other)) => return unwatched(format!("the worker says {other:?} during a job")),
            Err(_) => return unwatched("the worker is gone, and the lease with it".to_owned()),
        }
        if let Some(decision) = worker.bans.stops(&token.owner) {
            return End::Banned(format!("stopped: {decision}"));
        }
        // A job may run for longer than a DHCP lease.
        network::attend_or_warn(agent);
        let mut fds = network::sources(&agent.dhcp);
        fds.push(worker.source());
        fds.extend(exited.is_none().then(|| (job.status(), PollFlags::POLLIN)));
        fds.extend(console.as_ref().and_then(Console::source));
        // Output is read by the way, and its end is nothing that a wait returns for.
        let look = if exited.is_some() { deadline.min(Deadline::after(LOOK)) } else { deadline };
        match agent.events.wait(&fds, look) {
            Ok(false) if deadline.passed() => return exited.map_or(End::TooLong(limit), End::Exited),
            Ok(_) => {}
            // A program that is over has done its work, whoever looks at it still.
            Err(_) => return exited.map_or(End::Stopped, End::Exited),
        }
        if let Some(console) = console {
            console.relay();
        }
    }
}

/// How often it is looked whether a shell has ended.
const LOOK: Duration = Duration::from_millis(200);

fn unwatched(why: String) -> End {
    End::Unwatched { why, errno: None }
}

/// A job of which nothing has begun.
fn not_started(token: &Token, end: End) -> Ended {
    let outcome = nothing_of(end);
    audit::job_end(token, None, &outcome, None);
    Ended { name: None, outcome, result: None, dirty: None }
}

fn nothing_of(end: End) -> Outcome {
    Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() }
}
