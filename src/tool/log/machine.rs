//! One life of one machine, as its records tell it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::numbers::{Gap, Numbers};
use super::record::{Record, unescaped};
use super::trail::Trail;
use crate::text::count;

/// Of gaps, and of times that the clock was set, as many are named.
const NAMED: usize = 5;
/// The logger's own facility.
const SYSLOG: u8 = 5;
const RESTARTED: &[u8] = b"the logger was started again";

/// What came of it.
#[derive(Debug, Default)]
pub struct Machine {
    /// Its UUID.
    pub vm: String,
    /// Which life of it, the first 8 digits of the kernel's boot id.
    pub boot: String,
    /// Its name, as the last record has it.
    pub host: String,
    /// What came.
    pub numbers: Numbers,
    /// What it did.
    pub trail: Trail,
    /// Records without a number.
    pub unnumbered: u64,
    /// Records made while its clock was not known to be right.
    pub unsynced: u64,
    /// What it says of its clock being set, a line each.
    pub clock_steps: Vec<String>,
    /// What it says it dropped before it had a number, by source: the kernel's log, or a job that said too much.
    pub dropped: BTreeMap<String, u64>,
    /// Times that its logger was started again: by the logger's own word, and by the agent's.
    restarts: [u64; 2],
}

impl Machine {
    /// Before its first record.
    pub fn new(vm: &[u8], boot: &[u8]) -> Self {
        Self { vm: unescaped(vm).into_owned(), boot: unescaped(boot).into_owned(), ..Self::default() }
    }

    /// Takes one of its records.
    pub fn take(&mut self, record: &Record<'_>, hashes: &RandomState) {
        let Some(id) = record.facts.sequence else {
            self.unnumbered += 1;
            return;
        };
        if self.numbers.take(id, fingerprint(record, hashes)).is_none() {
            return;
        }
        if self.host.as_bytes() != record.host {
            self.host = String::from_utf8_lossy(record.host).into_owned();
        }
        self.unsynced += u64::from(record.facts.unsynced);
        if record.is_audit() {
            self.audit(record);
        } else if is_loggers(record) && record.text.starts_with(RESTARTED) {
            self.restarts[0] += 1;
        }
    }

    fn audit(&mut self, record: &Record<'_>) {
        let number = |name: &str| record.audit(name).and_then(|value| value.parse::<u64>().ok());
        match record.msgid {
            b"log-gap" => match (number("first"), number("last"), number("count").unwrap_or(0)) {
                (Some(first), Some(last), count) => self.numbers.announce(first, last, count),
                (_, _, count) => {
                    let source = record.audit("source").unwrap_or_default().into_owned();
                    let dropped: &mut u64 = self.dropped.entry(source).or_default();
                    *dropped = dropped.saturating_add(count);
                }
            },
            b"log-restart" => self.restarts[1] += 1,
            b"clock-step" if self.clock_steps.len() < NAMED => {
                self.clock_steps.push(String::from_utf8_lossy(record.text).into_owned())
            }
            _ => self.trail.take(record),
        }
    }

    /// Times that its logger was started again. Both words are of the same start, and one of them may be missing.
    pub fn restarts(&self) -> u64 {
        self.restarts.into_iter().max().unwrap_or(0)
    }

    /// Whether all that is known to be missing is what the machine itself says.
    pub fn announces(&self) -> bool {
        self.restarts() > 0 || !self.dropped.is_empty() || !self.numbers.gaps().is_empty()
    }

    /// What is missing of it without a word, or does not fit together.
    pub fn problems(&self) -> Vec<String> {
        let numbers = &self.numbers;
        let mut problems = named_gaps(numbers.gaps().iter().filter(|gap| gap.announced < gap.count()));
        if numbers.conflicting > 0 {
            let ids: Vec<String> = numbers.conflicts.iter().map(u64::to_string).collect();
            let more = if numbers.conflicting as usize > ids.len() { ", ..." } else { "" };
            problems.push(format!(
                "{} of a number that another one has, with another text: forged, or of another machine ({}{more})",
                count(numbers.conflicting, "record"),
                ids.join(", ")
            ));
        }
        if self.unnumbered > 0 {
            problems
                .push(format!("{} without a number: the server does not keep it", count(self.unnumbered, "record")));
        }
        problems.extend(self.trail.problems());
        problems
    }

    /// What is good to know.
    pub fn notes(&self) -> Vec<String> {
        let Numbers { late, unknown, .. } = &self.numbers;
        let mut notes = named_gaps(self.numbers.gaps().iter().filter(|gap| gap.announced == gap.count()));
        let mut note = |number: u64, what: String| {
            if number > 0 {
                notes.push(what);
            }
        };
        let restarts = self.restarts();
        note(
            restarts,
            format!("its logger was started again {}: what it had read and not kept is lost", count(restarts, "time")),
        );
        for (source, number) in &self.dropped {
            note(*number, format!("{} dropped before they had a number ({source})", records(*number)));
        }
        note(
            *late,
            format!("{} behind later ones: by UDP, or the server wrote two connections at once", records(*late)),
        );
        note(*unknown, format!("{} again too long after the first to be compared", records(*unknown)));
        note(self.unsynced, format!("{} made before its clock was right", records(self.unsynced)));
        notes.extend(self.clock_steps.iter().map(|step| format!("its clock was set: {step}")));
        notes
    }
}

fn records(number: u64) -> String {
    count(number, "record")
}

/// The logger has no job and no sender's stamp, which everybody else has.
fn is_loggers(record: &Record<'_>) -> bool {
    let facts = &record.facts;
    !facts.stamped
        && facts.job.is_empty()
        && record.app == b"ctxinit"
        && record.pri.is_none_or(|pri| pri >> 3 == SYSLOG)
}

/// All that is the same when a record is sent again. The machine's name may be another by then, and a server may write
/// the time in its own way and the data in another order.
fn fingerprint(record: &Record<'_>, hashes: &RandomState) -> u64 {
    let of = |parts: &[&[u8]]| {
        let mut hasher = hashes.build_hasher();
        for part in parts {
            hasher.write(part);
            // What no UTF-8 holds, so that no byte changes its part.
            hasher.write_u8(0xff);
        }
        hasher.finish()
    };
    let mut sum = of(&[&[record.pri.unwrap_or(u8::MAX)], record.app, record.msgid, record.text]);
    record.each(|id, name, value| sum = sum.wrapping_add(of(&[id, name, value])));
    sum
}

fn named_gaps<'a>(gaps: impl Iterator<Item = &'a Gap>) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut more, mut missing) = (0, 0);
    for gap in gaps {
        let Gap { first, last, announced } = gap;
        if lines.len() == NAMED {
            (more, missing) = (more + 1, missing + gap.count());
            continue;
        }
        let which = if first == last {
            format!("number {first} is missing")
        } else {
            format!("numbers {first} to {last} are missing, {}", records(gap.count()))
        };
        lines.push(match announced {
            0 => format!("{which}, and the machine never said it dropped them"),
            all if *all == gap.count() => format!("{which}: dropped, as the machine itself says"),
            some => format!("{which}, of which the machine says it dropped {some}"),
        });
    }
    if more > 0 {
        lines.push(format!("and {} in {}", records(missing), count(more, "gap")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::record::parse;
    use super::*;

    fn machine(lines: &[&str]) -> Machine {
        let hashes = RandomState::new();
        let mut machine = Machine::new(b"u", b"b");
        for line in lines {
            machine.take(&parse(line.as_bytes()).unwrap(), &hashes);
        }
        machine
    }

    fn line(sequence: u64, host: &str, text: &str) -> String {
        format!("<14>1 T {host} app 7 - [ctxinit@32473 vm=\"u\" boot=\"b\"][meta sequenceId=\"{sequence}\"] {text}")
    }

    #[test]
    fn the_same_record_is_the_same_wherever_it_was_kept() {
        let turned =
            "<14>1 2026-01-01T00:00:00Z vm2 app 7 - [meta sequenceId=\"1\"][ctxinit@32473 boot=\"b\" vm=\"u\"] x";
        assert_eq!(machine(&[&line(1, "vm1", "x"), turned]).numbers.conflicting, 0);
        for other in
            [line(1, "vm1", "y"), turned.replace("app", "ape"), turned.replace("vm=\"u\"", "vm=\"u\" job=\"j\"")]
        {
            let machine = machine(&[&line(1, "vm1", "x"), &other]);
            assert_eq!(machine.numbers.conflicting, 1, "{other}");
            assert!(machine.problems()[0].ends_with("forged, or of another machine (1)"), "{:?}", machine.problems());
        }
    }

    #[test]
    fn gaps_are_named_and_explained() {
        let gap = |number: u64, count: u64, first: u64, last: u64| {
            format!(
                "<108>1 T h ctxinit - log-gap [ctxinit@32473 vm=\"u\" boot=\"b\"][audit@32473 count=\"{count}\" \
                 first=\"{first}\" last=\"{last}\"][meta sequenceId=\"{number}\"] dropped"
            )
        };
        let of = |lines: &[String]| machine(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let lines = [line(1, "h", "x"), line(5, "h", "x"), gap(6, 3, 2, 4)];
        let whole = of(&lines);
        assert!(!whole.problems().iter().any(|problem| problem.contains("missing, 3")), "{:?}", whole.problems());
        assert_eq!(whole.notes(), ["numbers 2 to 4 are missing, 3 records: dropped, as the machine itself says"]);
        let less = of(&[line(1, "h", "x"), line(5, "h", "x"), gap(6, 2, 2, 4)]);
        assert_eq!(less.problems()[0], "numbers 2 to 4 are missing, 3 records, of which the machine says it dropped 2");
        assert_eq!(of(&lines[1..2]).problems()[0].split(", and").next(), Some("numbers 1 to 4 are missing, 4 records"));
        let many: Vec<String> = (1..=10).map(|number| line(2 * number, "h", "x")).collect();
        assert_eq!(of(&many).problems()[5], "and 5 records in 5 gaps");
    }

    #[test]
    fn what_never_had_a_number_is_told_by_its_source() {
        let said = |msgid: &str, number: u64, facts: &str| {
            format!(
                "<108>1 T h ctxinit - {msgid} [ctxinit@32473 vm=\"u\" boot=\"b\"][audit@32473 {facts}]\
                 [meta sequenceId=\"{number}\"] x"
            )
        };
        let machine = machine(&[
            &said("log-gap", 1, "source=\"kernel\" count=\"9\" from=\"3\" to=\"11\""),
            &said("log-gap", 2, "source=\"rate\" uid=\"66000\" job=\"job-1\" count=\"100\""),
            &said("log-gap", 3, "source=\"rate\" uid=\"66000\" job=\"job-1\" count=\"23\""),
            &said("log-restart", 4, "end=\"signal 9\" restarts=\"1\""),
        ]);
        let want = [
            "its logger was started again 1 time: what it had read and not kept is lost",
            "9 records dropped before they had a number (kernel)",
            "123 records dropped before they had a number (rate)",
        ];
        assert_eq!(machine.notes(), want);
        assert!(machine.announces());
    }

    /// A program that says what the logger would say has its own uid, or its job.
    #[test]
    fn only_the_logger_says_that_it_was_started_again() {
        let said = |pri: u8, more: &str| {
            let line = format!(
                "<{pri}>1 T h ctxinit - - [ctxinit@32473 vm=\"u\" boot=\"b\"{more}][meta sequenceId=\"1\"] \
                 the logger was started again after number 9: 3 records may come twice"
            );
            machine(&[&line]).restarts()
        };
        assert_eq!(said(44, ""), 1);
        for (pri, more) in [(44, " uid=\"66000\" pid=\"7\""), (44, " job=\"job-1\""), (14, "")] {
            assert_eq!(said(pri, more), 0, "{pri} {more}");
        }
    }
}
