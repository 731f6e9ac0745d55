//! The firewall: made before the first link is up, looked at before each job.
//!
//! A site's scripts may have tables of their own. One that takes ours away, as `flush ruleset` at the head of many an
//! nftables.conf does, opens the machine: then no job starts here any more.

use std::net::IpAddr;

use super::Agent;
use super::boot;
use super::runner::{Done, Due, Fault, machine_fault, site_fault};
use crate::clock::Deadline;
use crate::ids;
use crate::image::policy;
use crate::network::firewall::rules::Ruleset;
use crate::network::firewall::{self, FirewallError, Installed, MODULES};
use crate::network::names;

/// What is in force.
pub struct Firewall {
    installed: Installed,
    /// Whom payloads may ask for names by it.
    nameservers: Vec<IpAddr>,
}

/// Unless the image does without.
pub fn due(agent: &Agent) -> Due {
    match agent.policy.network.firewall {
        policy::Firewall::Require => Due::Run("the image requires a firewall".to_owned()),
        policy::Firewall::Off => Due::Skip("the image wants no firewall".to_owned()),
    }
}

/// Makes it. The name servers that the network brings are added when they are known.
pub fn close(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    for module in MODULES {
        boot::load_module(agent, module);
    }
    install(agent, names::own_nameservers()).map_err(|error| match error {
        FirewallError::Missing(_) | FirewallError::Refused { .. } => {
            let path = policy::PATH;
            site_fault(format!("firewall: {error}; network.firewall \"off\" in {path} would go on without"))
        }
        FirewallError::Gone | FirewallError::Changed => machine_fault(format!("firewall: {error}")),
    })?;
    let network = &agent.policy.payload.network;
    Ok(Done::Next(firewall::words(network, &agent.site.firewall.inbound)))
}

/// Makes sure that the rules are as they were made, and follows the machine's name servers.
///
/// # Errors
/// They are not, and nothing was done about it: who opened the machine once does it again.
pub fn keep(agent: &mut Agent) -> Result<(), FirewallError> {
    let Some(firewall) = &mut agent.firewall else { return Ok(()) };
    firewall.installed.check()?;
    let nameservers = names::own_nameservers();
    if firewall.nameservers == nameservers { Ok(()) } else { install(agent, nameservers) }
}

fn install(agent: &mut Agent, nameservers: Vec<IpAddr>) -> Result<(), FirewallError> {
    let (network, inbound) = (&agent.policy.payload.network, &agent.site.firewall.inbound);
    let ruleset = Ruleset::of(network, &nameservers, inbound, &ids::PAYLOAD);
    let installed = firewall::install(&ruleset)?;
    agent.firewall = Some(Firewall { installed, nameservers });
    Ok(())
}
