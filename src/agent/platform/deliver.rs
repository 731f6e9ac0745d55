//! The agent's side of the outputs: what jobs leave as they end, logs when the machine does, and its last word.

use std::time::Duration;

use super::super::Agent;
use super::super::events::DYING;
use super::pilot;
use super::roles::{Role, start_writer};
use super::words::{FromWriter, ToWriter};
use super::{Platform, attend};
use crate::clock::Deadline;
use crate::logging;
use crate::mjf::place::Place;
use crate::payload::Job;
use crate::payload::given::Outputs;
use crate::verdict::Verdict;

/// For one file: 8 MiB at 4 Mbit a second.
const FILE: Duration = Duration::from_secs(20);
/// For all files that are on their way when the machine ends.
const LOGS: Duration = Duration::from_secs(30);
/// For the last word: a host that restarts its own server needs a second or two.
const MESSAGE: Duration = Duration::from_secs(20);
/// Between two tries of that.
const AGAIN: Duration = Duration::from_secs(3);
/// All of [`last_word`] at most; the reader is buried once, and writers twice when their time is over already.
pub const LAST_WORD: Duration = LOGS.saturating_add(MESSAGE).saturating_add(DYING.saturating_mul(4));
/// Bytes that wait for a writer; what comes beyond is left out, as all of it is in the agent's memory.
const MOST_WAITING: usize = 16 * 1024 * 1024;

/// Hands a file to the writer, if there is one. Never waits.
pub fn put(platform: &mut Platform, name: &str, content: &[u8]) {
    put_within(platform, name, content, FILE);
}

fn put_within(platform: &mut Platform, name: &str, content: &[u8], limit: Duration) {
    let Some(writer) = &mut platform.writer else { return };
    if writer.channel.backlog() + content.len() > MOST_WAITING {
        return log::warn!("outputs: {name} is left out, as the site's server is too slow");
    }
    let message = ToWriter::Put { name: name.to_owned(), millis: limit.as_millis() as u32 };
    match writer.channel.send(&message, content) {
        Ok(()) => platform.on_the_way.push(name.to_owned()),
        Err(error) => log::warn!("outputs: {name}: {error}"),
    }
}

/// Takes in what became of files. Returns the last one's fate: whether it arrived, and whether it was refused.
pub(super) fn hear_writer(platform: &mut Platform) -> Option<Fate> {
    let mut last = None;
    loop {
        match platform.writer.as_mut().map(Role::heard::<FromWriter>) {
            Some(Ok(Some(FromWriter::Done { name, why, refused }))) => {
                platform.on_the_way.retain(|each| *each != name);
                last = Some(match (why, refused) {
                    (None, _) => Fate::Arrived,
                    (Some(why), refused) => {
                        log::warn!("outputs: {}", crate::text::printable(&why));
                        if refused { Fate::Refused } else { Fate::Failed }
                    }
                });
            }
            Some(Ok(None)) => return last,
            Some(Err(_)) | None => {
                for name in platform.on_the_way.drain(..) {
                    log::warn!("outputs: nobody knows whether {name} arrived");
                }
                return last;
            }
        }
    }
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrived,
    /// It may arrive later.
    Failed,
    /// The site does not want it.
    Refused,
}

/// Sends what an ended job has left for the site, and its output.
pub fn job_ended(platform: &mut Platform, job: &Job, output: &[u8]) {
    if platform.site.joboutputs.is_none() {
        return;
    }
    if !output.is_empty() {
        put(platform, &format!("{}.log", job.name), output);
    }
    match job.outputs() {
        Ok(Outputs { files, left_out }) => {
            for (name, content) in files {
                put(platform, &format!("{}.{name}", job.name), &content);
            }
            for line in left_out {
                log::warn!("{}: joboutputs: {line}; it is left out", job.name);
            }
        }
        Err(error) => log::warn!("{}: joboutputs: {error}", job.name),
    }
}

/// What an ended pilot has said about its end: in its outputs, or where it began. Of two that count, the one that
/// [`pilot::combine`] prefers. None of a job that is no pilot.
pub fn pilot_message(platform: &Platform, job: &Job) -> Option<Verdict> {
    platform.pilot.as_ref()?;
    let mut said = Vec::new();
    let in_home = job.left(pilot::FILE, pilot::LONGEST).map_err(|error| error.to_string());
    let in_outputs = job.output(pilot::FILE, pilot::LONGEST).map_err(|error| format!("joboutputs: {error}"));
    for found in [in_home, in_outputs] {
        match found {
            Ok(content) if content.is_empty() => {}
            Ok(content) => match pilot::message(&content) {
                Ok(verdict) => said.push(verdict),
                Err(why) => log::warn!("{}: {why}; it does not count", job.name),
            },
            Err(error) => log::warn!("{}: {error}; it does not count", job.name),
        }
    }
    pilot::combine(&said).cloned()
}

/// Whether outputs lie in a mount, which the prolog's `stop` may take away.
pub fn is_mounted(agent: &Agent) -> bool {
    matches!(agent.platform.site.joboutputs, Some(Place::Directory(_)))
}

/// Sends logs and, as the very last file, why the machine ends. Takes [`LAST_WORD`] at most; nothing is written after it.
pub fn last_word(agent: &mut Agent, verdict: &Verdict) {
    attend(agent);
    if let Some(reader) = agent.platform.reader.take() {
        agent.events.bury(&reader.child);
    }
    if agent.platform.site.joboutputs.is_none() {
        return;
    }
    if agent.platform.writer.is_none() {
        another_writer(agent);
    }
    let report = agent.report.json().unwrap_or_default();
    put(&mut agent.platform, "report.json", &report);
    put(&mut agent.platform, "console.log", logging::recent().as_bytes());
    wait(agent, Deadline::after(LOGS));
    if !agent.platform.on_the_way.is_empty() {
        log::warn!("outputs: {} did not arrive in time", agent.platform.on_the_way.join(", "));
        agent.platform.on_the_way.clear();
        another_writer(agent);
    }
    say(agent, verdict);
    if let Some(writer) = agent.platform.writer.take() {
        agent.events.bury(&writer.child);
    }
}

/// One that has nothing else to do.
fn another_writer(agent: &mut Agent) {
    if let Some(writer) = agent.platform.writer.take() {
        agent.events.bury(&writer.child);
    }
    agent.platform.site.heartbeat = None;
    start_writer(agent);
}

/// The message, again and again while it may still arrive.
fn say(agent: &mut Agent, verdict: &Verdict) {
    let deadline = Deadline::after(MESSAGE);
    // Without a line end: the agreed form, and Vac shows the file as it is.
    let text = verdict.to_string();
    while !deadline.passed() {
        put_within(&mut agent.platform, pilot::FILE, text.as_bytes(), deadline.left());
        match wait(agent, deadline) {
            Some(Fate::Arrived) => return log::info!("outputs: {} is at the site", pilot::FILE),
            Some(Fate::Refused) => return,
            Some(Fate::Failed) => drop(agent.events.wait_through(&[], deadline.min(Deadline::after(AGAIN)))),
            // The writer died over it: nothing is on its way any more, and the time is not over.
            None if agent.platform.on_the_way.is_empty() => {
                agent.events.wait_through(&[], deadline.min(Deadline::after(AGAIN)));
                another_writer(agent);
            }
            None => return,
        }
    }
}

/// Waits until nothing is on its way any more. Returns what became of the last file.
fn wait(agent: &mut Agent, deadline: Deadline) -> Option<Fate> {
    let mut last = None;
    loop {
        last = hear_writer(&mut agent.platform).or(last);
        let Platform { writer, on_the_way, .. } = &agent.platform;
        let Some(writer) = writer.as_ref().filter(|_| !on_the_way.is_empty()) else { return last };
        let source = (std::os::fd::AsFd::as_fd(&writer.channel), writer.channel.interest());
        if !agent.events.wait_through(&[source], deadline) {
            return last;
        }
    }
}
