//! What of all that is said goes into the log: the site's severity, and what a job may say.
//!
//! Whose a uid is comes from the agent alone. A limit holds for payloads only: nothing that root or a service of the
//! machine says is ever left out for its number.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::record::{self, Record};
use crate::clock::Deadline;
use crate::context::syslog::{Rate, Severity, Syslog};

/// Jobs whose names are kept. 1024 run at a time at most, and leave nothing behind.
const MOST: usize = 2048;
/// A job that says too much is told of once in this time.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// The longest time that a rate may be of.
const LONGEST: Duration = Duration::from_secs(3600);

/// Both, and the jobs.
#[derive(Debug, Default)]
pub struct Rules {
    severity: Severity,
    rate: Option<Rate>,
    jobs: BTreeMap<u32, Job>,
    /// Uids in the order in which they were named.
    order: VecDeque<u32>,
    /// When gaps are to be announced, as soon as there is one.
    due: Option<Deadline>,
}

#[derive(Debug)]
struct Job {
    name: String,
    /// As [`record::job`] has it.
    data: Vec<u8>,
    bucket: Bucket,
    /// Records that were too many since the last announcement.
    gap: u64,
}

/// Records of one job that were too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Of the job's processes.
    pub uid: u32,
    /// Its name.
    pub job: String,
    /// Records.
    pub count: u64,
}

impl Rules {
    /// The site's word, in place of an earlier one.
    pub fn set(&mut self, syslog: &Syslog) {
        (self.severity, self.rate) = (syslog.severity, syslog.rate);
    }

    /// Whose a uid is. Returns what the job that is forgotten for it still had to be told of.
    pub fn name(&mut self, uid: u32, name: String, owner: &str) -> Option<Gap> {
        let data = record::job(&name, owner);
        if let Some(known) = self.jobs.get_mut(&uid) {
            // A logger that was started again is told once more.
            (known.name, known.data) = (name, data);
            return None;
        }
        self.jobs.insert(uid, Job { name, data, bucket: Bucket::default(), gap: 0 });
        self.order.push_back(uid);
        let oldest = if self.order.len() > MOST { self.order.pop_front()? } else { return None };
        let job = self.jobs.remove(&oldest)?;
        (job.gap > 0).then_some(Gap { uid: oldest, job: job.name, count: job.gap })
    }

    /// A record of somebody whom the kernel has named, with its job; `None` if it does not go into the log.
    pub fn admit<'a>(&'a mut self, record: Record<'a>, uptime: Duration) -> Option<Record<'a>> {
        if !self.is_wanted(record.severity) {
            return None;
        }
        let Some(job) = record.sender.and_then(|sender| self.jobs.get_mut(&sender.uid)) else { return Some(record) };
        if job.may_speak(self.rate, uptime, &mut self.due) {
            Some(Record { job: Some(&job.data), ..record })
        } else {
            None
        }
    }

    /// A record of the agent, which has the job's name; audit records are always wanted.
    pub fn admit_named<'a>(&'a mut self, record: Record<'a>, name: &str, uptime: Duration) -> Option<Record<'a>> {
        let job = self.jobs.values_mut().find(|job| job.name == name);
        let Some(job) = job else { return Some(record) };
        let free = record.audit.is_some();
        if free || job.may_speak(self.rate, uptime, &mut self.due) {
            Some(Record { job: Some(&job.data), ..record })
        } else {
            None
        }
    }

    /// Whether the site wants to hear of such things.
    pub fn is_wanted(&self, severity: u8) -> bool {
        severity <= self.severity as u8
    }

    /// When [`Rules::take_gaps`] has something to tell.
    pub fn due(&self) -> Option<Deadline> {
        self.due
    }

    /// What was too much since the last call.
    pub fn take_gaps(&mut self) -> Vec<Gap> {
        self.due = None;
        let gap = |(uid, job): (&u32, &mut Job)| {
            let count = std::mem::take(&mut job.gap);
            (count > 0).then(|| Gap { uid: *uid, job: job.name.clone(), count })
        };
        self.jobs.iter_mut().filter_map(gap).collect()
    }
}

impl Job {
    fn may_speak(&mut self, rate: Option<Rate>, uptime: Duration, due: &mut Option<Deadline>) -> bool {
        let may = rate.is_none_or(|rate| self.bucket.take(rate, uptime));
        if !may {
            self.gap += 1;
            due.get_or_insert_with(|| Deadline::after(ANNOUNCE));
        }
        may
    }
}

/// A token bucket: what was not said is saved up, as far as one whole measure.
#[derive(Debug, Default)]
struct Bucket {
    /// When it was empty, or would have been with what is in it now.
    empty: Duration,
}

impl Bucket {
    fn take(&mut self, rate: Rate, uptime: Duration) -> bool {
        let span = Duration::from_secs(rate.secs.into());
        // A machine that has just booted has saved up as much as any other.
        let now = uptime + LONGEST;
        let empty = self.empty.max(now.saturating_sub(span)) + span / rate.records.max(1);
        let may = empty <= now;
        if may {
            self.empty = empty;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::parse;
    use super::super::record::Sender;
    use super::*;

    const UID: u32 = 66_000;

    fn of(uid: u32, raw: &[u8]) -> Record<'_> {
        Record::from_sender(parse::datagram(raw), Some(Sender { uid, pid: 9 }), SystemTime::UNIX_EPOCH)
    }

    fn rules(text: &str) -> Rules {
        let mut rules = Rules::default();
        rules.set(&serde_json::from_str(&format!("{{\"server\": \"s\"{text}}}")).unwrap());
        rules.name(UID, "job-1".to_owned(), "/CN=Jan");
        rules
    }

    /// How many of so many records get in at a time, in seconds.
    fn admitted(rules: &mut Rules, uid: u32, count: usize, at: f64) -> usize {
        let at = Duration::from_secs_f64(at);
        (0..count).filter(|_| rules.admit(of(uid, b"<14>x"), at).is_some()).count()
    }

    #[test]
    fn a_bucket_is_full_at_first_and_fills_again() {
        let mut rules = rules(", \"rate\": {\"records\": 100, \"secs\": 10}");
        for (at, want) in [(2.0, 100), (2.0, 0), (2.1, 1), (3.0, 9), (13.0, 100), (5000.0, 100)] {
            assert_eq!(admitted(&mut rules, UID, 1000, at), want, "{at}");
        }
        assert!(rules.due().is_some());
        let gaps = rules.take_gaps();
        assert_eq!(gaps, [Gap { uid: UID, job: "job-1".to_owned(), count: 6000 - 310 }]);
        assert!(rules.due().is_none() && rules.take_gaps().is_empty());
    }

    #[test]
    fn nobody_but_payloads_is_limited() {
        let mut rules = rules(", \"rate\": {\"records\": 1, \"secs\": 3600}");
        for uid in [0, 33, 65_541] {
            assert_eq!(admitted(&mut rules, uid, 1000, 9.0), 1000);
        }
        assert_eq!(admitted(&mut rules, UID, 1000, 9000.0), 1);
        assert_eq!(admitted(&mut self::rules(""), UID, 1000, 9.0), 1000);
    }

    #[test]
    fn a_job_has_one_measure_for_all_its_ways_to_speak() {
        let mut rules = rules(", \"rate\": {\"records\": 2, \"secs\": 10}");
        let (at, mut records) = (Duration::from_secs(99), Vec::new());
        for _ in 0..3 {
            let record = Record { sender: None, ..of(0, b"<14>x") };
            records.extend(rules.admit_named(record, "job-1", at).map(|record| record.job.map(<[u8]>::to_vec)));
        }
        assert_eq!(admitted(&mut rules, UID, 9, 99.0), 0);
        let data = b" job=\"job-1\" owner=\"/CN=Jan\"".to_vec();
        assert_eq!(records, [Some(data.clone()), Some(data)]);
        let audit = Some(record::Audit { id: "job-end", data: &[] });
        assert!(rules.admit_named(Record { audit, ..of(0, b"<14>x") }, "job-1", at).is_some());
        assert_eq!(rules.take_gaps()[0].count, 10);
    }

    #[test]
    fn what_is_less_severe_than_the_site_wants_is_left_out_and_not_counted() {
        let mut rules = rules(", \"severity\": \"warning\"");
        for (raw, want) in [(b"<11>x", true), (b"<12>x", true), (b"<13>x", false), (b"<15>x", false)] {
            assert_eq!(rules.admit(of(UID, raw), Duration::ZERO).is_some(), want);
            assert_eq!(rules.admit(of(0, raw), Duration::ZERO).is_some(), want);
        }
        assert_eq!(rules.take_gaps(), []);
    }

    #[test]
    fn the_newest_jobs_are_remembered() {
        let mut rules = rules(", \"rate\": {\"records\": 1, \"secs\": 3600}");
        assert_eq!(admitted(&mut rules, UID, 8, 9000.0), 1);
        for uid in 1..MOST as u32 {
            assert_eq!(rules.name(UID + uid, format!("job-{uid}"), ""), None);
        }
        let gap = rules.name(UID + MOST as u32, "newest".to_owned(), "");
        assert_eq!(gap, Some(Gap { uid: UID, job: "job-1".to_owned(), count: 7 }));
        assert_eq!(rules.jobs.len(), MOST);
        assert_eq!(rules.name(UID + 1, "again".to_owned(), ""), None);
        assert_eq!(rules.admit(of(UID + 1, b"x"), Duration::ZERO).unwrap().job, Some(b" job=\"again\"".as_slice()));
        assert_eq!(rules.admit(of(UID, b"x"), Duration::ZERO).unwrap().job, None);
    }
}
