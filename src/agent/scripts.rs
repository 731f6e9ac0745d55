//! Running the site's scripts under a deadline.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use std::os::fd::AsFd;

use super::Agent;
use super::events::{Events, Stop};
use super::output::Source;
use super::report::ScriptReport;
use super::runner::{Done, Due, Fault, machine_fault, site_fault};
use crate::cgroup::{Cgroup, populated};
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::script::{self, Script};
use crate::sys::process::{Child, Exit};

/// Between SIGTERM and the end of the whole tree.
const GRACE: Duration = Duration::from_secs(2);
/// 400 processes of a fork bomb took 0.2 s on a loaded machine with two processors.
const KILLED: Duration = Duration::from_secs(5);
/// For each script's `stop`.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Whether a script is run.
pub fn due(agent: &Agent, file: &str) -> Due {
    if !agent.report.has_context() {
        Due::Skip("no context CD".to_owned())
    } else if Path::new(COPY).join(file).exists() {
        Due::Run(format!("{file} is on the context CD"))
    } else {
        Due::Skip(format!("no {file} on the context CD"))
    }
}

/// `prolog.sh start`.
pub fn prolog(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    start(agent, &Script::of_context("prolog", agent.policy.scripts.prolog), deadline).map(Done::Next)
}

/// `epilog.sh start`.
pub fn epilog(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    start(agent, &Script::of_context("epilog", agent.policy.scripts.epilog), deadline).map(Done::Next)
}

/// Runs a script's `start`. Its `stop` is due from then on, whatever becomes of this: it may have done half of its work.
fn start(agent: &mut Agent, script: &Script, deadline: Deadline) -> Result<String, Fault> {
    script::examine(Path::new(&script.dir), &script.path)
        .map_err(|fault| site_fault(format!("{}: {fault}", script.name)))?;
    agent.started.push(script.clone());
    run(agent, script, "start", deadline)
}

/// `epilog.sh stop`, then `prolog.sh stop`, for those whose `start` ran.
pub fn stop(agent: &mut Agent) {
    while let Some(script) = agent.started.pop() {
        match run(agent, &script, "stop", Deadline::after(STOP_LIMIT)) {
            Ok(note) => log::info!("{} stop: {note}", script.name),
            Err(Fault::Failed(verdict)) => log::warn!("stop: {}", verdict.text),
            Err(Fault::Stop) => log::warn!("{} stop: not run", script.name),
        }
    }
}

/// Runs one script to its end; the note says how it went. What it started and left running stays, as it is the
/// site's, and is told. Whatever becomes of it, the phase's report has it.
///
/// # Errors
/// [`Fault::Failed`] with a verdict of 500 that names the script; [`Fault::Stop`], after the script was killed.
pub fn run(agent: &mut Agent, script: &Script, action: &str, deadline: Deadline) -> Result<String, Fault> {
    let begun = Instant::now();
    let cgroup = Cgroup::create(&format!("{}-{action}", script.tag)).map_err(machine_fault)?;
    let running = script::start(script, action, &cgroup);
    let running = running.map_err(|error| site_fault(format!("{}: {error}", script.name)))?;
    let source = Source { tag: script.tag.clone(), pid: running.child.pid().as_raw() as u32, job: None, show: true };
    let events = &mut agent.events;
    let output = events.add_output(running.output, source);
    let waited = events.wait_child(&running.child, deadline);
    let (end, exit) = match waited {
        Ok(Some(exit)) => (exit.to_string(), Some(exit)),
        // The end of the machine interrupts a script; it does not interrupt its killing.
        Ok(None) | Err(Stop) => {
            let all = end_tree(events, &cgroup, &running.child, GRACE);
            events.bury(&running.child);
            let what = if all { "was killed with all that it started" } else { "could not be killed" };
            (format!("ran into its deadline and {what}"), None)
        }
    };
    let tail = events.finish_output(output);
    let (used, left_running) = (cgroup.usage(), named(&cgroup.members()));
    let ended = if exit.is_some_and(Exit::success) {
        Ok(left_running_note(&end, left_running.len()))
    } else {
        Err(site_fault(format!("{}: {}", script.name, with_tail(&end, &tail))))
    };
    agent.details.scripts.push(ScriptReport {
        name: script.name.clone(),
        action: action.to_owned(),
        millis: begun.elapsed().as_millis() as u64,
        end,
        exit: exit.and_then(Exit::code),
        cpu_ms: used.cpu_micros / 1000,
        memory_kib: used.memory_peak / 1024,
        left_running,
        tail,
        output_dropped: 0,
    });
    waited?;
    ended
}

/// `name (pid)` of each.
fn named(pids: &[u32]) -> Vec<String> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.iter().map(|pid| format!("{} ({pid})", name(pid).trim_end())).collect()
}

fn left_running_note(end: &str, left: usize) -> String {
    match left {
        0 => end.to_owned(),
        1 => format!("{end}, 1 process left running"),
        _ => format!("{end}, {left} processes left running"),
    }
}

/// The last line of a failed script usually says why.
fn with_tail(what: &str, tail: &[String]) -> String {
    tail.last().map_or_else(|| what.to_owned(), |line| format!("{what}; last line: {line}"))
}

/// SIGTERM to the first process, then SIGKILL to everybody, until nobody is left. False if somebody is.
pub fn end_tree(events: &mut Events, cgroup: &Cgroup, child: &Child, grace: Duration) -> bool {
    if !grace.is_zero() && child.signal(Signal::SIGTERM).is_ok() {
        events.wait_through(&[(child.as_fd(), PollFlags::POLLIN)], Deadline::after(grace));
    }
    if let Err(error) = cgroup.kill() {
        log::error!("{error}");
    }
    let changes = match cgroup.events() {
        Ok(changes) => changes,
        Err(error) => {
            log::error!("{error}");
            return false;
        }
    };
    let deadline = Deadline::after(KILLED);
    while populated(&changes) && events.wait_through(&[(changes.as_fd(), PollFlags::POLLPRI)], deadline) {}
    !populated(&changes)
}
