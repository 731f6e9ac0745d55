//! The phases of a machine, as data.

use std::time::Duration;

use super::report::PhaseReport;
use super::runner::Phase;
use super::{Agent, boot, medium, network, scripts, work};
use crate::image::policy::OnFailure;

/// In this order. `early` is init's and comes before, `end` follows whatever happened.
pub const PHASES: &[Phase<Agent>] = &[
    Phase { name: "devices", skip: never, deadline: none, on_failure: go_on, run: boot::devices },
    // 30 s: a virtual disk on a loaded hypervisor; the kernel itself waits that long for a SCSI command.
    Phase { name: "image", skip: boot::no_image, deadline: |_| secs(30), on_failure: end, run: boot::image },
    Phase { name: "policy", skip: never, deadline: none, on_failure: end, run: boot::policy },
    Phase {
        name: "medium",
        skip: medium::not_wanted,
        deadline: |agent| secs(agent.policy.medium.wait_secs),
        on_failure: end,
        run: medium::run,
    },
    Phase {
        name: "prolog",
        skip: |agent| scripts::missing(agent, "prolog.sh"),
        deadline: |agent| secs(agent.policy.scripts.prolog.timeout_secs),
        on_failure: |agent| agent.policy.scripts.prolog.on_failure,
        run: |agent, deadline| scripts::start(agent, "prolog", deadline),
    },
    Phase {
        name: "network",
        skip: never,
        deadline: |agent| secs(agent.policy.network.timeout_secs),
        on_failure: end,
        run: network::up,
    },
    Phase { name: "logging", skip: boot::no_syslog, deadline: none, on_failure: go_on, run: boot::logging },
    Phase {
        name: "epilog",
        skip: |agent| scripts::missing(agent, "epilog.sh"),
        deadline: |agent| secs(agent.policy.scripts.epilog.timeout_secs),
        on_failure: |agent| agent.policy.scripts.epilog.on_failure,
        run: |agent, deadline| scripts::start(agent, "epilog", deadline),
    },
    Phase { name: "work", skip: never, deadline: none, on_failure: end, run: work::run },
];

/// Puts a phase into the report, on the console and into the log.
pub fn record(agent: &mut Agent, phase: PhaseReport) {
    let PhaseReport { name, millis, outcome, note, .. } = &phase;
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    match *outcome {
        "failed" => log::error!("phase {name}: {outcome}, {millis} ms{note}"),
        _ => log::info!("phase {name}: {outcome}, {millis} ms{note}"),
    }
    agent.report.phases.push(phase);
    agent.report.save();
}

fn secs(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}

/// It waits for nobody, or bounds each of its steps.
fn none(_: &Agent) -> Duration {
    Duration::ZERO
}

fn never(_: &Agent) -> Option<String> {
    None
}

fn end(_: &Agent) -> OnFailure {
    OnFailure::Stop
}

fn go_on(_: &Agent) -> OnFailure {
    OnFailure::Continue
}
