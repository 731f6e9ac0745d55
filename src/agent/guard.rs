//! The guard's part in the life of a machine: armed before the first script, asked after each, and once more at the
//! end. What is slow, or walks what scripts made, runs in a child.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::mount::MsFlags;
use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Agent;
use super::channel::Channel;
use super::events::Events;
use super::report::GuardReport;
use super::roles;
use super::runner::{Done, Due, Fault, site_fault};
use crate::clock::Deadline;
use crate::guard::audit::{Audit, Known, audit};
use crate::guard::compare::Layers;
use crate::guard::device::Device;
use crate::guard::holders;
use crate::guard::mounts::{self as table, Difference, Mount, Owners, Table};
use crate::guard::places::Places;
use crate::guard::policy::OnViolation;
use crate::guard::tree::Tree;
use crate::guard::{Change, ChangeKind};
use crate::image::policy::OnFailure;
use crate::image::root;
use crate::mounts;
use crate::network::names::{self, WriteError};
use crate::sys::process::{self, Child};
use crate::sys::{mount, priority};
use crate::text::count;

/// For one look at the changes: they are bounded by the layer's memory, and read twice at most.
const LOOKING: Duration = Duration::from_secs(60);
/// For all that is done at the end: the last look, the rest of the first hash, and the second hash. A disk of 10 GB is
/// read twice in this; a larger or slower one is not worth a machine that is off later.
pub const CONCLUDING: Duration = Duration::from_secs(60);
/// A program that just writes a file is done within this.
const WRITERS: Duration = Duration::from_secs(1);

/// What the agent keeps for it.
pub struct Guard {
    lower: Tree,
    upper: Tree,
    /// Changes that earlier looks have found, in memory, as the children that look have to have it.
    known: File,
    /// As last seen.
    mounts: Table,
    /// Those that no script may touch.
    machine: Table,
    /// `major:minor` of the image's file system.
    image: String,
    device: Option<Device>,
    /// Sectors that the report has told of.
    written: u64,
    first_hash: Option<Hashing>,
    totals: Totals,
    /// Every look came to its end.
    complete: bool,
    sealed: bool,
    /// It ends the machine, whatever a script's failure means.
    fatal: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    files: u64,
    violations: u64,
    reverted: u64,
}

/// What one look found.
#[derive(Default)]
struct Look {
    changes: u64,
    violations: u64,
    first: Option<String>,
    /// What stands although the policy puts back.
    left: u64,
    first_left: Option<String>,
}

/// Counts what is written to the image's device, from before it is mounted.
pub fn watch_device(agent: &mut Agent, node: &str) {
    match Device::open(node) {
        Ok(device) => agent.image_device = Some(device),
        Err(error) => log::warn!("{node}: writes to it are not counted: {error}"),
    }
}

/// Takes the layers out of sight, and mounts what stays writable. Before anything of the site runs.
pub fn arm(agent: &mut Agent) -> Result<(), String> {
    let Some(layers) = root::take_layers().map_err(|error| error.to_string())? else { return Ok(()) };
    keep_state_apart(agent);
    let stat = nix::sys::stat::fstat(&layers.lower).map_err(|errno| format!("the image's root: {errno}"))?;
    let image = format!("{}:{}", libc::major(stat.st_dev), libc::minor(stat.st_dev));
    let mounts = read_table()?;
    let device = agent.image_device.take();
    let wanted = agent.policy.guard.hash_device;
    let first_hash = device.as_ref().filter(|_| wanted).and_then(|device| Hashing::start(device, true));
    agent.guard = Some(Guard {
        lower: Tree::new(layers.lower),
        upper: Tree::new(layers.upper),
        known: memory()?,
        machine: mounts.clone(),
        mounts,
        image,
        device,
        written: 0,
        first_hash,
        totals: Totals::default(),
        complete: true,
        sealed: false,
        fatal: false,
    });
    Ok(())
}

/// A file that is nowhere: for what is too much for a message between processes.
fn memory() -> Result<File, String> {
    let made = memfd_create(c"guard", MFdFlags::MFD_CLOEXEC);
    made.map(File::from).map_err(|errno| format!("a file in memory: {errno}"))
}

/// Directories where daemons of the site keep what they write: mounts of their own, as "/" will be read-only.
fn keep_state_apart(agent: &Agent) {
    let mounted = read_table().unwrap_or_default();
    let is_new = |path: &String| !mounted.iter().any(|mount| mount.point == *path);
    for path in agent.policy.guard.site_writable.of_state().into_iter().filter(is_new) {
        // A link is not followed: the place that it points to was not meant.
        let real = fs::canonicalize(&path).is_ok_and(|real| real == Path::new(&path) && real.is_dir());
        if real && let Err(error) = mounts::keep_apart(&path) {
            log::warn!("guard: {path} will be read-only after the epilog: {error}");
        }
    }
}

fn read_table() -> Result<Table, String> {
    let text = fs::read("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    let table = table::parse(&String::from_utf8_lossy(&text));
    // An empty table is no table: "/" is always there.
    if table.is_empty() { Err("/proc/self/mountinfo: there is nothing in it".to_owned()) } else { Ok(table) }
}

/// Runs a script's phase and looks at what it changed.
pub fn watch(agent: &mut Agent, run: impl FnOnce(&mut Agent) -> Result<Done, Fault>) -> Result<Done, Fault> {
    if agent.guard.is_none() {
        return run(agent);
    }
    let result = run(agent);
    // What the end is about to tell need not be put back any more.
    if let Err(Fault::Stop) = result {
        return result;
    }
    let note = check(agent)?;
    match (result, note) {
        (Ok(Done::Next(done)), Some(note)) => Ok(Done::Next(format!("{done}; {note}"))),
        (result, _) => result,
    }
}

/// Mounts that ctxinit made since the last look are the machine's. Before anything of the site runs, and not later:
/// what a daemon mounts at these places is not ctxinit's.
pub fn take_own_mounts(agent: &mut Agent) {
    let (Some(guard), Ok(now)) = (&mut agent.guard, read_table()) else { return };
    for difference in table::differences(&guard.mounts, &now) {
        let mount = difference.mount;
        if mount.is_own() {
            if difference.kind == ChangeKind::Added {
                guard.machine.push(mount.clone());
                guard.mounts.push(mount);
            } else {
                guard.mounts.retain(|old| *old != mount);
            }
        }
    }
}

/// Whether a failure of a phase ends the machine: the guard's word counts more than the script's.
pub fn or(agent: &Agent, script: OnFailure) -> OnFailure {
    if agent.guard.as_ref().is_some_and(|guard| guard.fatal) { OnFailure::Stop } else { script }
}

/// Looks, puts back, and decides. The note is for the phase.
fn check(agent: &mut Agent) -> Result<Option<String>, Fault> {
    let on_violation = agent.policy.guard.on_violation;
    let looked = look(agent, on_violation == OnViolation::Revert, Deadline::after(LOOKING));
    let fault = match (looked, on_violation) {
        (Err(Fault::Stop), _) => return Err(Fault::Stop),
        (Err(Fault::Failed(verdict)), OnViolation::Report) => {
            log::warn!("{verdict}");
            return Ok(Some(verdict.text));
        }
        (Err(fault), _) => fault,
        (Ok(Look { changes: 0, .. }), _) => return Ok(None),
        (Ok(Look { changes, violations: 0, .. }), _) => return Ok(Some(count(changes, "change"))),
        (Ok(look), OnViolation::Report) => return Ok(Some(count(look.violations, "violation"))),
        (Ok(Look { left: 0, violations, .. }), OnViolation::Revert) => {
            return Ok(Some(format!("{} put back", count(violations, "violation"))));
        }
        (Ok(look), OnViolation::Revert) => site_fault(format!(
            "guard: {} could not be put back, the first: {}",
            count(look.left, "violation"),
            look.first_left.unwrap_or_default()
        )),
        (Ok(look), OnViolation::Refuse) => site_fault(format!(
            "guard: {}, the first: {}",
            count(look.violations, "violation"),
            look.first.unwrap_or_default()
        )),
    };
    if let Some(guard) = &mut agent.guard {
        guard.fatal = true;
    }
    Err(fault)
}

/// What is new since the last look, in the log and in the phase's report; put back if `revert`.
fn look(agent: &mut Agent, revert: bool, deadline: Deadline) -> Result<Look, Fault> {
    let mut look = Look::default();
    let mounts = look_at_mounts(agent, revert, &mut look);
    // Whoever hides one thing from us has not hidden the others.
    let files = if let Err(Fault::Stop) = mounts { Ok(()) } else { look_at_files(agent, revert, deadline, &mut look) };
    look_at_device(agent, &mut look);
    let looked = mounts.and(files);
    if let (Err(_), Some(guard)) = (&looked, &mut agent.guard) {
        guard.complete = false;
    }
    looked.map(|()| look)
}

impl Look {
    /// One change: to the log if it is a violation, and into the report.
    fn take(&mut self, details: &mut Vec<Change>, totals: &mut Totals, change: Change) {
        self.changes += 1;
        totals.reverted += u64::from(change.reverted);
        if change.violation.is_some() {
            log::warn!("guard: {change}");
            self.first.get_or_insert(change.to_string());
        }
        details.push(change);
    }

    fn leave(&mut self, number: u64, first: Option<String>) {
        self.left += number;
        self.first_left = self.first_left.take().or(first);
    }
}

fn look_at_mounts(agent: &mut Agent, revert: bool, look: &mut Look) -> Result<(), Fault> {
    let Some(guard) = &mut agent.guard else { return Ok(()) };
    let places = &agent.policy.guard.site_writable;
    let read = || read_table().map_err(|error| site_fault(format!("guard: {error}")));
    let mut now = read()?;
    let owners = Owners { places, machine: &guard.machine, image: &guard.image };
    let judge = |now: &[Mount]| {
        let judged = table::differences(&guard.mounts, now).into_iter();
        judged.map(|each| (owners.violation(&each), each)).collect::<Vec<_>>()
    };
    let found = judge(&now);
    let wrong: Vec<Difference> = found.iter().filter(|(why, _)| why.is_some()).map(|(_, each)| each.clone()).collect();
    let mut left = Vec::new();
    if revert && !wrong.is_empty() {
        table::undo(&wrong);
        now = read()?;
        left = judge(&now).into_iter().filter(|(why, _)| why.is_some()).collect();
    }
    look.violations += wrong.len() as u64;
    guard.totals.violations += wrong.len() as u64;
    for (why, difference) in found {
        let stands = left.iter().any(|(_, each)| *each == difference);
        let reverted = revert && why.is_some() && !stands;
        let change = Change { reverted, ..difference.told(why) };
        look.take(&mut agent.details.changes, &mut guard.totals, change);
    }
    look.leave(left.len() as u64, left.first().map(|(why, each)| each.told(*why).to_string()));
    guard.mounts = now;
    Ok(())
}

fn look_at_files(agent: &mut Agent, revert: bool, deadline: Deadline, look: &mut Look) -> Result<(), Fault> {
    let Some(guard) = &mut agent.guard else { return Ok(()) };
    let places = &agent.policy.guard.site_writable;
    let own = Places::own(agent.policy.accounts.root_ssh_keys);
    // Another one each time: a look that is stopped half way leaves what was known.
    let next = memory().map_err(|error| site_fault(format!("guard: {error}")))?;
    let looked = roles::ask(&mut agent.events, deadline, || {
        if let Some(device) = &guard.device {
            device.flush();
        }
        let merged = Tree::new(mount::bare_root().map_err(|error| format!("a view of /: {error}"))?);
        // The child's own copies of the descriptors.
        let clone = |tree: &Tree| tree.try_clone().map_err(|error| error.to_string());
        let layers = Layers { lower: clone(&guard.lower)?, upper: clone(&guard.upper)?, merged };
        let mut known = &guard.known;
        let mut look = || -> io::Result<Audit> {
            known.rewind()?;
            let (audit, known) = audit(&layers, places, &own, &Known::read(known)?, revert)?;
            known.write(&next)?;
            Ok(audit)
        };
        look().map_err(|error| error.to_string())
    })?;
    let found = match looked {
        Some(Ok(found)) => found,
        Some(Err(why)) => return Err(site_fault(format!("guard: the changes cannot be looked at: {why}"))),
        None => return Err(site_fault("guard: the changes could not be looked at in time")),
    };
    let Audit { changes, more, violations, reverted, first, left, first_left, differing } = found;
    guard.totals.files = differing;
    guard.known = next;
    guard.totals.violations += violations;
    // Those that are told are counted one by one.
    let told = changes.iter().filter(|change| change.reverted).count() as u64;
    guard.totals.reverted += reverted.saturating_sub(told);
    look.violations += violations;
    look.leave(left, first_left);
    look.first = look.first.take().or(first);
    for change in changes {
        look.take(&mut agent.details.changes, &mut guard.totals, change);
    }
    if more > 0 {
        look.changes += more;
        log::warn!("guard: {more} more changes are not in the report");
    }
    Ok(())
}

/// A write to the image's device is never allowed, and nothing puts it back.
fn look_at_device(agent: &mut Agent, look: &mut Look) {
    let Some(guard) = &mut agent.guard else { return };
    let Some(device) = &guard.device else { return };
    let written = device.sectors_written();
    if written <= guard.written {
        return;
    }
    let change = Change {
        path: format!("/dev/{}", device.name()),
        kind: ChangeKind::Changed,
        what: match written {
            u64::MAX => "the device is gone".to_owned(),
            _ => format!("{} written", count(written - guard.written, "sector")),
        },
        size: 0,
        sha256: None,
        violation: Some("it is the image's device".to_owned()),
        reverted: false,
    };
    guard.written = written;
    guard.totals.violations += 1;
    look.violations += 1;
    look.leave(1, Some(change.to_string()));
    look.take(&mut agent.details.changes, &mut guard.totals, change);
}

/// Only where there is an overlay.
pub fn due(agent: &Agent) -> Due {
    match agent.guard {
        Some(_) => Due::Run("the scripts are done".to_owned()),
        None => Due::Skip("the initramfs is the image: there is nothing to compare with".to_owned()),
    }
}

/// Closes the system part to writing. What a daemon writes after this lies in directories that are its own mounts.
pub fn seal(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let state = agent.policy.guard.site_writable.clone();
    let on_violation = agent.policy.guard.on_violation;
    // Those that a script has made.
    keep_state_apart(agent);
    let deadline = Deadline::after(WRITERS);
    let busy = loop {
        match mounts::remount("/", MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_RELATIME) {
            Ok(()) => break None,
            Err(error) if error.errno() == Errno::EBUSY as i32 && !deadline.passed() => {
                agent.events.sleep(deadline.min(Deadline::after(WRITERS / 10)))?;
            }
            Err(error) => break Some(error),
        }
    };
    let now = read_table().map_err(|error| site_fault(format!("guard: {error}")))?;
    let Some(guard) = &mut agent.guard else { return Ok(Done::Next(String::new())) };
    guard.sealed = busy.is_none();
    // What was just mounted is the machine's; whatever else is different by now is told in the end.
    let state_places = state.of_state();
    for Difference { kind, mount, before } in table::differences(&guard.mounts, &now) {
        let root = mount.point == "/" && kind == ChangeKind::Changed;
        if root || (mount.fstype == "overlay" && state_places.contains(&mount.point)) {
            guard.mounts.retain(|old| before.as_ref() != Some(old));
            guard.mounts.push(mount.clone());
            guard.machine.push(mount);
        }
    }
    // What a daemon wrote between the last script's look and this.
    let found = check(agent)?;
    let and = |note: String| found.map_or(note.clone(), |found| format!("{note}; {found}"));
    let Some(error) = busy else { return Ok(Done::Next(and("the image's directories are read-only".to_owned()))) };
    let Some(guard) = &mut agent.guard else { return Ok(Done::Next(String::new())) };

    let holders = holders::of_root();
    let mut violations = 0;
    for holder in &holders {
        let allowed = state.hold(holder.path.as_bytes());
        violations += u64::from(!allowed);
        let change = Change {
            path: holder.path.clone(),
            kind: ChangeKind::Changed,
            what: format!("held open for writing by {}", holder.process),
            size: 0,
            sha256: None,
            violation: (!allowed).then(|| "not in site_writable".to_owned()),
            reverted: false,
        };
        log::warn!("guard: {change}");
        agent.details.changes.push(change);
    }
    guard.totals.violations += violations;
    let who = holders.first().map(|holder| format!(": {} is held open for writing by {}", holder.path, holder.process));
    let why = format!("the image's directories stay open to root: {error}{}", who.unwrap_or_default());
    log::warn!("guard: {why}");
    // What a daemon may still do is looked at in the end; only an image that wants no violation at all ends here.
    if on_violation == OnViolation::Refuse {
        Err(site_fault(format!("guard: {why}")))
    } else {
        Ok(Done::Next(and(why)))
    }
}

/// The last look, and the report's summary. Nothing is put back any more: what was changed goes with the machine.
pub fn conclude(agent: &mut Agent) {
    if agent.guard.is_none() {
        return;
    }
    let deadline = Deadline::after(CONCLUDING);
    let failed = match look(agent, false, deadline) {
        Ok(_) => None,
        Err(Fault::Failed(verdict)) => Some(verdict.text),
        Err(Fault::Stop) => Some("guard: the last look was stopped".to_owned()),
    };
    if let Some(why) = &failed {
        log::error!("{why}");
    }
    let on_violation = agent.policy.guard.on_violation;
    let wanted = agent.policy.guard.hash_device;
    let Some(guard) = &mut agent.guard else { return };
    let Totals { files, violations, reverted } = guard.totals;
    let (changed, wrong) = (count(files, "file"), count(violations, "violation"));
    let mut note = format!("{changed} changed in memory, {wrong}");
    if reverted > 0 {
        note += &format!(", {reverted} put back");
    }
    match failed {
        Some(why) => note = format!("NOT COMPLETE: {why}; before that {note}"),
        None if !guard.complete => note += "; NOT COMPLETE: a look after a script failed",
        None => {}
    }
    if let Some(device) = &guard.device {
        let mut why = None;
        let hashes = wanted.then(|| {
            let events = &mut agent.events;
            let mut result = |hashing: Option<Hashing>| {
                let hash = hashing.ok_or_else(|| "not started".to_owned());
                let hash = hash.and_then(|hashing| hashing.result(events, deadline));
                hash.map_err(|error| why = Some(error)).ok()
            };
            let before = result(guard.first_hash.take());
            // With nothing to compare it with, the second would only take time.
            let after = before.as_ref().and_then(|_| result(Hashing::start(device, false)));
            [before, after]
        });
        let image = device.report(hashes);
        let sectors = count(image.sectors_written, "sector");
        note += &format!("; image device {} {}: {sectors} written", image.device, image.state());
        if let Some(why) = why {
            log::error!("guard: the image's device is not hashed: {why}");
            note += &format!(", no hash: {why}");
        }
        if image.is_suspect() {
            log::error!("guard: the image's device {} is not what it was", image.device);
        }
        agent.report.image_device = Some(image);
    }
    log::info!("image: {note}");
    let (sealed, complete) = (guard.sealed, guard.complete);
    let report = GuardReport { on_violation, files_changed: files, violations, reverted, sealed, complete, note };
    agent.report.guard = Some(report);
}

/// Replaces a file of ctxinit's own, also when "/" is read-only: through a view of it that nobody else has.
pub fn replace_file(agent: &Agent, path: &str, text: &str) -> Result<(), WriteError> {
    if !agent.guard.as_ref().is_some_and(|guard| guard.sealed) {
        return names::replace_file(Path::new(path), text);
    }
    let root = mount::bare_root().map_err(|source| WriteError { path: path.into(), step: "a view of /", source })?;
    names::replace_file(Path::new(&format!("/proc/self/fd/{}{path}", root.as_raw_fd())), text)
}

/// A child that reads the whole device.
struct Hashing {
    child: Child,
    channel: Channel,
}

impl Hashing {
    /// Starts one; in the background it takes only what nobody else wants of processor and disk.
    fn start(device: &Device, background: bool) -> Option<Self> {
        let started = Channel::pair().and_then(|(channel, mut theirs)| {
            let child = process::fork(|| {
                if background {
                    priority::lowest();
                }
                let hash = device.sha256().map_err(|error| error.to_string());
                i32::from(theirs.send(&hash, &[]).is_err())
            })?;
            Ok(Self { child, channel })
        });
        started.map_err(|error| log::error!("guard: {} is not hashed: {error}", device.name())).ok()
    }

    /// Its answer, waited for.
    fn result(mut self, events: &mut Events, deadline: Deadline) -> Result<String, String> {
        let hash = loop {
            match self.channel.try_recv::<Result<String, String>>() {
                Ok(Some((hash, _))) => break hash,
                Ok(None) => {}
                Err(error) => break Err(error.to_string()),
            }
            if !events.wait_through(&[(self.channel.as_fd(), PollFlags::POLLIN)], deadline) {
                break Err("not read in time".to_owned());
            }
        };
        events.bury(&self.child);
        hash
    }
}
