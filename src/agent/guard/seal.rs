//! The image's directories closed to writing, once the scripts are done.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::super::Agent;
use super::super::runner::{Done, Due, Fault, site_fault};
use super::{check, read_table};
use crate::clock::Deadline;
use crate::guard::mounts::{self as table, Difference};
use crate::guard::policy::OnViolation;
use crate::guard::{Change, ChangeKind, holders};
use crate::mounts;

/// A program that just writes a file is done within this.
const WRITERS: Duration = Duration::from_secs(1);

/// Directories where daemons of the site keep what they write: mounts of their own, as "/" will be read-only.
pub fn keep_state_apart(agent: &Agent) {
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

/// Only where there is an overlay.
pub fn due(agent: &Agent) -> Due {
    match agent.guard {
        Some(_) => Due::Run("the scripts are done".to_owned()),
        None => Due::Skip("the initramfs is the image: there is nothing to compare with".to_owned()),
    }
}

/// What [`seal`] itself has changed: "/" is read-only, and a place is mounted on itself. A daemon that mounts another
/// directory on that place is a view of the image that nobody closed.
fn is_ours(difference: &Difference, places: &[String]) -> bool {
    let Difference { kind, mount, .. } = difference;
    let sealed = mount.point == "/" && *kind == ChangeKind::Changed;
    let apart = *kind == ChangeKind::Added && mount.fstype == "overlay" && places.contains(&mount.point);
    mount.root == mount.point && (sealed || apart)
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
    // What was just mounted is the machine's; whatever else is different by now is looked at.
    let places = state.of_state();
    for difference in table::differences(&guard.mounts, &now).into_iter().filter(|each| is_ours(each, &places)) {
        let Difference { mount, before, .. } = difference;
        guard.mounts.retain(|old| before.as_ref() != Some(old));
        guard.mounts.push(mount.clone());
        guard.machine.push(mount);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_shows_another_is_nobodys() {
        let before = "20 1 0:5 / / rw - overlay overlay rw\n";
        let places = ["/var/log".to_owned()];
        let cases = [
            ("20 1 0:5 / / ro - overlay overlay rw\n", true),
            ("20 1 0:5 / / rw - overlay overlay rw\n30 20 0:5 /var/log /var/log rw - overlay overlay rw\n", true),
            ("20 1 0:5 / / rw - overlay overlay rw\n30 20 0:5 / /var/log rw - overlay overlay rw\n", false),
            ("20 1 0:5 / / rw - overlay overlay rw\n30 20 0:5 /usr /usr rw - overlay overlay rw\n", false),
            ("20 1 0:5 / / rw - overlay overlay rw\n30 20 0:9 / /var/log rw - tmpfs tmpfs rw\n", false),
        ];
        for (now, expected) in cases {
            let found = table::differences(&table::parse(before), &table::parse(now));
            assert_eq!(found.len(), 1, "{now}");
            assert_eq!(is_ours(&found[0], &places), expected, "{now}");
        }
    }
}
