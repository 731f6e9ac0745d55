//! Running scripts within their limits.
//!
//! Each has a cgroup of its own for its memory, its processes, and its end. What it leaves running stays there, and is
//! ended with the machine ([`super::left`]).

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use super::events::{DYING, Events, OutputId, Stop};
use super::left::{self, Left};
use super::output::Source;
use super::report::{self, ScriptReport};
use super::roles;
use super::runner::{Done, Due, Fault, machine_fault, site_fault};
use super::{Agent, audit};
use crate::cgroup::{Cgroup, Limits, Usage, populated};
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::script::{self, Running, Script, StartError, Unfit};
use crate::sys::process::{Child, Exit};

/// Between SIGTERM and the end of the whole tree.
const GRACE: Duration = Duration::from_secs(2);
/// 400 processes of a fork bomb took 0.2 s on a loaded machine with two processors.
pub const KILLED: Duration = Duration::from_secs(5);
/// For each script's `stop`, and for those of all hooks together.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// All of [`stop`] at most: hooks, `epilog.sh` and `prolog.sh`, each killed in the end, and what they left running.
pub const STOPPING: Duration = STOP_LIMIT
    .saturating_add(GRACE)
    .saturating_add(KILLED)
    .saturating_add(DYING)
    .saturating_mul(3)
    .saturating_add(left::ENDING);
/// Processes and threads of a script. A batch client with its monitoring and an autofs keeps some dozens, a Java service
/// a hundred; a fork bomb of so many fits into the memory limit and dies within a second.
const PIDS: u32 = 512;
const MIB: u64 = 1024 * 1024;
/// Memory that no script gets: ctxinit's own processes and the log's queue take 16 MiB, the kernel wants some air.
const RESERVE: u64 = 64 * MIB;

/// What became of scripts so far.
#[derive(Debug, Default)]
pub struct Scripts {
    /// Those whose `start` ran, so that their `stop` is due.
    started: Vec<Script>,
    /// The same for hooks.
    pub hooks: Vec<Script>,
    /// What they left running.
    pub left: Vec<Left>,
    /// For names of cgroups.
    runs: u32,
}

/// Whether a script is run.
pub fn due(agent: &Agent, file: &str) -> Due {
    let path = Path::new(COPY).join(file);
    if !agent.report.has_context() {
        Due::Skip("no context CD".to_owned())
    } else if is_empty(&path) {
        Due::Skip(format!("{file} on the context CD is empty"))
    // A link to nothing is there, and is a fault.
    } else if path.symlink_metadata().is_ok() {
        Due::Run(format!("{file} is on the context CD"))
    } else {
        Due::Skip(format!("no {file} on the context CD"))
    }
}

/// Whether a script has no byte: nothing of it would run.
pub fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0)
}

/// `prolog.sh start`.
pub fn prolog(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let script = Script::of_context("prolog", agent.policy.scripts.prolog);
    start(agent, &script, deadline, |scripts| &mut scripts.started).map(Done::Next)
}

/// `epilog.sh start`.
pub fn epilog(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let script = Script::of_context("epilog", agent.policy.scripts.epilog);
    start(agent, &script, deadline, |scripts| &mut scripts.started).map(Done::Next)
}

/// Runs a script's `start`. Its `stop` is due from then on, whatever becomes of this: it may have done half of its work.
pub fn start(
    agent: &mut Agent,
    script: &Script,
    deadline: Deadline,
    started: fn(&mut Scripts) -> &mut Vec<Script>,
) -> Result<String, Fault> {
    let run = Run::launch(agent, script, "start", deadline)?;
    started(&mut agent.scripts).push(script.clone());
    run.finish(agent, deadline)
}

/// `stop` of the hooks, of `epilog.sh` and of `prolog.sh`, for those whose `start` ran; then the end of what all of
/// them left running.
pub fn stop(agent: &mut Agent) {
    let all_hooks = Deadline::after(STOP_LIMIT);
    while let Some(script) = agent.scripts.hooks.pop() {
        if all_hooks.passed() {
            log::warn!("{} stop: not run, as the others took the time for it", script.name);
        } else {
            let share = share(all_hooks.left(), agent.scripts.hooks.len());
            stop_one(agent, &script, Deadline::after(share));
        }
    }
    while let Some(script) = agent.scripts.started.pop() {
        stop_one(agent, &script, Deadline::after(STOP_LIMIT));
    }
    left::end(agent);
}

/// Of the time that is left, with so many hooks to come: one that hangs does not take theirs. Killing it does.
fn share(left: Duration, to_come: usize) -> Duration {
    left / u32::try_from(to_come).unwrap_or(u32::MAX).saturating_add(1)
}

fn stop_one(agent: &mut Agent, script: &Script, deadline: Deadline) {
    match run(agent, script, "stop", deadline) {
        Ok(note) => log::info!("{} stop: {note}", script.name),
        Err(Fault::Failed(verdict)) => log::warn!("stop: {}", verdict.text),
        Err(Fault::Stop) => log::warn!("{} stop: interrupted", script.name),
    }
}

/// Runs one script to its end; the note says how it went. What it started and left running stays, as it is the
/// site's, and is told. Whatever becomes of it, the phase's report has it.
///
/// # Errors
/// [`Fault::Failed`] with a verdict of 500 that names the script; [`Fault::Stop`], after the script was killed.
pub fn run(agent: &mut Agent, script: &Script, action: &str, deadline: Deadline) -> Result<String, Fault> {
    Run::launch(agent, script, action, deadline)?.finish(agent, deadline)
}

/// One script that runs.
struct Run {
    script: Script,
    action: String,
    begun: Instant,
    start_ms: u64,
    cgroup: Cgroup,
    limits: Limits,
    child: Child,
    output: OutputId,
}

/// Why a script runs no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Exited(Exit),
    /// And whether everything of it is dead.
    Deadline(bool),
    Stopped(bool),
}

impl Run {
    fn launch(agent: &mut Agent, script: &Script, action: &str, deadline: Deadline) -> Result<Self, Fault> {
        agent.scripts.runs += 1;
        let (begun, start_ms) = (Instant::now(), report::now_ms());
        let limits =
            Limits { memory: memory_limit(script.limits.memory_mb, available()), pids: PIDS, cpu_percent: None };
        let not_started = |agent: &mut Agent, why: String| {
            agent.details.scripts.push(ScriptReport {
                name: script.name.clone(),
                action: action.to_owned(),
                start_ms,
                end: format!("not started: {why}"),
                ..ScriptReport::default()
            });
        };
        // The script, or what its first line names, may lie on a file system that is gone.
        let ready = match roles::ask(&mut agent.events, deadline, || script::ready(script, action))? {
            Some(Ok(ready)) => ready,
            Some(Err(Unfit { file, why })) => {
                let named = format!("{file}: {why}");
                not_started(agent, if file == script.name { why } else { named.clone() });
                return Err(site_fault(named));
            }
            None => {
                let why = "it could not be looked at in time";
                not_started(agent, why.to_owned());
                return Err(site_fault(format!("{}: {why}", script.name)));
            }
        };
        let started = Cgroup::create(&format!("script-{}", agent.scripts.runs)).map_err(StartError::Cgroup);
        let started = started.and_then(|cgroup| {
            cgroup.limit(limits)?;
            let Running { child, output } = script::start(script, &ready, &agent.variables, &cgroup)?;
            // A child that hangs on its way counts as a script that does, and is killed as one.
            let on_its_way = [(child.as_fd(), PollFlags::POLLIN)];
            let known = agent.events.wait(&on_its_way, deadline) == Ok(true);
            Ok((if known { child.result()? } else { child.child }, output, cgroup))
        });
        let (child, output, cgroup) = match started {
            Ok(started) => started,
            Err(error) => {
                not_started(agent, error.to_string());
                let why = format!("{}: {error}", script.name);
                return Err(if matches!(error, StartError::Cgroup(_)) { machine_fault(why) } else { site_fault(why) });
            }
        };
        let source = Source { tag: script.tag.clone(), pid: child.pid().as_raw() as u32, job: None, show: true };
        let output = agent.events.add_bounded_output(output, source, u64::from(script.limits.output_kb) * 1024);
        audit::script_start(&script.name, action, child.pid().as_raw());
        let (script, action) = (script.clone(), action.to_owned());
        Ok(Self { script, action, begun, start_ms, cgroup, limits, child, output })
    }

    fn finish(self, agent: &mut Agent, deadline: Deadline) -> Result<String, Fault> {
        let end = self.wait(&mut agent.events, deadline);
        let printed = agent.events.finish_output(self.output);
        let used = self.cgroup.usage();
        let exit = if let End::Exited(exit) = end { Some(exit) } else { None };
        let Self { script, action, begun, start_ms, cgroup, limits, .. } = self;
        let report = ScriptReport {
            name: script.name.clone(),
            action: action.clone(),
            start_ms,
            millis: begun.elapsed().as_millis() as u64,
            end: in_words(end, limits, used),
            exit: exit.and_then(Exit::code),
            cpu_ms: used.cpu_micros.unwrap_or(0) / 1000,
            memory_kib: used.memory_peak.unwrap_or(0) / 1024,
            left_running: left::named(&cgroup.members()),
            tail: printed.tail,
            output_dropped: printed.dropped,
        };
        audit::script_end(&script.name, &action, &report.end, report.millis);
        let ended = match end {
            End::Stopped(_) => Err(Fault::Stop),
            End::Exited(exit) if exit.success() => Ok(report.end.clone() + &note(&report)),
            // The last line of a failed script usually says why.
            _ => {
                let last = report.tail.last().map(|line| format!("; last line: {line}")).unwrap_or_default();
                Err(site_fault(format!("{}: {}{}{last}", script.name, report.end, note(&report))))
            }
        };
        // Not by their names: one that forks just now has none to tell, but lives on.
        if left::is_populated(&cgroup) {
            agent.scripts.left.push(Left::new(format!("{} {action}", script.name), cgroup, used));
        }
        agent.details.scripts.push(report);
        ended
    }

    fn wait(&self, events: &mut Events, deadline: Deadline) -> End {
        let waited = events.wait_child(&self.child, deadline);
        if let Ok(Some(exit)) = waited {
            return End::Exited(exit);
        }
        // The end of the machine interrupts a script; it does not interrupt its killing.
        let all = end_tree(events, &self.cgroup, &self.child, GRACE);
        events.bury(&self.child);
        if waited == Err(Stop) { End::Stopped(all) } else { End::Deadline(all) }
    }
}

fn in_words(end: End, limits: Limits, used: Usage) -> String {
    let oom_kills = used.oom_kills.unwrap_or(0);
    let end = match end {
        End::Exited(exit) if oom_kills > 0 && !exit.success() => {
            // The kernel's own counter, by its name: it counts the first victim of a group twice.
            format!("ran out of its {} MiB of memory and was killed (oom_kill {oom_kills})", limits.memory / MIB)
        }
        End::Exited(exit) => exit.to_string(),
        End::Deadline(true) => "ran into its deadline and was killed with all that it started".to_owned(),
        End::Deadline(false) => "ran into its deadline and could not be killed".to_owned(),
        End::Stopped(true) => "stopped with all that it started, as the machine ends".to_owned(),
        End::Stopped(false) => "could not be stopped, as the machine ends".to_owned(),
    };
    match used.pids_refused.unwrap_or(0) {
        0 => end,
        _ => format!("{end}, after it wanted more than its {} processes", limits.pids),
    }
}

/// What else there is to say of a run.
fn note(report: &ScriptReport) -> String {
    let mut note = String::new();
    if report.output_dropped > 0 {
        note += &format!(", {} of output dropped", crate::text::count(report.output_dropped, "byte"));
    }
    let left = &report.left_running;
    if !left.is_empty() {
        note += &format!(", {} left running: {}", crate::text::count(left.len() as u64, "process"), left::listed(left));
    }
    note
}

/// Bytes that a script may have: what the policy says, but on a small machine never so much that the rest of it starves.
pub fn memory_limit(wanted_mib: u32, available: Option<u64>) -> u64 {
    let wanted = u64::from(wanted_mib);
    let left = available.map(|bytes| (bytes.saturating_sub(RESERVE).max(bytes / 2) / MIB).max(1));
    left.map_or(wanted, |left| wanted.min(left)) * MIB
}

/// Bytes that new programs can have now, as the kernel estimates it.
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// SIGTERM to the first process, then SIGKILL to everybody, until nobody is left. False if somebody is.
pub fn end_tree(events: &mut Events, cgroup: &Cgroup, child: &Child, grace: Duration) -> bool {
    if !grace.is_zero() && child.signal(Signal::SIGTERM).is_ok() {
        events.wait_through(&[(child.as_fd(), PollFlags::POLLIN)], Deadline::after(grace));
    }
    if let Err(error) = cgroup.kill() {
        log::error!("{error}");
    }
    wait_empty(events, cgroup, Deadline::after(KILLED))
}

/// Waits until nobody is left in a cgroup; false if somebody is.
pub fn wait_empty(events: &mut Events, cgroup: &Cgroup, deadline: Deadline) -> bool {
    let changes = match cgroup.events() {
        Ok(changes) => changes,
        Err(error) => {
            log::error!("{error}");
            return false;
        }
    };
    while populated(&changes) && events.wait_through(&[(changes.as_fd(), PollFlags::POLLPRI)], deadline) {}
    !populated(&changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory: 64 * MIB, pids: 512, cpu_percent: None };

    #[test]
    fn ends_name_the_limit_that_was_met() {
        let killed = End::Exited(Exit::Signal(9));
        let oom = Usage { oom_kills: Some(3), ..Usage::default() };
        let bomb = Usage { pids_refused: Some(7), ..Usage::default() };
        let cases = [
            (End::Exited(Exit::Code(3)), Usage::default(), "exit 3"),
            (killed, Usage::default(), "killed by SIGKILL"),
            (killed, oom, "ran out of its 64 MiB of memory and was killed (oom_kill 3)"),
            // A process of its own cgroup inside: the script has lived to see it.
            (End::Exited(Exit::Code(0)), oom, "exit 0"),
            (End::Exited(Exit::Code(2)), bomb, "exit 2, after it wanted more than its 512 processes"),
            (End::Deadline(true), Usage::default(), "ran into its deadline and was killed with all that it started"),
            (End::Deadline(false), Usage::default(), "ran into its deadline and could not be killed"),
            (End::Stopped(true), oom, "stopped with all that it started, as the machine ends"),
        ];
        for (end, used, expected) in cases {
            assert_eq!(in_words(end, LIMITS, used), expected);
        }
    }

    #[test]
    fn notes_count_and_list() {
        let mut report = ScriptReport::default();
        assert_eq!(note(&report), "");
        report.output_dropped = 1;
        report.left_running = vec!["crond (7)".to_owned(), "sh (8)".to_owned()];
        assert_eq!(note(&report), ", 1 byte of output dropped, 2 processes left running: crond (7), sh (8)");
    }

    #[test]
    fn a_hook_that_hangs_leaves_time_for_the_others() {
        let secs = Duration::from_secs;
        assert_eq!(share(secs(30), 0), secs(30));
        // Each hangs, and takes its grace, too.
        let mut left = STOP_LIMIT;
        for to_come in (0..5).rev() {
            assert!(share(left, to_come) >= secs(1), "{to_come}: {left:?}");
            left = left.saturating_sub(share(left, to_come) + GRACE);
        }
    }

    #[test]
    fn a_small_machine_gives_less() {
        assert_eq!(memory_limit(512, Some(4096 * MIB)), 512 * MIB);
        assert_eq!(memory_limit(512, Some(450 * MIB + 5)), 386 * MIB);
        assert_eq!(memory_limit(512, Some(100 * MIB)), 50 * MIB);
        assert_eq!(memory_limit(16, Some(100 * MIB)), 16 * MIB);
        assert_eq!(memory_limit(512, Some(0)), MIB);
        assert_eq!(memory_limit(512, None), 512 * MIB);
    }
}
