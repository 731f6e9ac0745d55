//! What a check found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::machine::Machine;
use super::numbers::Gap;
use super::trail::{Job, Start, Stop};
use crate::status::words::duration;
use crate::text::{count, printable};

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const BOLD: &str = "\x1b[1m";
const OFF: &str = "\x1b[0m";

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything is there, and fits together.
    Complete,
    /// But for what the machine itself says it lost.
    Announced,
    /// Something is missing, not paired, or forged.
    Incomplete,
}

impl Verdict {
    /// The exit code for it.
    pub fn code(self) -> u8 {
        match self {
            Self::Complete => 0,
            Self::Incomplete => 3,
            Self::Announced => 4,
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Complete => GREEN,
            Self::Announced => YELLOW,
            Self::Incomplete => RED,
        }
    }
}

/// A line that is no record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Which file.
    pub file: String,
    /// Its line, from 1; of a captured stream its record.
    pub line: u64,
    /// Why.
    pub why: String,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The worst of all machines.
    pub verdict: Verdict,
    /// Different ones, of all machines.
    pub records: u64,
    /// Records of other senders.
    pub foreign: u64,
    /// Lines that are no records.
    pub unreadable: u64,
    /// The first of them.
    pub first_unreadable: Option<Unreadable>,
    /// A life of a machine each, in the order of their first records.
    pub machines: Vec<Found>,
}

/// Of one life of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// In one word.
    pub verdict: Verdict,
    /// Its UUID.
    pub vm: String,
    /// Which life of it.
    pub boot: String,
    /// Its name.
    pub host: String,
    /// `vm-start`.
    pub start: Option<Start>,
    /// `vm-stop`.
    pub stop: Option<Stop>,
    /// Different ones.
    pub records: u64,
    /// The highest number.
    pub last: u64,
    /// Numbers that are missing.
    pub missing: u64,
    /// Those of them that the machine itself says it dropped.
    pub announced: u64,
    /// Where they are missing.
    pub gaps: Vec<Gap>,
    /// What it says it dropped before it had a number, by source.
    pub dropped: BTreeMap<String, u64>,
    /// Records that came again, with the same text as far as is known.
    pub duplicates: u64,
    /// Times that the numbers went back.
    pub resends: u64,
    /// Records with the number of another one, and another text.
    pub conflicting: u64,
    /// Records behind later ones.
    pub late: u64,
    /// Records made while the clock was not known to be right.
    pub unsynced: u64,
    /// Times that the clock was set.
    pub clock_steps: u64,
    /// Times that the logger was started again.
    pub logger_restarts: u64,
    /// Starts and ends.
    pub scripts: [u64; 2],
    /// Each of them.
    pub jobs: Vec<Job>,
    /// Why it is incomplete, in words.
    pub problems: Vec<String>,
    /// What is good to know, in words.
    pub notes: Vec<String>,
}

impl From<Machine> for Found {
    fn from(machine: Machine) -> Self {
        let (problems, notes, gaps) = (machine.problems(), machine.notes(), machine.numbers.gaps());
        let verdict = match (problems.is_empty(), machine.announces()) {
            (true, false) => Verdict::Complete,
            (true, true) => Verdict::Announced,
            _ => Verdict::Incomplete,
        };
        let logger_restarts = machine.restarts();
        let Machine { vm, boot, host, numbers, trail, unsynced, clock_steps, dropped, .. } = machine;
        let (started, ended) = trail.scripts();
        Self {
            verdict,
            vm,
            boot,
            host,
            records: numbers.count,
            last: numbers.highest(),
            missing: gaps.iter().map(Gap::count).sum(),
            announced: gaps.iter().map(|gap| gap.announced).sum(),
            gaps,
            duplicates: numbers.again - numbers.conflicting,
            resends: numbers.resends,
            conflicting: numbers.conflicting,
            late: numbers.late,
            unsynced,
            clock_steps: clock_steps.len() as u64,
            logger_restarts,
            dropped,
            scripts: [started, ended],
            jobs: trail.jobs().collect(),
            start: trail.start,
            stop: trail.stop,
            problems,
            notes,
        }
    }
}

impl Findings {
    /// Of these machines; there is one at least.
    pub fn new(machines: Vec<Machine>, foreign: u64, unreadable: u64, first_unreadable: Option<Unreadable>) -> Self {
        let machines: Vec<Found> = machines.into_iter().map(Found::from).collect();
        let verdict = machines.iter().map(|machine| machine.verdict).max().unwrap_or(Verdict::Incomplete);
        let records = machines.iter().map(|machine| machine.records).sum();
        Self { verdict, records, foreign, unreadable, first_unreadable, machines }
    }

    /// A paragraph for each machine, then one line for all.
    pub fn table(&self, coloured: bool) -> String {
        let paint = |colour: &str, text: &str| {
            if coloured { format!("{colour}{}{OFF}", printable(text)) } else { printable(text) }
        };
        let mut out = String::new();
        for machine in &self.machines {
            let head = format!("machine {} boot {}, {}", machine.vm, machine.boot, machine.host);
            let _ = writeln!(out, "{}", paint(BOLD, &head));
            for (label, line) in machine.lines() {
                let _ = writeln!(out, "  {label:8} {}", printable(&line));
            }
            for (label, lines, colour) in
                [("note", &machine.notes, YELLOW), ("PROBLEM", &machine.problems, Verdict::Incomplete.colour())]
            {
                for line in lines {
                    let _ = writeln!(out, "  {} {}", paint(colour, &format!("{label:8}")), printable(line));
                }
            }
        }
        if self.foreign > 0 {
            let _ = writeln!(out, "{} of other senders passed over", count(self.foreign, "record"));
        }
        if let Some(Unreadable { file, line, why }) = &self.first_unreadable {
            let _ = writeln!(
                out,
                "{}",
                paint(YELLOW, &format!("{} no records, the first {file}:{line}: {why}", are(self.unreadable)))
            );
        }
        out + &paint(self.verdict.colour(), &self.summary())
    }

    fn summary(&self) -> String {
        let of = |wanted: Verdict| self.machines.iter().filter(|machine| machine.verdict == wanted).count() as u64;
        let all = format!("{} of {}", count(self.records, "record"), count(self.machines.len() as u64, "machine"));
        match self.verdict {
            Verdict::Complete => format!("complete: {all}"),
            Verdict::Announced => {
                let which = count(of(Verdict::Announced), "machine");
                format!("nothing is missing but what {which} announced: {all}")
            }
            Verdict::Incomplete => {
                format!("INCOMPLETE: {} with problems, of {all}", count(of(Verdict::Incomplete), "machine"))
            }
        }
    }
}

fn are(lines: u64) -> String {
    if lines == 1 { "1 line is".to_owned() } else { format!("{lines} lines are") }
}

impl Found {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(Start { time, image, version, ctxinit, .. }) = &self.start {
            lines.push(("started", format!("{time}, image {image} version {version}, ctxinit {ctxinit}")));
        }
        if let Some(Stop { time, verdict, text, .. }) = &self.stop {
            lines.push(("ended", format!("{time}, {verdict} {text}")));
        }
        let missing = if self.missing == 0 {
            "all there".to_owned()
        } else {
            format!("{} missing, {} of them announced", self.missing, self.announced)
        };
        let again = match self.duplicates {
            0 => String::new(),
            again => format!("; {again} came twice, {}", count(self.resends, "resend")),
        };
        lines.push(("records", format!("1 to {}, {missing}{again}", self.last)));
        let [started, ended] = self.scripts;
        lines.push(("scripts", format!("{started} started, {ended} ended")));
        let of = |with: fn(&Job) -> bool| self.jobs.iter().filter(|job| with(job)).count();
        let (started, ended) = (of(|job| job.started.is_some()), of(|job| job.ended.is_some()));
        lines.push(("jobs", format!("{started} started, {ended} ended")));
        let names = self.jobs.iter().map(|job| job.job.chars().count()).max().unwrap_or(0);
        let owners = self.jobs.iter().map(|job| job.owner.chars().count()).max().unwrap_or(0);
        for job in &self.jobs {
            lines.push(("", format!("{:names$}  {:owners$}  {}", job.job, job.owner, how(job))));
        }
        lines
    }
}

/// `exit 0, 61.2 s, completed`
fn how(job: &Job) -> String {
    let end = if job.ended.is_none() { "no end" } else { job.end.as_str() };
    let took = job.millis.map(|millis| format!(", {}", duration(millis))).unwrap_or_default();
    let fate = if job.fate.is_empty() { String::new() } else { format!(", {}", job.fate) };
    format!("{end}{took}{fate}")
}

/// All that a site asks first of a job.
pub fn owner_line(machine: &Found, job: &Job) -> String {
    let Found { vm, boot, host, .. } = machine;
    let Job { job: name, owner, groups, token, pool, uid, started, ended, .. } = job;
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let groups = if groups.is_empty() { String::new() } else { format!(" ({groups})") };
    let line = format!(
        "{name} of machine {vm} boot {boot}, {host}: owner {}{groups}, token {} of {}, uid {}, {} to {}, {}",
        or(owner, "not in this log"),
        or(token, "?"),
        or(pool, "?"),
        or(uid, "?"),
        started.as_deref().unwrap_or("?"),
        ended.as_deref().unwrap_or("?"),
        how(job)
    );
    printable(&line)
}
