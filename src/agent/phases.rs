//! The phases of a machine, as data.

use std::time::Duration;

use super::report::{ALWAYS, Details, PhaseReport};
use super::runner::{Due, Phase};
use super::{
    Agent, boot, disk, firewall, guard, hooks, logger, medium, network, platform, scripts, start_script, work,
};
use crate::image::policy::OnFailure;

/// In this order. `early` is init's and comes before, `end` follows whatever happened.
pub const PHASES: &[Phase<Agent>] = &[
    Phase { name: "devices", due: always, limit: none, on_failure: go_on, run: boot::devices },
    // 30 s: a virtual disk on a loaded hypervisor; the kernel itself waits that long for a SCSI command.
    Phase { name: "image", due: boot::image_due, limit: |_| secs(30), on_failure: end, run: boot::image },
    Phase { name: "policy", due: always, limit: none, on_failure: end, run: boot::policy },
    Phase {
        name: "medium",
        due: medium::due,
        limit: |agent| secs(agent.policy.medium.wait_secs),
        on_failure: end,
        run: |agent, deadline| {
            let result = medium::run(agent, deadline);
            guard::take_own_mounts(agent);
            result
        },
    },
    Phase {
        name: "prolog",
        due: |agent| scripts::due(agent, "prolog.sh"),
        limit: |agent| secs(agent.policy.scripts.prolog.timeout_secs),
        on_failure: |agent| guard::or(agent, agent.policy.scripts.prolog.on_failure),
        run: |agent, deadline| guard::watch(agent, |agent| scripts::prolog(agent, deadline)),
    },
    Phase { name: "firewall", due: firewall::due, limit: none, on_failure: end, run: firewall::close },
    Phase {
        name: "network",
        due: always,
        limit: |agent| secs(agent.policy.network.timeout_secs),
        on_failure: end,
        run: network::up,
    },
    Phase { name: "logging", due: boot::logging_due, limit: none, on_failure: go_on, run: boot::logging },
    // Before anything slow: a site that waits for a heartbeat does not know of our scripts.
    Phase { name: "platform", due: platform::due, limit: none, on_failure: end, run: platform::start },
    Phase {
        name: "start-script",
        due: start_script::due,
        limit: |agent| secs(agent.policy.scripts.epilog.timeout_secs),
        on_failure: |agent| guard::or(agent, agent.policy.scripts.epilog.on_failure),
        run: |agent, deadline| guard::watch(agent, |agent| start_script::run(agent, deadline)),
    },
    Phase {
        name: "epilog",
        due: |agent| scripts::due(agent, "epilog.sh"),
        limit: |agent| secs(agent.policy.scripts.epilog.timeout_secs),
        on_failure: |agent| guard::or(agent, agent.policy.scripts.epilog.on_failure),
        run: |agent, deadline| guard::watch(agent, |agent| scripts::epilog(agent, deadline)),
    },
    Phase {
        name: "hooks",
        due: hooks::due,
        limit: none,
        on_failure: |agent| guard::or(agent, agent.policy.scripts.epilog.on_failure),
        run: |agent, deadline| guard::watch(agent, |agent| hooks::run(agent, deadline)),
    },
    Phase { name: "seal", due: guard::due, limit: none, on_failure: end, run: guard::seal },
    Phase { name: "disk", due: disk::due, limit: |_| secs(disk::LIMIT), on_failure: disk::on_failure, run: disk::run },
    Phase { name: "work", due: always, limit: none, on_failure: end, run: work::run },
];

/// Puts a phase into the report, on the console and into the log.
pub fn record(agent: &mut Agent, phase: PhaseReport) {
    let Details { scripts, changes } = std::mem::take(&mut agent.details);
    let phase = PhaseReport { scripts, changes, ..phase };
    let PhaseReport { name, millis, outcome, note, .. } = &phase;
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    match *outcome {
        "failed" => log::error!("phase {name}: {outcome}, {millis} ms{note}"),
        _ => log::info!("phase {name}: {outcome}, {millis} ms{note}"),
    }
    agent.report.phases.push(phase);
    logger::save_report(agent);
}

fn secs(secs: u32) -> Option<Duration> {
    Some(Duration::from_secs(secs.into()))
}

/// It waits for nobody, or bounds each of its steps.
fn none(_: &Agent) -> Option<Duration> {
    None
}

fn always(_: &Agent) -> Due {
    Due::Run(ALWAYS.to_owned())
}

fn end(_: &Agent) -> OnFailure {
    OnFailure::Stop
}

fn go_on(_: &Agent) -> OnFailure {
    OnFailure::Continue
}
