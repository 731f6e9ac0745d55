//! The end of a job: everybody is asked, everybody is killed, and then it is made sure that nothing is left.
//!
//! Other jobs run meanwhile, so nothing here waits: each step goes as far as it can, and says what it waits for. An error
//! means that the machine is dirty: the next job could meet this one.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use super::events::DYING;
use super::left::{listed, named};
use super::scripts::KILLED;
use crate::cgroup::populated;
use crate::clock::Deadline;
use crate::payload::{Job, lurkers};

/// How often it is looked whether all have heard: the kernel tells when the last is gone, not when one is left.
const LOOK: Duration = Duration::from_millis(50);
/// A site's monitor that looks at file systems may stand in the job's directory for a moment.
const BUSY: Duration = Duration::from_secs(1);
/// All of [`Clearing`] at most.
pub const CLEARING: Duration = BUSY.saturating_add(LOOK);

/// A job whose processes are on their way out.
pub struct Ending(Stage);

enum Stage {
    /// They have until then to end by themselves.
    Asked(Deadline),
    /// The kernel kills them; the file tells when the last is gone.
    Killed(Deadline, File),
    /// The keeper's status is to be taken; whether all others are gone.
    Dying(Deadline, bool),
}

impl Ending {
    /// Asks every process of a job to end and gives them this time, or kills them at once if that is none.
    ///
    /// Not the first process alone: a shell dies of SIGTERM at once, and its program may have something to save.
    pub fn begin(job: &Job, grace: Duration) -> Self {
        if grace.is_zero() {
            return Self(kill(job));
        }
        job.cgroup.terminate(Some(job.keeper().pid()));
        Self(Stage::Asked(Deadline::after(grace)))
    }

    /// Goes as far as it can. What it came to once it is over: an error names who lives on.
    pub fn step(&mut self, job: &Job) -> Option<Result<(), String>> {
        if let Stage::Asked(until) = self.0
            && (until.passed() || job.payload_processes().is_empty())
        {
            self.0 = kill(job);
        }
        if let Stage::Killed(until, changes) = &self.0 {
            let empty = !populated(changes);
            if empty || until.passed() {
                self.0 = dying(job, empty);
            }
        }
        let Stage::Dying(until, empty) = self.0 else { return None };
        match job.keeper().try_wait() {
            Ok(None) if !until.passed() => None,
            _ if empty => Some(Ok(())),
            _ => Some(Err(format!("{} cannot be killed: {}", job.name, listed(&named(&job.payload_processes()))))),
        }
    }

    /// What ends a wait before [`Ending::due`].
    pub fn source<'a>(&'a self, job: &'a Job) -> Option<(BorrowedFd<'a>, PollFlags)> {
        match &self.0 {
            Stage::Asked(_) => None,
            Stage::Killed(_, changes) => Some((changes.as_fd(), PollFlags::POLLPRI)),
            Stage::Dying(..) => Some((job.keeper().as_fd(), PollFlags::POLLIN)),
        }
    }

    /// When the next step is to be taken.
    pub fn due(&self) -> Deadline {
        match self.0 {
            Stage::Asked(until) => until.min(Deadline::after(LOOK)),
            Stage::Killed(until, _) | Stage::Dying(until, _) => until,
        }
    }
}

fn kill(job: &Job) -> Stage {
    if let Err(error) = job.cgroup.kill() {
        log::error!("{error}");
    }
    match job.cgroup.events() {
        Ok(changes) => Stage::Killed(Deadline::after(KILLED), changes),
        Err(error) => {
            log::error!("{error}");
            dying(job, false)
        }
    }
}

fn dying(job: &Job, empty: bool) -> Stage {
    let _ = job.keeper().signal(Signal::SIGKILL);
    Stage::Dying(Deadline::after(DYING), empty)
}

/// A job without processes, whose directory and cgroup are being removed.
pub struct Clearing(Deadline);

impl Clearing {
    /// Makes sure that no process of the job's user is left anywhere.
    ///
    /// # Errors
    /// Who is left; the text names them.
    pub fn begin(job: &Job) -> Result<Self, String> {
        let lurkers = lurkers::of(job.uid);
        if lurkers.is_empty() {
            return Ok(Self(Deadline::after(BUSY)));
        }
        Err(format!("{} is left outside of its cgroup: {}", job.name, listed(&lurkers)))
    }

    /// Tries once. What it came to once it is over: an error names what is left.
    pub fn step(&self, job: &mut Job) -> Option<Result<(), String>> {
        match job.remove() {
            Ok(()) => Some(Ok(())),
            Err(error) if error.is_busy() && !self.0.passed() => None,
            Err(error) => Some(Err(format!("{} is not gone: {error}", job.name))),
        }
    }

    /// When the next try is due.
    pub fn due(&self) -> Deadline {
        Deadline::after(LOOK)
    }
}
