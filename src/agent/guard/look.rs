//! One look of the guard: at the mounts, at the files, and at the image's device.

use std::io::{self, Seek};

use super::super::Agent;
use super::super::roles;
use super::super::runner::{Fault, site_fault};
use super::{Totals, memory, read_table};
use crate::clock::Deadline;
use crate::guard::audit::{Audit, Known, audit};
use crate::guard::compare::Layers;
use crate::guard::mounts::{self as table, Difference, Mount, Owners};
use crate::guard::places::Places;
use crate::guard::tree::Tree;
use crate::guard::{Change, ChangeKind};
use crate::sys::mount;
use crate::text::count;

/// What one look found.
#[derive(Default)]
pub struct Look {
    pub changes: u64,
    pub violations: u64,
    pub first: Option<String>,
    /// What stands although the policy puts back.
    pub left: u64,
    pub first_left: Option<String>,
}

/// What is new since the last look, in the log and in the phase's report; put back if `revert`.
pub fn look(agent: &mut Agent, revert: bool, deadline: Deadline) -> Result<Look, Fault> {
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
