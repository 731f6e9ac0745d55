//! What a logger hears, and what of it becomes a record.

use std::fmt::Display;
use std::time::{Duration, UNIX_EPOCH};

use super::collect::KernelRecord;
use super::ledger::Count;
use super::parse::Message;
use super::record::{Audit, Record};
use super::rules::Gap;
use super::{Logger, Ready, clock, once, record};
use crate::protocol;

/// Records that are read from one source before the others have their turn.
const BATCH: usize = 256;
/// The same for a source that gives many at a time.
const TURNS: usize = 8;
/// As much as a full queue of datagrams gives, and all that clients of streams have under way.
const LAST_TURNS: usize = 64;
const USER: u8 = 1;
const DAEMON: u8 = 3;

impl Logger<'_> {
    pub(super) fn collect(&mut self, ready: Ready) {
        if let Some(micros) = self.log.clock.step(ready.clock) {
            self.log.clock.look();
            let seconds = clock::seconds(micros);
            let text = format!("the clock was set by {seconds} seconds");
            self.log.push_audit("clock-step", &[("correction", &seconds)], &text);
        }
        for turn in 0..TURNS {
            let first = turn == 0;
            let came = (ready.datagrams && self.receive()) | (first && ready.streams && self.collector.accept());
            self.log.clock.look();
            // What the agent says of a job it says before the job can say anything: if that has come, so has this.
            if !self.deaf && (came || (first && ready.control)) {
                self.obey();
            }
            self.hear();
            if !came {
                break;
            }
        }
        if ready.streams {
            self.hear_streams();
        }
        if ready.kmsg {
            self.hear_kernel();
        }
    }

    /// Whatever was said before now.
    pub(super) fn collect_the_rest(&mut self) {
        self.hear();
        for _ in 0..LAST_TURNS {
            let came = self.receive() | self.collector.accept();
            self.log.clock.look();
            self.hear();
            if !self.hear_streams() && !came {
                break;
            }
        }
        self.hear_kernel();
    }

    /// Takes datagrams, for [`Logger::hear`].
    fn receive(&mut self) -> bool {
        self.collector.receive(once::MAIL.stored(&self.log.ledger))
    }

    fn hear(&mut self) {
        let Self { collector, log, rules, .. } = self;
        let uptime = log.clock.uptime();
        collector.messages(log.clock.now(), |number, record| {
            log.of_mail(number, |log| log.push_admitted(rules.admit(record, uptime)));
        });
    }

    fn hear_streams(&mut self) -> bool {
        let Self { collector, log, rules, .. } = self;
        let uptime = log.clock.uptime();
        collector.read_streams(log.clock.now(), |record| log.push_admitted(rules.admit(record, uptime)))
    }

    fn hear_kernel(&mut self) {
        let Self { collector, log, rules, .. } = self;
        for _ in 0..BATCH {
            match collector.next_kernel_record(log.clock.now()) {
                Some(KernelRecord::Record { record, sequence, missed }) => {
                    if !missed.is_empty() {
                        let count = missed.end - missed.start;
                        let text = format!("{count} records of the kernel were overwritten before they were read");
                        let (from, to) = (missed.start, missed.end - 1);
                        log.push_audit(
                            "log-gap",
                            &[("source", &"kernel"), ("count", &count), ("from", &from), ("to", &to)],
                            &text,
                        );
                    }
                    log.push_admitted(rules.is_wanted(record.severity).then_some(record));
                    log.ledger.set(Count::Kernel, sequence.saturating_add(1));
                }
                Some(KernelRecord::Broken(error)) => {
                    log.push_own(&format!("the kernel's log cannot be read any more: {error}"));
                }
                None => break,
            }
        }
    }

    /// A record of the agent. A job's output counts as what the job says.
    pub(super) fn take(&mut self, number: u64, record: &protocol::Record) {
        let Self { log, rules, .. } = self;
        let message = from_agent(record);
        let wanted = message.audit.is_some() || rules.is_wanted(message.severity);
        log.of_agent(number, |log| match &record.job {
            _ if !wanted => {}
            Some(name) => {
                // For a job that nobody has named to us.
                let data = record::job(name, "");
                let message = Record { job: Some(&data), ..message };
                log.push_admitted(rules.admit_named(message, name, log.clock.uptime()));
            }
            None => log.push(&message),
        });
    }

    /// Records of a job that were too many; each is an audit record, so no flood drops that too.
    pub(super) fn tell_gaps(&mut self, gaps: impl IntoIterator<Item = Gap>) {
        for Gap { uid, job, count } in gaps {
            self.log.ledger.add(Count::Unnumbered, count);
            let text = format!("dropped {count} records of {job}: more than the site takes of one payload");
            let data: [(&str, &dyn Display); 4] =
                [("source", &"rate"), ("uid", &uid), ("job", &job), ("count", &count)];
            self.log.push_audit("log-gap", &data, &text);
        }
    }
}

/// Payloads speak as users, the machinery as a daemon. No stamp: what the agent passes on has come to it by a pipe.
fn from_agent(record: &protocol::Record) -> Record<'_> {
    let audit = record.msgid.as_deref().map(|id| Audit { id, data: &record.data });
    let facility = match (audit, &record.job) {
        (Some(_), _) => record::AUDIT,
        (None, Some(_)) => USER,
        (None, None) => DAEMON,
    };
    let (tag, text) = (record.tag.as_bytes(), record.text.as_bytes());
    let message = Message { facility, severity: record.severity, tag, pid: record.pid, text };
    let time = UNIX_EPOCH + Duration::from_micros(record.unix_micros);
    Record { audit, ..Record::trusted(message, time) }
}
