//! Every attempt of the probe, with every step of the drop taken: all are denied, what one job leaves behind the next
//! one does not find, and the machine goes on with its work.

use std::path::Path;

use super::table::Table;
use super::trial::{self, answer, may_end};
use crate::case::Case;
use crate::probe::verdict::How;
use crate::probe::{self, Attempt, Needs};
use crate::stage::Stage;

pub const CASE: Case = Case { deadline: 600, ..Case::new("attempts", host).with_payload(probe::payload) };

/// The last job: it runs in a machine that has been through everything.
const AFTER: &str = "after";

fn host(stage: &Stage) -> Result<(), String> {
    let bombs = || probe::all().filter(|attempt| attempt.needs == Needs::Job);
    let mut jobs = vec!["all all".to_owned(), "leave leave".to_owned(), "found found".to_owned()];
    jobs.extend(bombs().map(|bomb| format!("{0} {0}", bomb.name)));
    jobs.push(format!("{AFTER} see-others,cgroup-view,lurker"));
    let outcome = trial::run(stage, Path::new("target/ctxinit"), "all", &jobs)?;

    let mut table = Table::new("attempts", &["attempt", "success would mean", "outcome"]);
    let mut breaches = Vec::new();
    for attempt in tried() {
        let label = match attempt.needs {
            Needs::Job => attempt.name,
            Needs::Left => "found",
            _ => "all",
        };
        let line = answer(&outcome, label, attempt.name)?;
        table.row(&[attempt.name, attempt.what, &format!("{} {}", line.how, line.detail)]);
        if line.how != How::Denied {
            breaches.push(format!("{}: {} {}", attempt.name, line.how, line.detail));
        }
    }
    table.write()?;
    let of = tried().count();
    println!("attempts: {} of {of} denied", of - breaches.len());
    if !breaches.is_empty() {
        return Err(format!("{} of {of} attempts were not denied:\n{}", breaches.len(), breaches.join("\n")));
    }

    // Silence is no denial: the jobs did run, and those that were killed were killed for what they did.
    for label in ["all", "leave", "found", AFTER] {
        expect(outcome.end_of(label), "exit 0", label)?;
    }
    for bomb in bombs() {
        let end = outcome.end_of(bomb.name);
        if !may_end(bomb.name, end) {
            return Err(format!("expected {} to end by itself or by its own limit, it ended: {end}", bomb.name));
        }
    }
    if !outcome.end_of("memory-bomb").contains("lack of memory") {
        return Err(format!("expected memory-bomb to be killed, it ended: {}", outcome.end_of("memory-bomb")));
    }
    let planted = outcome.said.iter().filter(|line| line.starts_with("left ") && line.contains("Ok(")).count();
    if planted < 5 {
        return Err(format!(
            "expected the first job to leave 5 things at least, it left {planted}: {:?}",
            outcome.said
        ));
    }
    outcome.ended.expect_report_start("/verdict/text", "")?;
    let pids = outcome
        .ended
        .report("/tokens")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|token| token["usage"]["pids_refused"].as_u64());
    if pids.sum::<u64>() == 0 {
        return Err("expected the report to tell of processes that were refused".to_owned());
    }
    Ok(())
}

/// All but what another policy is about.
fn tried() -> impl Iterator<Item = &'static Attempt> {
    probe::all().filter(|attempt| attempt.needs != Needs::Alone)
}

fn expect(found: &str, wanted: &str, what: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("expected {what} to end with {wanted}, it ended: {found}")) }
}
