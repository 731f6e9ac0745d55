//! The orderly end: whatever happened before, these steps run, each bounded.

use std::time::Duration;

use nix::sys::signal::Signal;
use std::os::fd::AsFd;

use super::events::DYING;
use super::notice::Notice;
use super::protocol::{FromLogger, ToLogger};
use super::report::{self, LogReport, PhaseReport, Spent};
use super::{Agent, audit, guard, phases, scripts, work};
use crate::clock::Deadline;
use crate::logging;
use crate::verdict::Verdict;

/// For the last log records; a server that takes longer has stalled.
const DRAIN: Duration = Duration::from_secs(10);
/// The logger's answer comes after its own deadline.
const ANSWER: Duration = Duration::from_secs(2);

/// What the steps do beside waiting, on a machine that is busy with something else.
const AIR: Duration = Duration::from_secs(10);
/// From a wish to end to the last notice at most: init waits so long, and then ends the machine without us.
pub const LONGEST: Duration = work::STOPPING
    .saturating_add(scripts::STOPPING)
    .saturating_add(guard::CONCLUDING)
    // Two children at most are buried there.
    .saturating_add(DYING.saturating_mul(2))
    .saturating_add(DRAIN)
    .saturating_add(ANSWER)
    .saturating_add(report::PORT_LIMIT)
    .saturating_add(AIR);

/// Stops the scripts' services, tells the verdict in every way, and hands the machine back to init. The
/// payload is stopped and its lease given back already: no job outlives the work phase.
pub fn end(agent: &mut Agent, verdict: Verdict) {
    agent.events.ending();
    let (start_ms, before) = (report::now_ms(), Spent::now());
    scripts::stop(agent);
    for client in agent.dhcp.drain(..) {
        let _ = client.child.signal(Signal::SIGKILL);
    }
    guard::conclude(agent);
    audit::vm_stop(&verdict, &agent.report);
    phases::record(agent, PhaseReport::done("end", start_ms, Spent::since(before), verdict.to_string()));
    agent.report.verdict = Some(verdict.clone());
    agent.report.log = drain_log(agent);
    if agent.report.log.is_none() && agent.site.syslog.is_some() {
        log::warn!("nobody can say how much of the log was delivered");
    }
    agent.report.save();
    agent.report.send_to_host();
    agent.tell_init(&Notice::End(verdict));
}

/// Delivers what is logged so far; `None` if no logger answers.
fn drain_log(agent: &mut Agent) -> Option<LogReport> {
    // A line that is logged meanwhile would meet a logger that has answered and left, and its answer be lost with it.
    let mut logger = logging::detach_logger()?;
    logger.send(&ToLogger::Drain { millis: DRAIN.as_millis() as u32 }, &[]).ok()?;
    let deadline = Deadline::after(DRAIN + ANSWER);
    while !deadline.passed() {
        // An end without an answer is an error.
        if let Some((FromLogger::Drained { delivered, undelivered }, _)) = logger.try_recv().ok()? {
            // Without a server the log was never meant to leave the machine.
            if undelivered > 0 && agent.site.syslog.is_some() {
                log::warn!("{undelivered} log records were not delivered");
            }
            return Some(LogReport { delivered, undelivered });
        }
        agent.events.wait_through(&[(logger.as_fd(), logger.interest())], deadline);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::LONGEST;

    #[test]
    fn the_end_takes_as_long_as_the_documentation_says() {
        // docs/site.md says five and a half minutes; init's own steps take 30 s of them at most.
        assert!(LONGEST.as_secs() <= 300, "{LONGEST:?}");
    }
}
