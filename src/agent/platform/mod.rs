//! What the site says about this machine's time, and what it hears of the machine: Machine/Job Features, outputs,
//! heartbeats, and the last word.
//!
//! Two roles do it, each a process of its own: [`reader`] reads features, [`writer`] writes outputs. Either may hang in a
//! mount of the site's, and nobody waits for that. The writer is root's only where the outputs are a directory, which is
//! then the site's own: it parses nothing. The agent keeps what was read last, and counts from that.

pub mod deliver;
mod metadata;
pub mod pilot;
mod reader;
mod roles;
mod shelf;
#[cfg(test)]
mod tests;
mod words;
mod writer;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::poll::PollFlags;
use nix::time::{ClockId, clock_gettime};

use super::Agent;
use super::network;
use super::runner::{Done, Due, Fault, site_fault};
use crate::clock::Deadline;
use crate::context::exec::Exec;
use crate::context::medium::COPY;
use crate::context::mjf::Mjf;
use crate::context::site::{CdPath, Work};
use crate::image::payload::Payload;
use crate::mjf::deadline::{Cause, End, LOCAL_FILE, Times};
use crate::mjf::given::Features;
use crate::mjf::keys::{self, DYNAMIC, Key, Value};
use crate::mjf::place::Place;
use crate::payload::given::{self, Given, JobEnd};
use crate::payload::outcome::Outcome;
use crate::payload::result;
use crate::verdict::Verdict;
use roles::{Role, bury_roles, keep_roles};
use shelf::Trust;
use words::{FromReader, ToReader};

/// Before the first job, for a first word from the site: a few short files of a neighbour.
const FIRST: Duration = Duration::from_secs(20);
/// Of [`LOCAL_FILE`]: a number.
const LOCAL_LONGEST: usize = 64;

/// All that is known of it.
#[derive(Debug, Default)]
pub struct Platform {
    site: Mjf,
    trust: Trust,
    reader: Option<Role>,
    writer: Option<Role>,
    /// No role is started before.
    restart: Option<Deadline>,
    /// By the names of the keys, as they were read last.
    said: HashMap<String, Value>,
    times: Option<Times>,
    /// The end that was told last.
    told: Option<End>,
    /// Whether a round brought values, and why the last one did not.
    read: bool,
    missed: Option<String>,
    /// What was given to the writer and not answered yet.
    on_the_way: Vec<String>,
    /// Jobs at a time; 0 before the first.
    slots: u32,
    /// What a pilot is given by the site, where the work is one.
    pilot: Option<Pilot>,
    /// The results of pilots that are over.
    pilots: Vec<Verdict>,
}

/// See [`take_pilot`].
#[derive(Debug)]
struct Pilot {
    exec: Exec,
    proxy: Option<Vec<u8>>,
}

/// Whether there is anything to read or write.
pub fn due(agent: &Agent) -> Due {
    let named = agent.site.mjf.places().into_iter().filter(|(_, place)| place.is_some()).map(|(key, _)| key);
    let metadata = agent.site.mjf.metadata.then_some("mjf.metadata");
    match named.chain(metadata).collect::<Vec<_>>() {
        keys if keys.is_empty() => Due::Skip("the context names neither features nor outputs".to_owned()),
        keys => Due::Run(format!("the context has {}", keys.join(", "))),
    }
}

/// Starts both roles: the first heartbeat comes before the slow part of the set-up. Waits for nobody.
pub fn start(agent: &mut Agent, _: Deadline) -> Result<Done, Fault> {
    let read = |file: &String| {
        fs::read(format!("{COPY}/{file}")).map_err(|error| site_fault(format!("{file} on the context CD: {error}")))
    };
    let site = agent.site.mjf.clone();
    let ca = site.ca.as_ref().map(read).transpose()?;
    let own = match (&site.certificate, &site.key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    let trust = Trust { ca, own };
    for (key, place) in site.places() {
        // The role could only say so again and again: here it is the site that hears of it.
        if let Some(place) = place {
            shelf::Shelf::new(place.clone(), &trust).map_err(|error| site_fault(format!("{key}: {error}")))?;
        }
    }
    agent.platform.site = site;
    agent.platform.trust = trust;
    keep_roles(agent);
    Ok(Done::Next(String::new()))
}

/// Takes in what the roles have said, and looks at the clock. Never waits.
pub fn attend(agent: &mut Agent) {
    agent.platform.hear_reader();
    deliver::hear_writer(&mut agent.platform);
    agent.platform.look();
    bury_roles(&mut agent.platform);
    keep_roles(agent);
}

/// Before the first job: has the features read again, as scripts may have mounted them by now, and waits for what comes of
/// that, but not for long.
///
/// # Errors
/// A wish to end.
pub fn ready(agent: &mut Agent) -> Result<(), Fault> {
    let Some(reader) = &mut agent.platform.reader else {
        attend(agent);
        return Ok(());
    };
    if !agent.platform.read {
        let _ = reader.channel.send(&ToReader::Now, b"");
    }
    let deadline = Deadline::after(FIRST);
    loop {
        attend(agent);
        let Some(reader) = agent.platform.reader.as_ref().filter(|_| !agent.platform.read) else { return Ok(()) };
        if !agent.events.wait(&[(reader.channel.as_fd(), reader.channel.interest())], deadline)? {
            log::warn!("features: nothing was read in {} s; jobs start without", FIRST.as_secs());
            return Ok(());
        }
    }
}

impl Platform {
    /// For a wait: what wakes it when a role speaks.
    pub fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let roles = self.reader.iter().chain(&self.writer);
        roles.map(|role| (role.channel.as_fd(), role.channel.interest())).collect()
    }

    fn hear_reader(&mut self) {
        while let Some(Ok(Some(message))) = self.reader.as_mut().map(Role::heard::<FromReader>) {
            match message {
                FromReader::Outputs(place) => self.outputs_named(place),
                FromReader::Read(values) => self.take(values),
                FromReader::Missed(why) => {
                    // Once, and not each minute; what was read before still counts.
                    if self.missed.is_none() {
                        log::warn!("features: {why}");
                    }
                    self.missed = Some(why);
                }
            }
        }
    }

    /// The reader has it from the network, and in a directory it is root that writes: that only the context may name.
    fn outputs_named(&mut self, place: Place) {
        match place {
            Place::Directory(path) => {
                log::warn!(
                    "outputs: {path}, by the cloud's metadata, is left out: a directory is the context's to name"
                );
            }
            place if self.site.metadata => {
                log::info!("outputs: {place}, by the cloud's metadata");
                self.site.joboutputs.get_or_insert(place);
            }
            Place::Url(_) => log::warn!("outputs: {place} was not asked for"),
        }
    }

    fn take(&mut self, values: Vec<(String, Value)>) {
        if self.missed.take().is_some() {
            log::info!("features: they are read again");
        }
        self.read = true;
        for (name, value) in values {
            let known = self.said.get(&name);
            if let Value::Odd(why) = &value
                && known != Some(&value)
            {
                log::warn!("features: {}", crate::text::printable(why));
            }
            // What is odd says nothing new, and what never changes is never unsaid: the old value is still to be found here.
            let dynamic = DYNAMIC.iter().any(|key| key.name == name);
            let says_nothing = matches!(value, Value::Odd(_)) || (!dynamic && value.good().is_none());
            if !(says_nothing && known.is_some_and(|known| known.good().is_some())) {
                self.said.insert(name, value);
            }
        }
    }

    /// What the site says of a key.
    fn said(&self, key: &Key) -> Value {
        self.said.get(key.name).cloned().unwrap_or(Value::Absent)
    }

    /// Reckons when the machine ends, and tells if that has changed.
    fn look(&mut self) {
        let local = match result::take(LOCAL_FILE, LOCAL_LONGEST) {
            Ok(content) => keys::SHUTDOWNTIME.read(&content),
            Err(error) => Value::Odd(error.to_string()),
        };
        let start = vm_start();
        let (machine, job) = (self.said(&keys::SHUTDOWNTIME), self.said(&keys::SHUTDOWNTIME_JOB));
        let (jobstart, wall) = (self.said(&keys::JOBSTART_SECS).number(), self.said(&keys::WALL_LIMIT_SECS).number());
        let times = self.times.get_or_insert_with(|| Times::of_machine_since(start));
        times.started(start);
        times.hear(Cause::Machine, &machine);
        times.hear(Cause::Job, &job);
        times.hear(Cause::Local, &local);
        times.wall(jobstart, wall);
        let end = times.end();
        if end != self.told {
            match end {
                Some(End { at, cause }) => {
                    log::info!("the machine's time is over in {} s, by {cause}", at.saturating_sub(unix_now()));
                }
                None => log::info!("the machine's time has no end any more"),
            }
            self.told = end;
        }
    }

    /// How long it is until the machine's time is over, and who says so.
    pub fn left(&self) -> Option<(Duration, Cause)> {
        self.told.map(|end| (Duration::from_secs(end.at.saturating_sub(unix_now())), end.cause))
    }

    /// The same as its jobs hear it.
    pub fn job_end(&self) -> JobEnd {
        let machine = self.times.as_ref().and_then(Times::machine_end);
        JobEnd { machine, job: self.told.map(|end| end.at) }
    }

    /// From now on so many jobs run at once, and share the processors.
    pub fn jobs_at_once(&mut self, count: u32) {
        self.slots = count;
    }

    /// Whether the work is a pilot.
    pub fn has_pilot(&self) -> bool {
        self.pilot.is_some()
    }

    /// The features of a job that starts now.
    fn features(&self, policy: &Payload, job_id: String) -> Features {
        let left = self.left().map(|(left, _)| left.as_secs());
        let facts = given::facts(policy, u64::from(self.slots), job_id, left);
        Features::of(&facts, |key| self.said(key))
    }
}

/// The site's name for this machine, else the hypervisor's.
pub fn machine_id(agent: &Agent) -> String {
    let said = agent.platform.said(&keys::JOB_ID);
    said.good().map_or_else(|| network::machine_uuid(&agent.report.boot_id), str::to_owned)
}

/// Keeps what a pilot is given of the CD, before its secrets are removed.
///
/// # Errors
/// A file that cannot be read; names it.
pub fn take_pilot(agent: &mut Agent, work: Option<&Work>) -> Result<(), String> {
    let Some(Work::Exec(exec)) = work else { return Ok(()) };
    let read = |file: &CdPath| {
        fs::read(format!("{COPY}/{file}")).map_err(|error| format!("{file} on the context CD: {error}"))
    };
    let proxy = exec.proxy.as_ref().map(read).transpose()?;
    agent.platform.pilot = Some(Pilot { exec: exec.clone(), proxy });
    Ok(())
}

/// What a job gets that starts now, by its number from 0.
pub fn given(agent: &Agent, number: u32) -> Given {
    let id = machine_id(agent);
    let features = |job_id| agent.platform.features(&agent.policy.payload, job_id);
    let site = agent.features.clone();
    let end = agent.platform.job_end();
    match &agent.platform.pilot {
        None => {
            let features = features(format!("{id}:job-{}", number + 1));
            Given { variables: site, features, end, pilot: None, proxy: None }
        }
        // To its framework the pilot is the machine.
        Some(pilot) => {
            let hostname = agent.report.hostname.as_deref().unwrap_or("localhost");
            let own = pilot.exec.variables(hostname, &id);
            // The pilot's own setting of the clock's zone counts more.
            let site = site.into_iter().filter(|(name, _)| own.iter().all(|(own, _)| own != name));
            let variables = site.chain(own.iter().cloned()).collect();
            Given { variables, features: features(id.clone()), end, pilot: Some(id), proxy: pilot.proxy.clone() }
        }
    }
}

/// What a pilot's end means for its machine; `message` is what it has said about that itself
/// ([`deliver::pilot_message`]). Of several pilots the worst counts. None of a job on a token.
pub fn pilot_ended(agent: &mut Agent, outcome: &Outcome, message: Option<Verdict>) -> Option<Verdict> {
    let Platform { pilot, pilots, .. } = &mut agent.platform;
    let fizzle_secs = pilot.as_ref()?.exec.fizzle_secs;
    pilots.push(pilot::Pilot { end: &outcome.end, millis: outcome.wall_millis, fizzle_secs, message }.verdict());
    pilot::combine(pilots).cloned()
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Unix seconds, as the clock shows now.
fn vm_start() -> u64 {
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| time.tv_sec().max(0) as u64);
    unix_now().saturating_sub(up)
}
