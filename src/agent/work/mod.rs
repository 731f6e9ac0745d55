//! The work phase: each slot's worker claims, the agent decides and runs, the worker settles.
//!
//! All slots are steps of one loop: each goes as far as it can without waiting ([`slot`]), then the rules say whether more is
//! claimed ([`limits`]), and then one wait is for all of them. So nothing of one slot holds up another: not a job's grace,
//! nor a program that does not start, nor a server that does not answer.

mod common;
mod count;
mod limits;
mod slot;
mod tally;
mod told;

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use super::bans::Bans;
use super::events::DYING;
use super::logger::Log;
use super::runner::{Done, Fault, machine_fault, site_fault};
use super::scripts::{self, KILLED};
use super::worker::{self, Worker};
use super::{Agent, disk, ending, firewall, logger, medium, network, platform, report};
use crate::clock::Deadline;
use crate::context::medium::COPY;
use crate::disk::policy::Need;
use crate::ids;
use crate::image::payload::MAX_GRACE_SECS;
use crate::mounts;
use crate::payload::landlock::{self, Status};
use crate::payload::sysctl;
use crate::payload::view::Shared;
use crate::verdict::Verdict;
use crate::work::Credentials;

use common::{Common, Why};
use count::Room;
use limits::{Reason, Rules, Seen, Word};
use slot::{FAREWELL, Slot};
use tally::Tally;

/// A worker settles a token while its lock lives; this is for the last call.
const SETTLE_MARGIN: Duration = Duration::from_secs(60);
/// From a wish to end to the end of the phase at most: payloads have their grace and are killed, tokens are settled,
/// workers leave; all slots at once.
pub const STOPPING: Duration = Duration::from_secs(MAX_GRACE_SECS as u64)
    .saturating_add(KILLED)
    .saturating_add(ending::CLEARING)
    .saturating_add(DYING)
    .saturating_add(disk::SETTLING)
    .saturating_add(FAREWELL)
    .saturating_add(worker::LEAVE)
    .saturating_add(DYING);
/// A site makes this file, by a daemon of its scripts or over its own way into the machine, and no new work begins.
const DRAIN: &str = "/run/ctxinit/drain";
/// How often it is looked for what no descriptor tells of.
const LOOK: Duration = Duration::from_secs(10);
/// Descriptors of the agent: those of one slot with its worker and its job, and all others.
const DESCRIPTORS: (u64, u64) = (16, 256);

/// Claims, runs and completes until there is a reason to end.
pub fn run(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let source = agent.site.work.clone().or_else(|| agent.policy.work.clone());
    // A password or a key may well be a secret of the CD.
    let credentials = source.as_ref().map(|source| Credentials::read(Path::new(COPY), source)).transpose();
    platform::take_pilot(agent, source.as_ref()).map_err(site_fault)?;
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
    platform::ready(agent)?;
    let count = slots(agent);
    agent.platform.jobs_at_once(count);
    let mut common = Common::new(rules(agent), settle, bans, count as usize);
    let mut slots = Vec::new();
    for number in 0..count {
        let worker = Worker::start(agent, source.clone(), credentials.clone(), number).map_err(site_fault)?;
        slots.push(Slot::new(number as usize, worker));
    }
    serve(agent, &mut slots, &mut common);
    dismiss(agent, slots);
    let limit = common.rules.max_tasks;
    common.end(|reason, tally| words(reason, tally, limit)).map(Done::End)
}

/// How many tokens are worked on at once.
fn slots(agent: &Agent) -> u32 {
    let room = Room {
        cpus: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory: scripts::available(),
    };
    let payload = &agent.policy.payload;
    let disk = agent.user_disk.is_some() || agent.policy.user_disk.need == Need::Require;
    let alone = match () {
        () if disk => Some("jobs have the user's disk, one after the other"),
        () if agent.platform.has_pilot() => Some("a pilot has the machine"),
        () if payload.console_shell => Some("a job has the console"),
        () => None,
    };
    let (count, why) = count::slots(agent.site.limits.slots, alone, payload, room);
    if let Some(why) = why {
        log::warn!("{why}");
    } else if count > 1 {
        log::info!("{count} slots");
    }
    let (each, others) = DESCRIPTORS;
    let wanted = u64::from(count) * each + others;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft >= wanted { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)) }
    });
    if let Err(errno) = raised {
        log::warn!("{wanted} descriptors for {count} slots: {errno}");
    }
    count
}

fn rules(agent: &Agent) -> Rules {
    let limits = agent.site.limits;
    let secs = |secs: u32| Duration::from_secs(secs.into());
    Rules {
        idle: secs(limits.idle_secs),
        fault: secs(limits.fault_secs),
        // No user is given twice, so they are a limit as well.
        max_tasks: limits.max_tasks.unwrap_or(u32::MAX).min(ids::PAYLOAD.len() as u32),
        min_task: secs(limits.min_task_secs),
        grace: secs(agent.policy.payload.grace_secs),
    }
}

/// By when this machine is to be gone.
///
/// `max_secs` is on the kernel's clock, which began with the machine: what the machine's own clock shows may be anything at
/// first. What the site's features say is on that one.
fn deadline(agent: &Agent) -> Option<Deadline> {
    let up = Duration::from_millis(report::now_ms());
    let own = agent.site.limits.max_secs.map(|secs| Duration::from_secs(secs.into()).saturating_sub(up));
    let features = agent.platform.left().map(|(left, _)| left);
    own.into_iter().chain(features).min().map(Deadline::after)
}

/// Whether the site wants no new work to begin.
fn is_drained() -> bool {
    Path::new(DRAIN).exists()
}

/// The loop of all slots.
fn serve(agent: &mut Agent, slots: &mut [Slot], common: &mut Common) {
    loop {
        // A job may run for longer than a DHCP lease.
        network::attend_or_warn(agent);
        platform::attend(agent);
        for slot in slots.iter_mut() {
            if let Err(fault) = slot.step(agent, common) {
                lost(agent, slot, common, fault);
            }
        }
        if common.bans.take_news() {
            slots.iter_mut().for_each(|slot| slot.judge(agent, common));
        }
        let until = deadline(agent);
        let claims = rule(slots, common, until);
        if common.is_stopping() {
            slots.iter_mut().for_each(|slot| slot.stop(agent));
        }
        let open = claims > 0 && claim(agent, slots, common, claims);
        if common.is_over() && slots.iter().all(Slot::is_free) {
            return;
        }
        wait(agent, slots, common, until, open);
    }
}

/// A worker that died or broke its word strands its token; the others' are given back in order.
fn lost(agent: &Agent, slot: &mut Slot, common: &mut Common, fault: Fault) {
    slot.lose(agent);
    common.stop(Why::Said(Err(fault)));
}

/// What the rules say now: how many slots may ask.
fn rule(slots: &[Slot], common: &mut Common, until: Option<Deadline>) -> u32 {
    let busy = slots.iter().any(Slot::is_busy);
    common.at_work(busy);
    let seen = Seen {
        tasks: common.tally.jobs,
        asking: slots.iter().filter(|slot| slot.is_asking()).count() as u32,
        busy,
        quiet: common.quiet(),
        trouble: common.trouble(),
        left: until.map(Deadline::left),
        drain: is_drained(),
    };
    match common.rules.judge(&seen) {
        Word::Claim(count) => {
            common.hold(None);
            if common.is_over() { 0 } else { count }
        }
        Word::Finish(reason) => {
            common.hold(Some(reason));
            0
        }
        Word::Stop(reason) => {
            common.stop(Why::Rule(reason));
            0
        }
    }
}

/// Lets slots ask whose pause is over. Whether those that rest are to be woken for it.
fn claim(agent: &mut Agent, slots: &mut [Slot], common: &mut Common, count: u32) -> bool {
    let mut due = slots.iter_mut().filter(|slot| slot.would_ask()).take(count as usize).peekable();
    if due.peek().is_none() {
        return true;
    }
    // Nothing is claimed that could not be decided about, or whose job would leave no trace.
    if let Some((why, end)) = shut(agent, common) {
        common.met_fault(end);
        if common.may_claim(Some(&why)) {
            log::warn!("no job starts: {why}");
            logger::save_report(agent);
        }
        return false;
    }
    common.may_claim(None);
    if let Err(error) = firewall::keep(agent) {
        common.finish(Why::Said(Err(machine_fault(format!("firewall: {error}; no job starts here")))));
        return false;
    }
    for slot in due {
        if let Err(fault) = slot.ask() {
            lost(agent, slot, common, fault);
        }
    }
    true
}

/// What keeps all slots from claiming, and the machine's end if it lasts.
fn shut(agent: &Agent, common: &Common) -> Option<(String, Result<Verdict, Fault>)> {
    let secs = common.rules.fault.as_secs();
    if let Err(why) = common.bans.ready() {
        let end = Verdict::refused(format!("nobody's work runs: {why}"));
        return Some((why, Ok(end)));
    }
    let why = logger::ready(agent).err()?;
    Some((why.to_owned(), Err(site_fault(format!("no job started for {secs} s: {why}")))))
}

/// Until the first of what any slot waits for. `open` is whether those that rest are to be woken.
fn wait(agent: &mut Agent, slots: &[Slot], common: &mut Common, until: Option<Deadline>, open: bool) {
    let mut wake = Deadline::after(LOOK);
    let mut fds = network::sources(&agent.dhcp);
    fds.extend(agent.platform.sources());
    for slot in slots {
        fds.extend(slot.sources());
        let rests = slot.rests_until().filter(|_| open);
        for due in slot.due().into_iter().chain(rests) {
            wake = wake.min(due);
        }
    }
    // What a rule waits for.
    let rules = &common.rules;
    let stop = until.filter(|_| !common.is_stopping()).map(|until| until.left().saturating_sub(rules.stopping()));
    let patience = common.patience().filter(|_| !common.is_over());
    for span in stop.into_iter().chain(patience) {
        wake = wake.min(Deadline::after(span));
    }
    if common.is_asked() {
        agent.events.wait_through(&fds, wake);
        return;
    }
    let lost = logger::ready(agent).is_err();
    let reached = |events: &super::events::Events| lost && events.log().is_some_and(Log::is_reached);
    if agent.events.wait_until(&fds, wake, reached).is_err() {
        common.asked();
    }
}

/// Lets the workers go; they have nothing in hand, or had their time.
fn dismiss(agent: &mut Agent, slots: Vec<Slot>) {
    let mut workers: Vec<Worker> = slots.into_iter().map(Slot::into_worker).collect();
    for worker in &mut workers {
        worker.dismiss();
    }
    let deadline = Deadline::after(worker::LEAVE);
    for worker in &workers {
        agent.events.wait_through(&[(worker.child().as_fd(), PollFlags::POLLIN)], deadline);
    }
    // All at once, so that it takes no longer than one.
    for worker in &workers {
        let _ = worker.child().signal(Signal::SIGKILL);
    }
    let dying = Deadline::after(DYING);
    for worker in &workers {
        agent.events.wait_through(&[(worker.child().as_fd(), PollFlags::POLLIN)], dying);
        let _ = worker.child().try_wait();
    }
}

/// The end by a rule.
fn words(reason: Reason, tally: &Tally, limit: u32) -> Verdict {
    let done = tally.in_words();
    match reason {
        Reason::Deadline | Reason::Late => Verdict::host_asked(format!("{reason}: {done}")),
        Reason::Drain => Verdict::host_asked(format!("{reason} ({DRAIN}): {done}")),
        Reason::Tasks => {
            let Verdict { code, text } = tally.verdict();
            Verdict { code, text: format!("limit of {limit} tasks reached: {text}") }
        }
        Reason::Idle | Reason::Fault => tally.verdict(),
    }
}
