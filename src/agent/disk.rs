//! The disk phase: the user's disk found, checked, made if the site wants that, mounted; and settled after each job.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sched::CloneFlags;
use nix::unistd::{Uid, chown};

use super::events::{DYING, Stop};
use super::output::Source;
use super::report::{DiskState, UserDiskReport};
use super::runner::{Done, Due, Fault, site_fault};
use super::scripts;
use super::{Agent, boot, guard, left, roles};
use crate::cgroup::{Cgroup, Limits};
use crate::clock::Deadline;
use crate::disk::find::{self, Found, Volume};
use crate::disk::mounted::{self, PLACE};
use crate::disk::policy::{Need, Uuid, Wanted};
use crate::disk::{UserDisk, tools};
use crate::image::policy::OnFailure;
use crate::launch::{self, Program};
use crate::starting;
use crate::sys::apart::Apart;
use crate::sys::process::Exit;
use crate::{ids, text};

/// Of the whole phase, seconds. A clean disk is mounted within one; a whole check, after errors, reads all metadata: some
/// minutes for a disk of a terabyte.
pub const LIMIT: u32 = 600;
/// For what a job has written and memory still holds, after its end: less than its memory limit.
const SETTLE: Duration = Duration::from_secs(60);
/// The same once the machine is to end, whose steps all have their time (`end::LONGEST`).
const LAST_SETTLE: Duration = Duration::from_secs(10);
/// Of e2fsck and mkfs: each is one process, and some fork a helper.
const PIDS: u32 = 16;
/// KiB of their output that are logged.
const OUTPUT_KB: u64 = 64;
/// A check that is asked to end puts the disk into order first.
const GRACE: Duration = Duration::from_secs(5);

/// Why jobs get no disk.
enum Trouble {
    Absent(String),
    Bad(String),
    Stop,
}

impl From<Stop> for Trouble {
    fn from(_: Stop) -> Self {
        Self::Stop
    }
}

/// Only where the image takes one.
pub fn due(agent: &Agent) -> Due {
    match (agent.policy.user_disk.need, &agent.site.user_disk) {
        (Need::None, None) => Due::Skip("the image takes no user's disk".to_owned()),
        (Need::None, Some(_)) => {
            Due::Skip("the image takes no user's disk, whatever the context says of one".to_owned())
        }
        (Need::Optional, _) => Due::Run("the image takes a user's disk".to_owned()),
        (Need::Require, _) => Due::Run("the image requires a user's disk".to_owned()),
    }
}

/// Without a disk that is required no job is started.
pub fn on_failure(agent: &Agent) -> OnFailure {
    if agent.policy.user_disk.need == Need::Require { OnFailure::Stop } else { OnFailure::Continue }
}

/// The drivers, before the initramfs that holds them is given back.
pub fn load_drivers(agent: &mut Agent) {
    if agent.policy.user_disk.need != Need::None {
        boot::load_module(agent, "ext4");
        boot::load_module(agent, "xfs");
    }
}

/// Finds the disk and makes it ready for jobs.
pub fn run(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let mut report = UserDiskReport::new(DiskState::Ready, String::new());
    let result = take(agent, deadline, &mut report);
    let (state, why, result) = match result {
        Ok(note) => (DiskState::Ready, note.clone(), Ok(Done::Next(note))),
        Err(Trouble::Absent(why)) if agent.policy.user_disk.need == Need::Require => {
            let verdict = site_fault(format!("no user's disk, and the image requires one: {why}"));
            (DiskState::Absent, why, Err(verdict))
        }
        Err(Trouble::Absent(why)) => (DiskState::Absent, why.clone(), Ok(Done::Next(why))),
        Err(Trouble::Bad(why)) => (DiskState::Bad, why.clone(), Err(site_fault(format!("the user's disk: {why}")))),
        Err(Trouble::Stop) => return Err(Fault::Stop),
    };
    agent.report.user_disk = Some(UserDiskReport { state, why, ..report });
    result
}

fn take(agent: &mut Agent, deadline: Deadline, report: &mut UserDiskReport) -> Result<String, Trouble> {
    let wanted = agent.site.user_disk.clone().unwrap_or_default();
    let volume = match look(agent, deadline, &wanted)? {
        Found::One(volume) => {
            report.name(&volume);
            report.checked = check(agent, deadline, &volume)?;
            volume
        }
        Found::Blank(device) => {
            report.device = Some(device.clone());
            make(agent, deadline, &device, wanted.uuid.as_ref())?;
            report.formatted = true;
            match look(agent, deadline, &Wanted { format: false, ..wanted })? {
                Found::One(volume) => volume,
                Found::Blank(_) => return Err(Trouble::Bad(format!("/dev/{device} is blank after it was formatted"))),
                Found::None(why) | Found::Unclear(why) => {
                    return Err(Trouble::Bad(format!("/dev/{device} was formatted, but {why}")));
                }
            }
        }
        Found::None(why) => return Err(Trouble::Absent(why)),
        Found::Unclear(why) => return Err(Trouble::Bad(why)),
    };
    report.name(&volume);
    let asked = roles::ask(&mut agent.events, deadline, || mounted::mount(&volume))?;
    let mounted = asked.unwrap_or_else(|| Err("it is not mounted in time".to_owned()));
    let mounted = mounted.map_err(|why| Trouble::Bad(format!("{}: {why}", volume.node())))?;
    guard::take_own_mount(agent, PLACE);
    agent.user_disk = Some(UserDisk::taken());
    for warning in &mounted.warnings {
        log::warn!("{}: {warning}", volume.node());
    }
    report.bytes = Some(mounted.bytes);
    report.grown_from = mounted.grown_from;
    Ok(in_words(report, &mounted.warnings))
}

/// `/dev/vdb (ext4), 67108864 bytes, clean, grown from 33554432`.
fn in_words(report: &UserDiskReport, warnings: &[String]) -> String {
    let UserDiskReport { device, filesystem, bytes, read_only, checked, formatted, grown_from, .. } = report;
    let name = |of: &Option<String>| of.clone().unwrap_or_default();
    let mut words =
        vec![format!("/dev/{} ({})", name(device), name(filesystem)), text::count(bytes.unwrap_or(0), "byte")];
    words.extend(read_only.then(|| "read-only".to_owned()));
    words.extend(formatted.then(|| "formatted".to_owned()));
    words.extend(checked.map(str::to_owned));
    words.extend(grown_from.map(|bytes| format!("grown from {bytes}")));
    words.extend(warnings.iter().cloned());
    words.join(", ")
}

/// Superblocks are small; a disk that takes longer hangs.
fn look(agent: &mut Agent, deadline: Deadline, wanted: &Wanted) -> Result<Found, Trouble> {
    const LOOKING: Duration = Duration::from_secs(60);
    let deadline = deadline.min(Deadline::after(LOOKING));
    let found = roles::ask(&mut agent.events, deadline, || find::find(wanted))?;
    found.ok_or_else(|| Trouble::Bad("a disk does not answer while the user's is looked for".to_owned()))
}

/// A disk that nobody can write to is taken as it is.
fn check(agent: &mut Agent, deadline: Deadline, volume: &Volume) -> Result<Option<&'static str>, Trouble> {
    if volume.read_only {
        return Ok(None);
    }
    let Some(words) = tools::check(&volume.fstype, &volume.node()) else { return Ok(None) };
    let (exit, last) = tool(agent, deadline, "e2fsck", &volume.node(), &words)?;
    let checked =
        tools::checked(exit).map_err(|end| Trouble::Bad(format!("{}: e2fsck: {end}{last}", volume.node())))?;
    Ok(Some(checked))
}

fn make(agent: &mut Agent, deadline: Deadline, device: &str, uuid: Option<&Uuid>) -> Result<(), Trouble> {
    let node = format!("/dev/{device}");
    let (fstype, words) =
        tools::make(&node, uuid).map_err(|why| Trouble::Bad(format!("{node} is blank, and {why}")))?;
    log::info!("{node}: blank, becomes the user's disk ({fstype})");
    let (exit, last) = tool(agent, deadline, "mkfs", &node, &words)?;
    if exit.success() { Ok(()) } else { Err(Trouble::Bad(format!("{node}: mkfs: {exit}{last}"))) }
}

/// Runs a program of the image on the disk: as a user who may open this one device and has no other right, since what
/// it reads is a stranger's, and without a network. Its output goes to the log; the last line of it comes back.
///
/// Whoever of it lives on can write to what is mounted then, so nobody does.
fn tool(
    agent: &mut Agent,
    deadline: Deadline,
    tag: &str,
    node: &str,
    words: &[String],
) -> Result<(Exit, String), Trouble> {
    let bad = |error: &dyn std::fmt::Display| Trouble::Bad(format!("{node}: {tag}: {error}"));
    let cgroup = Cgroup::create(tag).map_err(|error| bad(&error))?;
    // A large disk takes as much as there is.
    let limits =
        Limits { memory: scripts::memory_limit(u32::MAX, scripts::available()), pids: PIDS, cpu_percent: None };
    cgroup.limit(limits).map_err(|error| bad(&error))?;
    let dir = cgroup.dir().map_err(|error| bad(&error))?;
    let (output, writer) = launch::output_pipe().map_err(|errno| bad(&errno))?;
    let environment = [("PATH".to_owned(), launch::PATH.to_owned())];
    let program = Program { dir: "/", words, environment: &environment };
    let owner = |uid: u32| chown(node, Some(Uid::from_raw(uid)), None).map_err(|errno| bad(&errno));
    owner(ids::DISK)?;
    // A network namespace also has its own abstract UNIX sockets.
    let apart = Apart { cgroup: Some(dir.as_fd()), namespaces: CloneFlags::CLONE_NEWNET };
    let started = starting::begin_apart(&apart, |report| {
        let steps = || {
            launch::detach(None, &writer)?;
            launch::become_user(ids::DISK)?;
            launch::exec(&program)
        };
        let Err(error) = steps();
        report.failed(&error)
    });
    drop(writer);
    let ended = started.map_err(|error| bad(&error)).and_then(|starting| {
        // The image may lie on a file system that is gone: a child that hangs on its way counts as a tool that does.
        let known = agent.events.wait(&[(starting.as_fd(), PollFlags::POLLIN)], deadline) == Ok(true);
        let child = if known { starting.result().map_err(|error| bad(&error))? } else { starting.child };
        let source = Source { tag: tag.to_owned(), pid: child.pid().as_raw() as u32, job: None, show: true };
        let output = agent.events.add_bounded_output(output, source, OUTPUT_KB * 1024);
        let waited = agent.events.wait_child(&child, deadline);
        let over = matches!(waited, Ok(Some(_)));
        if over && left::is_populated(&cgroup) {
            log::warn!("{tag}: ended, and left running: {}", left::listed(&left::named(&cgroup.members())));
        }
        let empty = scripts::end_tree(&mut agent.events, &cgroup, &child, if over { Duration::ZERO } else { GRACE });
        if !over {
            agent.events.bury(&child);
        }
        let last = agent.events.finish_output(output).tail.pop();
        let exit = waited?.ok_or_else(|| bad(&"it did not end in time"))?;
        if !empty {
            return Err(bad(&"a process of it cannot be killed"));
        }
        Ok((exit, last.map(|line| format!("; last line: {line}")).unwrap_or_default()))
    });
    owner(0)?;
    ended
}

/// Has the disk hold what a job has written, before its token is settled: a machine that dies after that loses nothing.
/// A disk that does not take it gets no other job.
///
/// # Errors
/// Why the job's work is lost.
pub fn settle(agent: &mut Agent) -> Result<(), String> {
    if agent.user_disk.is_none() {
        return Ok(());
    }
    let sync = || mounted::sync().map_err(|error| error.to_string());
    let asked = roles::ask(&mut agent.events, Deadline::after(SETTLE), sync)
        .or_else(|Stop| agent.events.through(|events| roles::ask(events, Deadline::after(LAST_SETTLE), sync)));
    let why = match asked {
        Ok(Some(Ok(()))) => return Ok(()),
        Ok(Some(Err(why))) => why,
        Ok(None) | Err(Stop) => "no answer in time".to_owned(),
    };
    let why = format!("the user's disk did not take what the job wrote: {why}");
    log::error!("{why}");
    agent.user_disk = None;
    if let Some(report) = &mut agent.report.user_disk {
        (report.state, report.why) = (DiskState::Bad, why.clone());
    }
    Err(why)
}

/// Why no job may start now, if the image requires a disk that is lost by now.
pub fn missing(agent: &Agent) -> Option<&'static str> {
    let lost = agent.policy.user_disk.need == Need::Require && agent.user_disk.is_none();
    lost.then_some("the image requires the user's disk, which is lost")
}

/// What settling adds to an end that is under way.
pub const SETTLING: Duration = LAST_SETTLE.saturating_add(DYING).saturating_add(DYING);
