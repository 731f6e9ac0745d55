//! The orderly end: whatever happened before, these steps run, each bounded.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::events::DYING;
use super::logger::{self, Log};
use super::notice::Notice;
use super::platform::deliver;
use super::report::{self, LogReport, PhaseReport, Spent};
use super::{Agent, audit, guard, phases, scripts, work};
use crate::verdict::Verdict;

/// What the steps do beside waiting, on a machine that is busy with something else.
const AIR: Duration = Duration::from_secs(10);
/// From a wish to end to the last notice at most: init waits so long, and then ends the machine without us.
pub const LONGEST: Duration = work::STOPPING
    .saturating_add(scripts::STOPPING)
    .saturating_add(guard::CONCLUDING)
    // Two children at most are buried there.
    .saturating_add(DYING.saturating_mul(2))
    .saturating_add(deliver::LAST_WORD)
    .saturating_add(logger::DRAIN)
    .saturating_add(logger::ANSWER)
    .saturating_add(report::PORT_LIMIT)
    .saturating_add(AIR);

/// Why a machine ends that was asked to: by the host, or by what it cannot do without.
pub fn asked(agent: &Agent) -> Verdict {
    match agent.events.log().and_then(Log::broken) {
        Some(why) => Verdict::machine_fault(why),
        None => Verdict::host_asked("the host asked for the end"),
    }
}

/// Stops the scripts' services, tells the verdict in every way, and hands the machine back to init. The
/// payload is stopped and its lease given back already: no job outlives the work phase.
pub fn end(agent: &mut Agent, verdict: Verdict) {
    agent.events.ending();
    let (start_ms, before) = (report::now_ms(), Spent::now());
    let mounted = deliver::is_mounted(agent);
    if mounted {
        // The prolog's `stop` takes the mount away. What the scripts' ends are like is in the machine's own report.
        agent.report.verdict = Some(verdict.clone());
        deliver::last_word(agent, &verdict);
    }
    scripts::stop(agent);
    for client in agent.dhcp.drain(..) {
        let _ = client.child.signal(Signal::SIGKILL);
    }
    guard::conclude(agent);
    audit::vm_stop(&verdict, &agent.report);
    phases::record(agent, PhaseReport::done("end", start_ms, Spent::since(before), verdict.to_string()));
    agent.report.verdict = Some(verdict.clone());
    if !mounted {
        deliver::last_word(agent, &verdict);
    }
    agent.report.log = logger::drain(&mut agent.events);
    tell_of_log(agent);
    agent.report.save();
    agent.report.send_to_host();
    agent.tell_init(&Notice::End(verdict));
}

/// What of the log has not arrived, for whoever looks at the console.
fn tell_of_log(agent: &Agent) {
    let Some(LogReport { undelivered, spooled, .. }) = agent.report.log else { return };
    // Without a server the log was never meant to leave the machine.
    if undelivered > 0 && agent.site.syslog.is_some() {
        log::warn!("{undelivered} log records were not delivered");
    }
    match spooled {
        Some(count) if count > 0 => log::warn!("{count} undelivered records wait on the spool"),
        Some(_) if undelivered > 0 => log::warn!("no undelivered record waits on the spool"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::LONGEST;

    #[test]
    fn the_end_takes_as_long_as_the_documentation_says() {
        // docs/site.md says six and a half minutes; init's own steps take 30 s of them at most.
        assert!(LONGEST.as_secs() <= 360, "{LONGEST:?}");
    }
}
