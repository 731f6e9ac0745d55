//! Audit records: what a site needs to name the owner of any past job from its own log alone.
//!
//! Each kind has a MSGID of its own, its facts stand in structured data (RFC 5424, 6.3) as well as in the text, and the
//! facility is 13, log audit, which no program in the machine can write to: nobody but ctxinit makes such a record.
//! Beginnings have an end with the same `job` or `script`; `vm-stop` counts both, so that one that is missing shows.
//!
//! | MSGID | when | structured data |
//! |---|---|---|
//! | `vm-start` | the log begins | image, version, endorser, ctxinit, binary, vm, boot |
//! | `context` | the CD was read | device, volume, sha256, signature, signer; a `file` record for each script |
//! | `script-start`, `script-end` | around each script | script, action, pid; end, millis |
//! | `ban-list` | a list is taken, or was not fetched | source, sha256, rules, error |
//! | `work-request` | the answer to a claim is another than before | outcome, times, token |
//! | `authz` | before each job | token, owner, groups, decision, list, sha256 |
//! | `job-start` | its program is about to run | token, owner, groups, pool, uid, cgroup, keeper, command |
//! | `job-end` | nothing of it is left, or it never was | token, reason, subcode, end, millis, what it used |
//! | `settled` | the token is out of our hands | token, fate, bytes, note |
//! | `log-restart` | the logger died, and another goes on | end, restarts |
//! | `vm-stop` | the machine ends | verdict, text, jobs, ended, refused, scripts, scripts-ended |

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ring::digest::{Context, SHA256};

use super::report::Report;
use crate::ban::Version;
use crate::ban::judge::Decision;
use crate::ban::owner::Owner;
use crate::ban::parse::List;
use crate::context::medium::Medium;
use crate::image::policy::Identity;
use crate::logging;
use crate::payload::outcome::Outcome;
use crate::protocol::{Fate, FromWorker, Record, Token};
use crate::text::count;
use crate::verdict::Verdict;

/// RFC 5424's "notice": normal, and worth keeping.
const NOTICE: u8 = 5;

/// Of one value, characters: the channel to the logger takes no message of any size.
const LONGEST: usize = 2048;

/// Beginnings and ends so far. The agent has one thread; its children count for themselves and tell nobody.
static JOBS: AtomicU32 = AtomicU32::new(0);
static JOBS_ENDED: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);
static SCRIPTS: AtomicU32 = AtomicU32::new(0);
static SCRIPTS_ENDED: AtomicU32 = AtomicU32::new(0);

/// A record in the making.
struct Entry {
    id: &'static str,
    data: Vec<(String, String)>,
    job: Option<String>,
}

impl Entry {
    fn new(id: &'static str) -> Self {
        Self { id, data: Vec::new(), job: None }
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.data.push((name.to_owned(), value.to_string().chars().take(LONGEST).collect()));
        self
    }

    /// What is not known is left out.
    fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn of_job(mut self, name: &str) -> Self {
        self.job = Some(name.to_owned());
        self
    }

    fn owner(self, owner: &Owner) -> Self {
        let entry = self.with("owner", owner);
        match owner {
            Owner::Known(identity) if identity.dn.is_some() && !identity.groups.is_empty() => {
                entry.with("groups", identity.groups_text())
            }
            _ => entry,
        }
    }

    /// On the console other lines say as much as people want there.
    fn log(self, text: String) {
        let Self { id, data, job } = self;
        let pid = Some(std::process::id());
        let record = Record { pid, job, msgid: Some(id.to_owned()), data, ..Record::now(NOTICE, "ctxinit", text) };
        logging::forward(record, false);
    }
}

/// The machine: its image, and what runs in it.
pub fn vm_start(image: &Identity, vm: &str, boot: &str) {
    let Identity { uuid, version, endorser } = image;
    let binary = own_hash().map_err(|error| log::warn!("/proc/self/exe: {error}")).ok();
    Entry::new("vm-start")
        .with("image", uuid)
        .with("version", version)
        .with_some("endorser", endorser.as_ref())
        .with("ctxinit", env!("CARGO_PKG_VERSION"))
        .with_some("binary", binary)
        .with("vm", vm)
        .with("boot", boot)
        .log(format!("machine {vm}, boot {boot}: image {uuid} version {version}"));
}

/// SHA-256 of the running program: 3 MB, a few milliseconds.
fn own_hash() -> io::Result<String> {
    let mut program = File::open("/proc/self/exe")?;
    let mut hash = Context::new(&SHA256);
    let mut chunk = [0; 64 * 1024];
    loop {
        match program.read(&mut chunk)? {
            0 => return Ok(hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(chunk.get(..count).unwrap_or_default()),
        }
    }
}

/// The CD that was read, and what of it will run.
pub fn context(medium: &Medium) {
    let Medium { device, volume, sha256, signature, .. } = medium;
    Entry::new("context")
        .with("device", device)
        .with("volume", volume)
        .with("sha256", sha256)
        .with("signature", signature.state)
        .with_some("signer", signature.signer.as_ref())
        .log(format!("context CD {medium}, {signature}"));
    for (path, sha256) in &medium.scripts {
        Entry::new("context").with("file", path).with("sha256", sha256).log(format!("context CD: {path} {sha256}"));
    }
}

/// A script begins.
pub fn script_start(script: &str, action: &str, pid: i32) {
    SCRIPTS.fetch_add(1, Relaxed);
    Entry::new("script-start")
        .with("script", script)
        .with("action", action)
        .with("pid", pid)
        .log(format!("{script} {action}: started, process {pid}"));
}

/// It is over.
pub fn script_end(script: &str, action: &str, end: &str, millis: u64) {
    SCRIPTS_ENDED.fetch_add(1, Relaxed);
    Entry::new("script-end")
        .with("script", script)
        .with("action", action)
        .with("end", end)
        .with("millis", millis)
        .log(format!("{script} {action}: {end}, {millis} ms"));
}

/// Another ban list decides from now on.
pub fn ban_list(list: &List, version: &Version) {
    let rules = list.rules().len();
    let Version { source, sha256 } = version;
    log::info!("bans: {}, {} from {source}", version.brief(), count(rules as u64, "rule"));
    Entry::new("ban-list").with("source", source).with("sha256", sha256).with("rules", rules).log(format!(
        "ban list {} from {source}: {}",
        version.brief(),
        count(rules as u64, "rule")
    ));
}

/// It could not be fetched.
pub fn ban_list_fault(source: &str, why: &str) {
    Entry::new("ban-list")
        .with("source", source)
        .with("error", why)
        .log(format!("ban list from {source}: not fetched: {why}"));
}

/// Answers to claims: one record when they change, as an idle machine asks for hours.
#[derive(Debug, Default)]
pub struct Claims {
    outcome: &'static str,
    times: u64,
}

impl Claims {
    /// The work source has answered.
    pub fn answered(&mut self, answer: &FromWorker) {
        let (outcome, token, why) = match answer {
            FromWorker::Claimed(token) => ("token", Some(token.id.as_str()), None),
            FromWorker::NoWork => ("none", None, None),
            FromWorker::Refused { why, .. } => ("refused", None, Some(why)),
            FromWorker::Fault { why } => ("fault", None, Some(why)),
            _ => return,
        };
        self.times += 1;
        // Each token is named; what brings none is named once.
        if token.is_none() && outcome == self.outcome {
            return;
        }
        let before = (self.outcome != outcome && self.times > 1).then_some(self.times - 1);
        let more = before.map(|times| format!(", after {}", count(times, "claim"))).unwrap_or_default();
        let what = token.map_or_else(|| outcome.to_owned(), |id| format!("token {id}"));
        Entry::new("work-request")
            .with("outcome", outcome)
            .with_some("token", token)
            .with_some("why", why)
            .with_some("claims-before", before)
            .log(format!("work request: {what}{more}"));
        *self = Self { outcome, times: 0 };
    }
}

/// Whether a token's owner may work here, and by which list.
pub fn authz(token: &Token, decision: &Decision, list: Option<&Version>) {
    if !decision.is_allowed() {
        REFUSED.fetch_add(1, Relaxed);
    }
    let (id, owner) = (&token.id, &token.owner);
    let by = list.map_or_else(|| "no ban list".to_owned(), |list| format!("list {} of {}", list.brief(), list.source));
    Entry::new("authz")
        .with("token", id)
        .owner(owner)
        .with("decision", decision)
        .with("list", list.map_or("none", |list| &list.source))
        .with_some("sha256", list.map(|list| &list.sha256))
        .log(format!("token {id} of {owner}: {decision} ({by})"));
}

/// What a job is, for both of its records.
pub struct JobFacts<'a> {
    /// `job-1`.
    pub name: &'a str,
    /// Its user.
    pub uid: u32,
    /// Its first process, ctxinit's own.
    pub keeper: u32,
    /// Where its token came from.
    pub pool: &'a str,
    /// Program and arguments.
    pub command: &'a [String],
}

/// A job begins.
pub fn job_start(token: &Token, job: &JobFacts<'_>) {
    JOBS.fetch_add(1, Relaxed);
    let JobFacts { name, uid, keeper, pool, command } = job;
    let Token { id, owner, .. } = token;
    Entry::new("job-start")
        .of_job(name)
        .with("token", id)
        .owner(owner)
        .with("pool", pool)
        .with("uid", uid)
        .with("cgroup", name)
        .with("keeper", keeper)
        .with("command", command.join(" "))
        .log(format!("{name} started: token {id} of {owner}, uid {uid}, keeper {keeper}"));
}

/// It is over; a job that never began has no name, and its beginning is not counted.
pub fn job_end(token: &Token, name: Option<&str>, outcome: &Outcome, remains: Option<&str>) {
    let Outcome { end, wall_millis, usage, left_behind, .. } = outcome;
    let coded = end.coded();
    let mut entry = Entry::new("job-end");
    if let Some(name) = name {
        JOBS_ENDED.fetch_add(1, Relaxed);
        entry = entry.of_job(name);
    }
    entry
        .with("token", &token.id)
        .owner(&token.owner)
        .with("reason", coded.code)
        .with_some("subcode", coded.subcode)
        .with("end", end)
        .with("millis", wall_millis)
        .with_some("cpu-millis", usage.cpu_millis)
        .with_some("memory-kib", usage.memory_kib)
        .with_some("oom-kills", usage.oom_kills)
        .with_some("written-bytes", usage.disk_written_bytes)
        .with_some("scratch-bytes", usage.scratch_bytes)
        .with("left-behind", left_behind)
        .with_some("remains", remains)
        .log(format!("{} ended: token {}, {end} ({coded}), {wall_millis} ms", name.unwrap_or("no job"), token.id));
}

/// A token is out of our hands.
pub fn settled(token: &Token, job: Option<&str>, fate: Fate, bytes: u64, note: &str) {
    let fate = format!("{fate:?}").to_lowercase();
    let entry = Entry::new("settled");
    let entry = if let Some(job) = job { entry.of_job(job) } else { entry };
    entry.with("token", &token.id).with("fate", &fate).with("bytes", bytes).with("note", note).log(format!(
        "token {} {fate}, result {}: {note}",
        token.id,
        count(bytes, "byte")
    ));
}

/// Another logger goes on where the last one died.
pub fn log_restart(end: &str, restarts: u64) {
    Entry::new("log-restart")
        .with("end", end)
        .with("restarts", restarts)
        .log(format!("the logger died: {end}; another goes on"));
}

/// The machine ends.
pub fn vm_stop(verdict: &Verdict, report: &Report) {
    let [jobs, ended, refused, scripts, scripts_ended] =
        [&JOBS, &JOBS_ENDED, &REFUSED, &SCRIPTS, &SCRIPTS_ENDED].map(|number| number.load(Relaxed));
    Entry::new("vm-stop")
        .with("verdict", verdict.code)
        .with("text", &verdict.text)
        .with("boot", &report.boot_id)
        .with("jobs", jobs)
        .with("jobs-ended", ended)
        .with("refused", refused)
        .with("scripts", scripts)
        .with("scripts-ended", scripts_ended)
        .log(format!("machine ends: {verdict}; {jobs} jobs started, {ended} ended, {refused} refused"));
}
