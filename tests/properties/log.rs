//! What a log server keeps, as `ctxtool log check` reads it.

use ctxinit::tool::log::record::parse;
use ctxinit::tool::log::{Checker, Findings, Verdict};
use proptest::prelude::*;

use crate::{bytes, damaged, holds, text_of};

const VM: &str = "[ctxinit@32473 vm=\"u\" boot=\"b\"]";

fn line(number: u64) -> String {
    let (msgid, audit) = match number {
        1 => ("vm-start", "[audit@32473 image=\"i\"]"),
        _ => ("-", ""),
    };
    let pri = if number == 1 { 109 } else { 14 };
    format!(
        "<{pri}>1 2026-01-02T03:04:05Z vm ctxinit 7 {msgid} {VM}{audit}[meta sequenceId=\"{number}\"] text {number}"
    )
}

fn found(log: &[u8]) -> Option<Findings> {
    let mut checker = Checker::default();
    checker.read("log", None, log).unwrap();
    checker.finish("log").ok()
}

#[test]
fn every_line_has_a_reading_or_a_fault() {
    const PIECES: &[&str] = &[
        "<13>",
        "<109>",
        "<192>",
        "1 ",
        "- ",
        "2026-01-02T03:04:05Z ",
        "Jan  2 03:04:05 ",
        "host ",
        "app[7]: ",
        "vm-stop ",
        "[ctxinit@32473",
        " vm=\"u\"",
        " uid=\"7\"",
        " x=\"\\\"\\]\"",
        "[audit@32473 ",
        "[meta sequenceId=\"3\"",
        "]",
        " ",
        "\"",
        "\\",
        "=",
        "99999999999999999999",
        "\u{feff}",
        "text",
    ];
    holds(prop_oneof![text_of(PIECES, 14).prop_map(String::into_bytes), bytes(120)], |raw| {
        if let Ok(record) = parse(&raw) {
            let parts = [record.time, record.host, record.app, record.msgid, record.data, record.text, record.facts.vm];
            for part in parts {
                prop_assert!(part.is_empty() || raw.windows(part.len()).any(|window| window == part));
            }
        }
        Ok(())
    });
}

/// What a machine says of a value comes out as it went in, whatever it holds.
#[test]
fn facts_survive_their_escapes() {
    holds("[ -~äé馬]{0,40}", |owner: String| {
        let escaped: String =
            owner.chars().flat_map(|c| if "\"\\]".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
        let line = format!("<109>1 - h ctxinit 1 job-start {VM}[audit@32473 owner=\"{escaped}\"] x");
        let record = parse(line.as_bytes()).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(record.audit("owner").unwrap(), owner);
        Ok(())
    });
}

/// Whatever a server does to a file, only a whole one is complete, and a gap is never more than what is gone.
#[test]
fn a_damaged_log_is_never_complete() {
    let log: Vec<u8> = (1..=12).flat_map(|number| (line(number) + "\n").into_bytes()).collect();
    let stream: Vec<u8> = (1..=12).map(line).flat_map(|line| format!("{} {line}", line.len()).into_bytes()).collect();
    holds(prop_oneof![damaged(log), damaged(stream)], |log| {
        if let Some(found) = found(&log) {
            // No vm-stop is in it.
            prop_assert_eq!(found.verdict, Verdict::Incomplete);
            for machine in &found.machines {
                prop_assert_eq!(machine.records + machine.missing, machine.last);
            }
        }
        Ok(())
    });
}

/// The numbers against a naive reckoning: which came, which did not, which came twice.
#[test]
fn numbers_are_reckoned_right() {
    holds(prop::collection::vec(1..40u64, 1..80), |numbers| {
        let log: String = numbers.iter().map(|number| line(*number) + "\n").collect();
        let found = found(log.as_bytes()).unwrap();
        let machine = &found.machines[0];
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let last = *distinct.last().unwrap();
        let gone: Vec<u64> = (1..=last).filter(|number| !distinct.contains(number)).collect();
        let listed: Vec<u64> = machine.gaps.iter().flat_map(|gap| gap.first..=gap.last).collect();
        prop_assert_eq!((machine.records, machine.last, &listed), (distinct.len() as u64, last, &gone));
        prop_assert_eq!(machine.duplicates as usize, numbers.len() - distinct.len());
        prop_assert_eq!(machine.conflicting, 0);
        let mut highest = 0;
        let mut came = Vec::new();
        let late = numbers.iter().filter(|number| {
            let new = !came.contains(*number);
            came.push(**number);
            let late = new && **number < highest;
            highest = highest.max(**number);
            late
        });
        prop_assert_eq!(machine.late as usize, late.count());
        Ok(())
    });
}
