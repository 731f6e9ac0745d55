//! A job is started again and again, each time without the step that this computer refused, until all that is missing is
//! its program. Then what stands is known, and the true one is started.

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::Signal;

use super::CheckError;
use super::screen::Screen;
use super::stage::Stage;
use super::walls::{Table, failed};
use crate::ban::owner::Owner;
use crate::clock::Deadline;
use crate::ids;
use crate::image::payload::{Command, Payload};
use crate::mjf::given::Features;
use crate::mjf::keys::Value;
use crate::payload::error::JobError;
use crate::payload::given::{self, Given};
use crate::payload::outcome::End;
use crate::payload::view::Shared;
use crate::payload::{Job, mutation};
use crate::protocol::Token;
use crate::starting::SpawnError;

/// As on a machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// ctxtool itself needs some before the program runs.
const LEAST_DATA_MB: u32 = 64;
/// Somebody may look at the job's directory for a moment.
const BUSY: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);
const MIB: rlim_t = 1024 * 1024;

/// A file of the job's own that is no program: a job whose program it is takes every step and then ends.
const NO_PROGRAM: &str = "/run/ctxinit/etc/passwd";

/// A job under way, and all that has to outlive it.
pub struct Running {
    /// The job; or why its program could not be run, which is no fault of the isolation.
    pub job: Result<(Job, File), End>,
    /// Whether its memory is limited as a whole.
    pub counts_memory: bool,
    /// Whether a cgroup knows its processes.
    pub knows_members: bool,
    _shared: Shared,
    _stage: Stage,
}

/// Finds out what stands here, tells it, and starts the job.
///
/// # Errors
/// A failure that is not that of a step that can be left out, or a wall that is missing and must not.
pub fn start(
    mut stage: Stage,
    policy: &Payload,
    token: &[u8],
    screen: &Screen,
    strict: bool,
) -> Result<Running, CheckError> {
    mutation::leave_out(names(&stage));
    let shared = Shared::make(policy)?;
    let mut number = first_number(stage.root);
    while let Some(step) = rehearse(policy, number)? {
        if names(&stage).contains(&step.0) {
            // A second time it would be so for ever.
            return Err(CheckError::Unisolated(format!("{}: {}", step.0, step.1)));
        }
        stage.left_out.push(step);
        mutation::leave_out(names(&stage));
        number += 1;
    }
    let table = Table { stage: &stage, policy };
    screen.walls(&table.text());
    if strict && !table.is_whole() {
        return Err(CheckError::Strict);
    }
    stand_in(&stage, policy)?;
    let job = match begin(policy, number + 1, token) {
        Ok(job) => Ok(job),
        Err(error) if is_the_programs(&error) => Err(error.into()),
        Err(error) => return Err(CheckError::Unisolated(error.to_string())),
    };
    let counts_memory = !names(&stage).contains(&"memory.max");
    let knows_members = !names(&stage).contains(&"cgroup");
    Ok(Running { job, counts_memory, knows_members, _shared: shared, _stage: stage })
}

/// The number of the first job here. As root each has a user, whom a check at the same time must not have, too.
fn first_number(root: bool) -> u32 {
    /// More than there are steps, so more than one check needs.
    const APART: u32 = 61;
    let users = ids::PAYLOAD.end - ids::PAYLOAD.start - APART;
    if root { std::process::id().wrapping_mul(APART) % users } else { 0 }
}

fn names(stage: &Stage) -> Vec<&'static str> {
    stage.left_out.iter().map(|(step, _)| *step).collect()
}

/// A job with every step and no program; the step that failed and can be left out, if there is one.
fn rehearse(policy: &Payload, number: u32) -> Result<Option<(&'static str, String)>, CheckError> {
    let unisolated = |why: String| CheckError::Unisolated(why);
    let command = Command::try_from(vec![NO_PROGRAM.to_owned()]).map_err(unisolated)?;
    let policy = Payload { command, commands: None, ..policy.clone() };
    match begin(&policy, number, b"") {
        Ok((job, _)) => {
            end(job);
            Err(unisolated(format!("{NO_PROGRAM} runs, and it is no program")))
        }
        Err(JobError::Spawn(SpawnError::Stage(stage))) if stage.stage.starts_with("exec ") => Ok(None),
        Err(error) => failed(&error).map(Some).ok_or_else(|| unisolated(error.to_string())),
    }
}

/// Starts a job; of one that does not run nothing is left.
fn begin(policy: &Payload, number: u32, body: &[u8]) -> Result<(Job, File), JobError> {
    let token = Token { id: "1".to_owned(), leases: Some(1), media_type: None, owner: Owner::Unknown, pilot: false };
    // As on a machine that runs a job on each of its processors and has heard nothing of its site.
    let facts = given::facts(policy, given::processors(), format!("check:job-{}", number + 1), None);
    let given = Given { features: Features::of(&facts, |_| Value::Absent), ..Given::default() };
    let (mut job, output) = Job::begin(policy, &given, None, number, &token, body)?;
    let mut fds = [PollFd::new(job.start_known(), PollFlags::POLLIN)];
    let known = poll(&mut fds, Deadline::after(START_LIMIT).poll_timeout());
    let started = match known {
        Ok(0) | Err(_) => Err(SpawnError::Fork(io::ErrorKind::TimedOut.into()).into()),
        Ok(_) => job.started(),
    };
    match started {
        Ok(()) => Ok((job, output)),
        Err(error) => {
            end(job);
            Err(error)
        }
    }
}

/// Kills whatever is left of a job and removes it; the last process of a pid namespace takes all with it.
pub fn end(mut job: Job) {
    let _ = job.cgroup.kill();
    let _ = job.keeper().signal(Signal::SIGKILL);
    let _ = job.keeper().wait();
    let deadline = Deadline::after(BUSY);
    while job.remove().is_err_and(|error| error.is_busy()) && !deadline.passed() {
        std::thread::sleep(LOOK);
    }
}

/// The exec itself: the isolation stood by then.
fn is_the_programs(error: &JobError) -> bool {
    let JobError::Spawn(SpawnError::Stage(stage)) = error else { return false };
    ["exec ", "open ", "chdir"].iter().any(|step| stage.stage.starts_with(step))
}

/// What limits a user's processes where no cgroup does: each process's data, and how many there are.
fn stand_in(stage: &Stage, policy: &Payload) -> Result<(), CheckError> {
    let left_out = names(stage);
    let limit = |step: &str, resource, most: rlim_t| match left_out.contains(&step) {
        true => setrlimit(resource, most, most).map_err(|errno| CheckError::Stage {
            step: format!("a limit in the place of {step}"),
            error: errno.into(),
        }),
        false => Ok(()),
    };
    limit("memory.max", Resource::RLIMIT_DATA, rlim_t::from(policy.memory_mb.max(LEAST_DATA_MB)) * MIB)?;
    // In a user namespace this program and the keeper are its users, too.
    limit("pids.max", Resource::RLIMIT_NPROC, rlim_t::from(policy.pids) + 2)
}
