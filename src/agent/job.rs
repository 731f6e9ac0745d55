//! One job under the agent's eyes: started, watched, ended with everything that it made.
//!
//! | stage | until | then |
//! |---|---|---|
//! | starting | its program runs, 60 s at most | runs; ends, if a step failed |
//! | runs | it exits, its time is over, or somebody stops it | ends |
//! | ends | nobody of it is left ([`super::ending`]) | clears |
//! | clears | its directory and cgroup are gone | it is over |
//!
//! A stage never waits: other jobs have theirs meanwhile.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::audit::{self, JobFacts};
use super::console::Console;
use super::ending::{Clearing, Ending};
use super::events::{OutputId, is_ready};
use super::output::Source;
use super::platform::deliver;
use super::{Agent, disk, firewall, logger, platform};
use crate::ban::owner::Owner;
use crate::clock::Deadline;
use crate::image::payload::Command;
use crate::payload::outcome::{End, Outcome, Usage};
use crate::payload::{self, Job};
use crate::protocol::Token;
use crate::sys::process::Exit;
use crate::verdict::Verdict;

/// From the fork to the program's first instruction, a millisecond. A repository that is mounted on demand takes seconds;
/// a server that is gone is not waited for longer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether a shell has ended: its output is read by the way, and no wait returns for its end.
const LOOK: Duration = Duration::from_millis(200);

/// A job that is over.
pub struct Ended {
    /// Its name, if it got that far.
    pub name: Option<String>,
    /// How it went.
    pub outcome: Outcome,
    /// What counts as its result; none unless it succeeded.
    pub result: Option<Vec<u8>>,
    /// What a pilot has said about its end.
    pub said: Option<Verdict>,
    /// What of it could not be removed: then this machine is fit for no other job.
    pub dirty: Option<String>,
}

/// A job that is not over.
pub struct Running {
    job: Job,
    /// By the kernel's number, for the log.
    keeper: u32,
    begun: Instant,
    stage: Stage,
    /// What a pilot has said about its end.
    said: Option<Verdict>,
}

enum Stage {
    /// On its way to its program, whose output this is.
    Starting(File, Deadline),
    Runs(Streams, Deadline, Option<Exit>),
    /// Its streams, if its program has run; why it ends; how many processes its first one left behind.
    Ends(Option<Streams>, End, usize, Ending),
    /// How it went, and its result.
    Clears(Clearing, Outcome, Option<Vec<u8>>),
    /// Something of it cannot be removed.
    Dirty(String, Outcome, Option<Vec<u8>>),
    Over,
}

struct Streams {
    output: OutputId,
    console: Option<Console>,
}

impl Running {
    /// Starts a job on a token. `number` counts from 0; `pool` is where the token is from.
    ///
    /// # Errors
    /// A job of which nothing has begun.
    pub fn begin(agent: &mut Agent, number: u32, token: &Token, body: &[u8], pool: &str) -> Result<Self, Box<Ended>> {
        // A claim may have waited for long, with the site's services at work meanwhile.
        if let Err(error) = firewall::keep(agent) {
            return Err(not_started(token, End::NotStarted { why: format!("firewall: {error}"), errno: None }));
        }
        if let Some(why) = disk::missing(agent) {
            return Err(not_started(token, End::NotStarted { why: why.to_owned(), errno: None }));
        }
        let begun = Instant::now();
        // Before anything of it can speak.
        if let Some((uid, job)) = payload::to_be(number) {
            let owner = if token.owner == Owner::Unknown { String::new() } else { token.owner.to_string() };
            logger::name_job(&mut agent.events, uid, job, owner);
        }
        let given = platform::given(agent, number);
        let disk = agent.user_disk.as_ref();
        let begin = Job::begin(&agent.policy.payload, &given, disk, number, token, body);
        let (job, output) = begin.map_err(|error| not_started(token, error.into()))?;
        // Before anything of the program runs: a machine that dies in between has said whose it was.
        let keeper = job.keeper().pid().as_raw() as u32;
        // None where the token names no program, which begin() has refused.
        let value = (!token.pilot).then_some(body);
        let command = payload::choice::of(&agent.policy.payload, value).map_or(&[][..], Command::words);
        audit::job_start(token, &JobFacts { name: &job.name, uid: job.uid, keeper, pool, command });
        let stage = Stage::Starting(output, Deadline::after(START_LIMIT));
        Ok(Self { job, keeper, begun, stage, said: None })
    }

    /// Goes as far as it can. Once it is over: how it went.
    pub fn step(&mut self, agent: &mut Agent, token: &Token) -> Option<Ended> {
        self.start(agent);
        self.watch(agent);
        self.end(agent);
        self.clear(token)
    }

    /// Stops it for this reason. One that ends already has its reason, and a program that has exited has done its work,
    /// whoever looks at it still.
    pub fn stop(&mut self, agent: &Agent, end: End) {
        match (&self.stage, end) {
            (Stage::Starting(..), end) => self.begin_end(end, Duration::ZERO),
            (Stage::Runs(_, _, Some(exit)), End::Stopped) => {
                let end = End::Exited(*exit);
                self.begin_end(end, Duration::ZERO);
            }
            (Stage::Runs(..), end) => self.begin_end(end, grace(agent)),
            _ => {}
        }
    }

    /// Whether its end is decided.
    pub fn is_ending(&self) -> bool {
        !matches!(self.stage, Stage::Starting(..) | Stage::Runs(..))
    }

    /// What ends a wait before [`Running::due`].
    pub fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.stage {
            Stage::Starting(..) => vec![(self.job.start_known(), PollFlags::POLLIN)],
            Stage::Runs(streams, _, exited) => {
                let status = exited.is_none().then(|| (self.job.status(), PollFlags::POLLIN));
                status.into_iter().chain(streams.console.as_ref().and_then(Console::source)).collect()
            }
            Stage::Ends(_, _, _, ending) => ending.source(&self.job).into_iter().collect(),
            Stage::Clears(..) | Stage::Dirty(..) | Stage::Over => Vec::new(),
        }
    }

    /// When the next step is to be taken.
    pub fn due(&self) -> Deadline {
        match &self.stage {
            Stage::Starting(_, until) | Stage::Runs(_, until, None) => *until,
            Stage::Runs(_, until, Some(_)) => (*until).min(Deadline::after(LOOK)),
            Stage::Ends(_, _, _, ending) => ending.due(),
            Stage::Clears(clearing, ..) => clearing.due(),
            Stage::Dirty(..) | Stage::Over => Deadline::after(Duration::ZERO),
        }
    }

    /// Whether the program runs by now.
    fn start(&mut self, agent: &mut Agent) {
        let Stage::Starting(_, until) = &self.stage else { return };
        let late = until.passed();
        if !is_ready(self.job.start_known(), PollFlags::POLLIN) {
            if late {
                let limit = START_LIMIT.as_secs();
                let why = format!("its program did not run within {limit} s; does its file system answer?");
                let end = End::NotStarted { why, errno: Some(Errno::ETIMEDOUT as i32) };
                self.begin_end(end, Duration::ZERO);
            }
            return;
        }
        if let Err(error) = self.job.started() {
            return self.begin_end(error.into(), Duration::ZERO);
        }
        let Stage::Starting(output, _) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        let name = self.job.name.clone();
        let pid = self.job.pid().unwrap_or(self.keeper);
        let source = Source { tag: "payload".to_owned(), pid, job: Some(name.clone()), show: false };
        let output = agent.events.add_output(output, source);
        let console = self.job.take_shell().map(|shell| Console::join(&mut agent.events, shell, &name));
        let wall = Duration::from_secs(agent.policy.payload.wall_secs.into());
        self.stage = Stage::Runs(Streams { output, console }, Deadline::after(wall), None);
    }

    /// Looks for the first of: the program's end, its limit. A program's shell on the console keeps the job for whoever
    /// wants to know why it ended, but not beyond its limit.
    fn watch(&mut self, agent: &mut Agent) {
        let Stage::Runs(streams, until, exited) = &mut self.stage else { return };
        if let Err(error) = self.job.tell_end(agent.platform.job_end()) {
            log::warn!("{}: {error}", self.job.name);
        }
        if let Some(console) = &mut streams.console {
            console.relay();
        }
        if exited.is_none() {
            match self.job.ended() {
                Ok(exit) => *exited = exit,
                Err(error) => {
                    let why = format!("the keeper of {}: {error}", self.job.name);
                    let end = End::Unwatched { why, errno: error.raw_os_error() };
                    return self.begin_end(end, grace(agent));
                }
            }
            if let (Some(exit), Some(_)) = (*exited, &streams.console) {
                let name = &self.job.name;
                log::info!("{name}: {exit}; it stays until its shell on the console ends, or its time is over");
            }
        }
        let late = until.passed();
        let alone = streams.console.as_ref().is_none_or(|console| console.is_over(&agent.events));
        match *exited {
            Some(exit) if alone || late => self.begin_end(End::Exited(exit), Duration::ZERO),
            None if late => self.begin_end(End::TooLong(agent.policy.payload.wall_secs), grace(agent)),
            _ => {}
        }
    }

    fn begin_end(&mut self, end: End, grace: Duration) {
        let streams = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Runs(streams, ..) => Some(streams),
            _ => None,
        };
        // What the first process left behind is none of anybody's any more.
        let left_behind = if matches!(end, End::Exited(_)) { self.job.payload_processes().len() } else { 0 };
        self.stage = Stage::Ends(streams, end, left_behind, Ending::begin(&self.job, grace));
    }

    /// Whether nobody of it is left, and if so what it used and what it made.
    fn end(&mut self, agent: &mut Agent) {
        let Stage::Ends(_, _, _, ending) = &mut self.stage else { return };
        let Some(ended) = ending.step(&self.job) else { return };
        let Stage::Ends(streams, end, left_behind, _) = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        let (outcome, result) = match streams {
            Some(streams) => self.harvest(agent, streams, end, left_behind),
            None => (nothing_of(end), None),
        };
        let clearing = ended.and_then(|()| Clearing::begin(&self.job));
        self.stage = match clearing {
            Ok(clearing) => Stage::Clears(clearing, outcome, result),
            Err(what) => Stage::Dirty(what, outcome, result),
        };
    }

    fn harvest(
        &mut self,
        agent: &mut Agent,
        streams: Streams,
        end: End,
        left_behind: usize,
    ) -> (Outcome, Option<Vec<u8>>) {
        let used = self.job.cgroup.usage();
        let printed = agent.events.finish_output(streams.output);
        let mut outcome = Outcome {
            end: end.after_oom_kills(used.oom_kills.unwrap_or(0)),
            wall_millis: self.begun.elapsed().as_millis() as u64,
            usage: Usage::new(used, self.job.scratch_bytes()),
            left_behind,
            tail: printed.tail,
        };
        if let Some(console) = streams.console {
            console.leave(&mut agent.events);
        }
        // This waits, and nobody waits for it: where there is a user's disk there is one slot.
        if let Err(why) = disk::settle(agent)
            && outcome.success()
        {
            outcome.end = End::DiskLost(why);
        }
        let mut result = None;
        if outcome.success() {
            match self.job.result() {
                Ok(bytes) => result = Some(bytes),
                Err(error) => outcome.end = error.into(),
            }
        }
        deliver::job_ended(&mut agent.platform, &self.job, &printed.kept);
        self.said = deliver::pilot_message(&agent.platform, &self.job);
        (outcome, result)
    }

    /// Whether nothing of it is left.
    fn clear(&mut self, token: &Token) -> Option<Ended> {
        let cleared = match &self.stage {
            Stage::Clears(clearing, ..) => clearing.step(&mut self.job)?,
            Stage::Dirty(what, ..) => Err(what.clone()),
            _ => return None,
        };
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let (Stage::Clears(_, outcome, result) | Stage::Dirty(_, outcome, result)) = stage else { return None };
        let dirty = cleared.err();
        if let Some(what) = &dirty {
            log::error!("{what}");
        }
        let name = Some(self.job.name.clone());
        audit::job_end(token, name.as_deref(), &outcome, dirty.as_deref());
        Some(Ended { name, outcome, result, said: self.said.take(), dirty })
    }
}

/// Seconds for a program to end by itself.
fn grace(agent: &Agent) -> Duration {
    Duration::from_secs(agent.policy.payload.grace_secs.into())
}

/// A job of which nothing has begun.
fn not_started(token: &Token, end: End) -> Box<Ended> {
    let outcome = nothing_of(end);
    audit::job_end(token, None, &outcome, None);
    Box::new(Ended { name: None, outcome, result: None, said: None, dirty: None })
}

/// The outcome of a job whose program has not run.
pub fn nothing_of(end: End) -> Outcome {
    Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() }
}
