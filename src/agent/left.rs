//! What scripts leave running: kept while the machine works, ended with it.

use std::fs;
use std::time::Duration;

use super::Agent;
use super::scripts::{KILLED, wait_empty};
use crate::cgroup::{Cgroup, Usage, populated};
use crate::clock::Deadline;

/// For all of them together, as they had their script's `stop` before.
const GRACE: Duration = Duration::from_secs(2);
/// All of [`end`] at most.
pub const ENDING: Duration = GRACE.saturating_add(KILLED);
/// Names in one line of the log; the report has them all.
const LISTED: usize = 10;

/// Processes that outlived their script.
#[derive(Debug)]
pub struct Left {
    /// `epilog.sh start`.
    by: String,
    cgroup: Cgroup,
    /// The kernel's count at the script's own end.
    oom_kills: u64,
}

impl Left {
    /// The cgroup of a script that is over, and what it had used by then.
    pub fn new(by: String, cgroup: Cgroup, used: Usage) -> Self {
        Self { by, cgroup, oom_kills: used.oom_kills.unwrap_or(0) }
    }
}

/// Ends all of them: asked first, killed after a grace. Init would do it too, but it could not say who they were.
pub fn end(agent: &mut Agent) {
    let mut left = std::mem::take(&mut agent.scripts.left);
    for Left { by, cgroup, oom_kills } in &left {
        let kills = cgroup.usage().oom_kills.unwrap_or(0).saturating_sub(*oom_kills);
        if kills > 0 {
            log::warn!("left running by {by}: ran out of memory and was killed (oom_kill {kills})");
        }
    }
    left.retain(|each| is_populated(&each.cgroup));
    for Left { by, cgroup, .. } in &left {
        log::info!("left running by {by}, asked to end: {}", listed(&named(&cgroup.members())));
        cgroup.terminate(None);
    }
    let grace = Deadline::after(GRACE);
    left.retain(|each| !wait_empty(&mut agent.events, &each.cgroup, grace));
    for Left { by, cgroup, .. } in &left {
        log::warn!("left running by {by}, killed: {}", listed(&named(&cgroup.members())));
        if let Err(error) = cgroup.kill() {
            log::error!("{error}");
        }
    }
    let killed = Deadline::after(KILLED);
    left.retain(|each| !wait_empty(&mut agent.events, &each.cgroup, killed));
    for Left { by, cgroup, .. } in &left {
        log::error!("left running by {by}, cannot be killed: {}", listed(&named(&cgroup.members())));
    }
    // The last words of those that ended.
    agent.events.wait_through(&[], Deadline::after(Duration::ZERO));
}

/// Whether anybody lives in it.
pub fn is_populated(cgroup: &Cgroup) -> bool {
    cgroup.events().is_ok_and(|events| populated(&events))
}

/// `name (pid)` of each that is still there.
pub fn named(pids: &[u32]) -> Vec<String> {
    let named = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{} ({pid})", name.trim_end()))
    };
    pids.iter().filter_map(named).collect()
}

/// The first of them in one line.
pub fn listed(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
    match names.len().saturating_sub(LISTED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (1..=12).map(|pid| format!("a ({pid})")).collect();
        assert_eq!(listed(&names[..2]), "a (1), a (2)");
        assert!(listed(&names).ends_with("a (10) and 2 more"));
        // The last number is above pid_max's own limit, as of one that is gone.
        assert_eq!(named(&[std::process::id(), 4_194_305]).len(), 1);
    }
}
