//! The two roles: started when they are due, and again some time after one has died.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::super::Agent;
use super::super::roles;
use super::{Platform, reader, writer};
use crate::clock::Deadline;
use crate::ids;
use crate::mjf::place::Place;
use crate::protocol::channel::Channel;
use crate::sys::process::Child;

/// Before another role after one that died.
const RESTART: Duration = Duration::from_secs(30);

/// A role and the line to it.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) child: Child,
    pub(super) channel: Channel,
}

impl Role {
    /// What it has said; an error once it is gone.
    pub(super) fn heard<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        Ok(self.channel.try_recv::<T>()?.map(|(message, _)| message))
    }
}

/// Starts the roles that are due and not there.
pub(super) fn keep_roles(agent: &mut Agent) {
    let Platform { site, reader, writer, restart, .. } = &agent.platform;
    if restart.is_some_and(|restart| !restart.passed()) {
        return;
    }
    let reads = site.machinefeatures.is_some() || site.jobfeatures.is_some() || site.metadata;
    let (reader_due, writer_due) = (reads && reader.is_none(), writer.is_none());
    if reader_due {
        start_reader(agent);
    }
    if writer_due {
        start_writer(agent);
    }
}

fn start_reader(agent: &mut Agent) {
    let Platform { site, trust, .. } = &agent.platform;
    let config = reader::Config {
        machine: site.machinefeatures.clone(),
        job: site.jobfeatures.clone(),
        has_outputs: site.joboutputs.is_some(),
        metadata: site.metadata,
        trust: trust.clone(),
    };
    agent.platform.reader = start_role(agent, "features", Some(ids::PLATFORM), |line| reader::run(config, line));
}

/// If there is a place to write to.
pub(super) fn start_writer(agent: &mut Agent) {
    let Platform { site, trust, .. } = &agent.platform;
    let Some(place) = site.joboutputs.clone() else { return };
    // Who may write there is the site's own matter, and it made the mount as root.
    let user = matches!(place, Place::Url(_)).then_some(ids::PLATFORM);
    let config = writer::Config { place, heartbeat: site.heartbeat.clone(), trust: trust.clone() };
    agent.platform.writer = start_role(agent, "outputs", user, |line| writer::run(config, line));
}

/// `user` is none for one that stays root.
fn start_role(agent: &mut Agent, name: &str, user: Option<u32>, body: impl FnOnce(Channel) -> i32) -> Option<Role> {
    let started = Channel::pair().and_then(|(ours, theirs)| {
        let keep = [roles::fd(&theirs)];
        let body = || body(theirs);
        let child = match user {
            Some(uid) => roles::start(&mut agent.events, name, uid, &keep, body),
            None => roles::start_as_root(&mut agent.events, name, &keep, body),
        }?;
        Ok(Role { child, channel: ours })
    });
    started.inspect_err(|error| log::error!("{name}: {error}")).ok()
}

/// Forgets those that have died.
pub(super) fn bury_roles(platform: &mut Platform) {
    let Platform { reader, writer, restart, .. } = platform;
    for role in [reader, writer] {
        let ended = role.as_ref().and_then(|role| role.child.try_wait().ok().flatten());
        if let Some(exit) = ended {
            log::error!("a role of the platform ended: {exit}");
            *role = None;
            *restart = Some(Deadline::after(RESTART));
        }
    }
}
