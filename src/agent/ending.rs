//! The end of a job: everybody is asked, everybody is killed, and then it is made sure that nothing is left.
//!
//! An error here means that the machine is dirty: the next job could meet this one.

use std::time::{Duration, Instant};

use super::events::Events;
use super::left::{listed, named};
use super::scripts::{KILLED, wait_empty};
use crate::clock::Deadline;
use crate::payload::{Job, lurkers};

/// How often it is looked whether all have heard: the kernel tells when the last is gone, not when one is left.
const LOOK: Duration = Duration::from_millis(50);
/// A site's monitor that looks at file systems may stand in the job's directory for a moment.
const BUSY: Duration = Duration::from_secs(1);
/// All of [`clear`] at most.
pub const CLEARING: Duration = BUSY.saturating_add(LOOK);

/// Asks every process of a job to end, gives them this time, and kills who is left.
///
/// # Errors
/// Somebody lives on; the text names them.
pub fn end(events: &mut Events, job: &Job, grace: Duration) -> Result<(), String> {
    if !grace.is_zero() {
        ask(events, job, grace);
    }
    if let Err(error) = job.cgroup.kill() {
        log::error!("{error}");
    }
    let empty = wait_empty(events, &job.cgroup, Deadline::after(KILLED));
    events.bury(job.keeper());
    if empty {
        return Ok(());
    }
    Err(format!("{} cannot be killed: {}", job.name, listed(&named(&job.payload_processes()))))
}

/// Not the first process alone: a shell dies of SIGTERM at once, and its program may have something to save.
fn ask(events: &mut Events, job: &Job, grace: Duration) {
    job.cgroup.terminate(Some(job.keeper().pid()));
    let deadline = Instant::now() + grace;
    while !job.payload_processes().is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        events.wait_through(&[], Deadline::after(left.min(LOOK)));
    }
}

/// Makes sure that no process of the job's user is left anywhere, and removes its directory and its cgroup.
///
/// # Errors
/// What is left; the text names it.
pub fn clear(events: &mut Events, mut job: Job) -> Result<(), String> {
    let lurkers = lurkers::of(job.uid);
    if !lurkers.is_empty() {
        return Err(format!("{} is left outside of its cgroup: {}", job.name, listed(&lurkers)));
    }
    let deadline = Deadline::after(BUSY);
    while let Err(error) = job.remove() {
        if !error.is_busy() || deadline.passed() {
            return Err(format!("{} is not gone: {error}", job.name));
        }
        events.wait_through(&[], Deadline::after(LOOK));
    }
    Ok(())
}
