//! The guard's part in the life of a machine: armed before the first script, asked after each, and once more at the
//! end. What is slow, or walks what scripts made, runs in a child.

mod hash;
mod look;
mod seal;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use self::hash::Hashing;
use self::look::{Look, look};
use self::seal::keep_state_apart;
pub use self::seal::{due, seal};
use super::Agent;
use super::report::GuardReport;
use super::runner::{Done, Fault, site_fault};
use crate::clock::Deadline;
use crate::guard::ChangeKind;
use crate::guard::device::Device;
use crate::guard::mounts::{self as table, Table};
use crate::guard::policy::OnViolation;
use crate::guard::tree::Tree;
use crate::image::policy::OnFailure;
use crate::image::root;
use crate::network::names::{self, WriteError};
use crate::sys::mount;
use crate::text::count;

/// For one look at the changes: they are bounded by the layer's memory, and read twice at most.
const LOOKING: Duration = Duration::from_secs(60);
/// For all that is done at the end: the last look, the rest of the first hash, and the second hash. A disk of 10 GB is
/// read twice in this; a larger or slower one is not worth a machine that is off later.
pub const CONCLUDING: Duration = Duration::from_secs(60);
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

/// A mount that ctxinit made after the scripts, at this very place, is the machine's too.
pub fn take_own_mount(agent: &mut Agent, point: &str) {
    let (Some(guard), Ok(now)) = (&mut agent.guard, read_table()) else { return };
    // The last one is on top.
    if let Some(mount) = now.into_iter().rfind(|mount| mount.point == point) {
        guard.machine.push(mount.clone());
        guard.mounts.push(mount);
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
