//! What a machine's audit records say of its life: beginnings and ends, and who owned its jobs.
//!
//! Records may come in any order, and once each: the reader of the numbers leaves out what comes again.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::{Record, unescaped};
use crate::text::count;

/// Of one life of a machine.
#[derive(Debug, Default)]
pub struct Trail {
    /// `vm-start`, the first one.
    pub start: Option<Start>,
    /// `vm-stop`, the first one.
    pub stop: Option<Stop>,
    starts: u64,
    stops: u64,
    scripts: BTreeMap<(String, String), Pair>,
    /// Shorter names first, so `job-2` stands before `job-10`.
    jobs: BTreeMap<(usize, String), Job>,
    refused: u64,
}

/// How a machine began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Start {
    /// As the record has it.
    pub time: String,
    /// The image's UUID.
    pub image: String,
    /// Of the image.
    pub version: String,
    /// Who vouches for it.
    pub endorser: String,
    /// Version of the program.
    pub ctxinit: String,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// As the record has it.
    pub time: String,
    /// Three digits, see docs/site.md.
    pub verdict: String,
    /// In words.
    pub text: String,
    /// Its own counts of what is counted here.
    #[serde(skip)]
    counts: [Option<u64>; 5],
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    started: u64,
    ended: u64,
}

/// One job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Job {
    /// `job-1`.
    pub job: String,
    /// Whose work it was, as the framework says.
    pub owner: String,
    /// VO and groups.
    pub groups: String,
    /// The token in its pool.
    pub token: String,
    /// Where the token came from.
    pub pool: String,
    /// Its user in the machine.
    pub uid: String,
    /// When it began; none if that record is missing.
    pub started: Option<String>,
    /// When it ended; none if that record is missing.
    pub ended: Option<String>,
    /// Milliseconds, as the machine measured them.
    pub millis: Option<u64>,
    /// How it ended.
    pub end: String,
    /// What became of the token.
    pub fate: String,
    #[serde(skip)]
    starts: u64,
    #[serde(skip)]
    ends: u64,
}

impl Trail {
    /// Takes one of its records.
    pub fn take(&mut self, record: &Record<'_>) {
        let fact = |name: &str| record.audit(name).map(String::from).unwrap_or_default();
        let time = || String::from_utf8_lossy(record.time).into_owned();
        match record.msgid {
            b"vm-start" => {
                self.starts += 1;
                self.start.get_or_insert_with(|| Start {
                    time: time(),
                    image: fact("image"),
                    version: fact("version"),
                    endorser: fact("endorser"),
                    ctxinit: fact("ctxinit"),
                });
            }
            b"vm-stop" => {
                self.stops += 1;
                let counts = COUNTS.map(|(name, _)| fact(name).parse().ok());
                let stop = || Stop { time: time(), verdict: fact("verdict"), text: fact("text"), counts };
                self.stop.get_or_insert_with(stop);
            }
            b"script-start" => self.script(&fact).started += 1,
            b"script-end" => self.script(&fact).ended += 1,
            b"authz" if fact("decision") != "allowed" => self.refused += 1,
            b"job-start" => {
                let job = self.job(record, &fact);
                (job.starts, job.started) = (job.starts + 1, Some(time()));
                (job.groups, job.pool, job.uid) = (fact("groups"), fact("pool"), fact("uid"));
            }
            // Without a name it never began.
            b"job-end" if !record.facts.job.is_empty() => {
                let job = self.job(record, &fact);
                (job.ends, job.ended) = (job.ends + 1, Some(time()));
                (job.end, job.millis) = (fact("end"), fact("millis").parse().ok());
            }
            b"settled" if !record.facts.job.is_empty() => {
                let fate = fact("fate");
                self.job(record, &fact).fate = fate;
            }
            _ => {}
        }
    }

    fn script(&mut self, fact: &impl Fn(&str) -> String) -> &mut Pair {
        self.scripts.entry((fact("script"), fact("action"))).or_default()
    }

    fn job(&mut self, record: &Record<'_>, fact: &impl Fn(&str) -> String) -> &mut Job {
        let name = unescaped(record.facts.job).into_owned();
        let job = self.jobs.entry((name.len(), name)).or_default();
        if job.token.is_empty() {
            (job.token, job.owner) = (fact("token"), fact("owner"));
        }
        // What settles a token does not say whose it was.
        if job.owner.is_empty() {
            job.owner = fact("owner");
        }
        job
    }

    /// All jobs, in the order of their numbers.
    pub fn jobs(&self) -> impl Iterator<Item = Job> {
        self.jobs.iter().map(|((_, name), job)| Job { job: name.clone(), ..job.clone() })
    }

    /// Begun and ended.
    pub fn scripts(&self) -> (u64, u64) {
        let sum = |of: fn(&Pair) -> u64| self.scripts.values().map(of).sum();
        (sum(|pair| pair.started), sum(|pair| pair.ended))
    }

    /// Begun and ended.
    pub fn job_counts(&self) -> (u64, u64) {
        let sum = |of: fn(&Job) -> u64| self.jobs.values().map(of).sum();
        (sum(|job| job.starts), sum(|job| job.ends))
    }

    /// What does not fit together.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut once = |what: &str, number: u64, without: &str| match number {
            0 => problems.push(format!("no {what}: {without}")),
            1 => {}
            several => problems.push(format!("{several} records {what}, where one life of a machine has one")),
        };
        once("vm-start", self.starts, "the beginning of this log is not here");
        once("vm-stop", self.stops, "the machine still runs, or died without a word");
        for ((script, action), Pair { started, ended }) in &self.scripts {
            if started != ended {
                problems.push(format!("{script} {action}: started {}, ended {}", times(*started), times(*ended)));
            }
        }
        for ((_, name), Job { starts, ends, owner, .. }) in &self.jobs {
            match (starts, ends) {
                (1, 1) => {}
                (1, 0) => problems.push(format!("{name} of {owner}: no record of its end")),
                (0, _) => problems.push(format!("{name} of {owner}: no record of its start")),
                _ => problems.push(format!("{name}: started {}, ended {}", times(*starts), times(*ends))),
            }
        }
        let ((jobs, jobs_ended), (scripts, scripts_ended)) = (self.job_counts(), self.scripts());
        let here = [jobs, jobs_ended, self.refused, scripts, scripts_ended];
        let told = self.stop.as_ref().map(|stop| stop.counts).unwrap_or_default();
        for (((_, what), told), here) in COUNTS.into_iter().zip(told).zip(here) {
            if let Some(told) = told.filter(|told| *told != here) {
                problems.push(format!("vm-stop counts {told} {what}, and {here} are here"));
            }
        }
        problems
    }
}

/// What `vm-stop` counts.
const COUNTS: [(&str, &str); 5] = [
    ("jobs", "starts of jobs"),
    ("jobs-ended", "ends of jobs"),
    ("refused", "refusals"),
    ("scripts", "starts of scripts"),
    ("scripts-ended", "ends of scripts"),
];

fn times(number: u64) -> String {
    count(number, "time")
}

#[cfg(test)]
mod tests {
    use super::super::record::parse;
    use super::*;

    const START: &str = "vm-start||image=\"i\" version=\"3\"";
    const STOP: &str = "vm-stop||verdict=\"200\" text=\"done\" jobs=\"1\" jobs-ended=\"1\" refused=\"0\" scripts=\"1\" scripts-ended=\"1\"";
    const JOB: [&str; 3] = [
        "job-start|job-1|token=\"17\" owner=\"/CN=Jan\" groups=\"/atlas\" pool=\"p\" uid=\"66000\"",
        "job-end|job-1|token=\"17\" owner=\"/CN=Jan\" end=\"exit 0\" millis=\"1500\"",
        "settled|job-1|token=\"17\" fate=\"completed\"",
    ];
    const SCRIPT: [&str; 2] =
        ["script-start||script=\"prolog.sh\" action=\"start\"", "script-end||script=\"prolog.sh\" action=\"start\""];

    fn trail(records: &[&str]) -> Trail {
        let mut trail = Trail::default();
        for record in records {
            let [msgid, job, facts] = record.split('|').collect::<Vec<_>>()[..] else { panic!("{record}") };
            let job = if job.is_empty() { String::new() } else { format!(" job=\"{job}\"") };
            let line = format!("<109>1 T h ctxinit 1 {msgid} [ctxinit@32473 vm=\"u\"{job}][audit@32473 {facts}] x");
            trail.take(&parse(line.as_bytes()).unwrap());
        }
        trail
    }

    #[test]
    fn a_whole_life_has_no_problems_in_any_order() {
        let mut life = [&[START][..], &SCRIPT, &JOB, &[STOP]].concat();
        for _ in 0..life.len() {
            let trail = trail(&life);
            assert_eq!(trail.problems(), Vec::<String>::new());
            let job = trail.jobs().next().unwrap();
            assert_eq!((job.job.as_str(), job.owner.as_str(), job.token.as_str()), ("job-1", "/CN=Jan", "17"));
            assert_eq!((job.end.as_str(), job.millis, job.fate.as_str()), ("exit 0", Some(1500), "completed"));
            assert_eq!((job.uid.as_str(), job.pool.as_str(), job.groups.as_str()), ("66000", "p", "/atlas"));
            life.rotate_left(1);
        }
    }

    #[test]
    fn each_record_that_is_missing_shows() {
        let life = [&[START][..], &SCRIPT, &JOB[..2], &[STOP]].concat();
        let without = |missing: &str| -> Vec<String> {
            let left: Vec<&str> = life.iter().copied().filter(|record| !record.starts_with(missing)).collect();
            trail(&left).problems()
        };
        assert_eq!(without("vm-start"), ["no vm-start: the beginning of this log is not here"]);
        assert_eq!(without("vm-stop"), ["no vm-stop: the machine still runs, or died without a word"]);
        let [first, second] = without("job-end").try_into().unwrap();
        assert_eq!(first, "job-1 of /CN=Jan: no record of its end");
        assert_eq!(second, "vm-stop counts 1 ends of jobs, and 0 are here");
        assert_eq!(without("job-start")[0], "job-1 of /CN=Jan: no record of its start");
        assert_eq!(without("script-end")[0], "prolog.sh start: started 1 time, ended 0 times");
        // Both of a pair: only the count knows.
        assert_eq!(without("job-").len(), 2);
        let refused = [&life[..], &["authz||token=\"1\" decision=\"refused: x\""]].concat();
        assert_eq!(trail(&refused).problems(), ["vm-stop counts 0 refusals, and 1 are here"]);
    }

    #[test]
    fn what_there_is_too_much_of_shows() {
        let life = [&[START, START][..], &SCRIPT, &JOB, &JOB[..1], &[STOP]].concat();
        let problems = trail(&life).problems();
        assert_eq!(problems[0], "2 records vm-start, where one life of a machine has one");
        assert_eq!(problems[1], "job-1: started 2 times, ended 1 time");
    }

    #[test]
    fn a_job_that_never_began_is_no_job() {
        let trail = trail(&["job-end||token=\"9\" owner=\"x\" end=\"not started: y\""]);
        assert_eq!((trail.jobs().count(), trail.job_counts()), (0, (0, 0)));
    }

    #[test]
    fn jobs_stand_in_the_order_of_their_numbers() {
        let jobs = trail(&["job-start|job-10|token=\"3\"", "job-start|job-9|token=\"2\""]);
        assert_eq!(jobs.jobs().map(|job| job.job).collect::<Vec<_>>(), ["job-9", "job-10"]);
    }
}
