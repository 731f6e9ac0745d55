//! Several tokens at once: jobs overlap, have users of their own, and none waits for another.

use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

use crate::case::{Case, marker};
use crate::guest::{Job, status};
use crate::services;
use crate::site::{Gate, RESULTS, Site};
use crate::stage::{Stage, policy};

/// One slot a processor, and the machine has two.
pub const TOGETHER: Case = Case { deadline: 240, ..Case::new("slots-together", together).with_payload(waits) };
/// A job that makes use of its grace holds up nobody.
pub const GRACE: Case = Case { deadline: 240, ..Case::new("slots-grace", grace).with_payload(lingers) };

/// What a job says that runs.
const RUNS: &str = "runs: ";
/// What one says that was asked to end.
const ASKED: &str = "asked: ";
/// What one says that ends in time after that.
const IN_TIME: &str = "in time: ";

/// Small enough for several jobs in the tests' machine.
pub fn small_policy() -> Value {
    let mut policy = policy();
    policy["payload"]["memory_mb"] = json!(32);
    policy["payload"]["scratch_mb"] = json!(16);
    policy
}

fn together(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let gate = Gate::shut()?;
    let tokens: Vec<String> = (1..=3).map(|number| format!("{} {number} {}", stage.case.name, gate.place())).collect();
    site.fill(&tokens.iter().map(String::as_str).collect::<Vec<_>>())?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let machine = stage.tiny(&small_policy())?.cd(&cd).qemu(["-smp", "2"]).boot()?;
    // Neither ends before both run.
    for number in ["1", "2"] {
        site.wait_record(machine.patience(), &format!("{RUNS}{number}"))?;
    }
    let third = site.syslog.lines().all().iter().any(|line| line.ends_with(&format!("{RUNS}3")));
    let locked = site.tokens(crate::site::WORK)?.iter().filter(|token| token.locked).count();
    gate.open();
    let ended = machine.end()?;
    if third || locked != 2 {
        return Err(format!("expected two tokens at once on two processors, found {locked}, the third runs: {third}"));
    }
    ended.expect_end("200 3 tokens completed")?;
    ended.expect_console("ctxinit: 2 slots")?;
    let results = site.values(RESULTS)?;
    let field = |at: usize| results.iter().filter_map(|result| result.split(' ').nth(at)).collect::<HashSet<_>>();
    if results.len() != 3 || field(0) != HashSet::from(["1", "2", "3"]) || field(1).len() != 3 {
        return Err(format!("expected 3 results by 3 users, found {results:?}"));
    }
    // Each record is its own job's, whoever else speaks at the time.
    let records = site.syslog.records();
    let jobs: HashSet<_> =
        records.iter().filter(|record| record.text == stage.marker()).map(|record| record.value("job")).collect();
    if jobs.len() != 3 {
        return Err(format!("expected the markers of 3 jobs, found {jobs:?}"));
    }
    site.expect_complete_log()
}

fn waits(job: &Job) -> Result<ExitCode, String> {
    let [number, gate] = job.words.as_slice() else { return Err(format!("expected two words, got {:?}", job.words)) };
    println!("{RUNS}{number}");
    wait_at(gate);
    let status = status()?;
    let user = status.get("Uid").and_then(|ids| ids.split('\t').next()).ok_or("no uid")?;
    fs::write(&job.result, format!("{number} {user}")).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}

/// Until the host half opens it.
pub fn wait_at(gate: &str) {
    while services::fetch(gate).is_err() {
        sleep(Duration::from_millis(200));
    }
}

/// The first token is taken away while it is worked on. Its job is asked to end and stays; meanwhile the other slot ends
/// its token and works on the next, and only then may the first one go.
fn grace(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let (other, last) = (Gate::shut()?, Gate::shut()?);
    let token = |words: &str| format!("{} {words}", stage.case.name);
    let tokens = [
        token(&format!("deaf {}", last.place())),
        token(&format!("other {}", other.place())),
        token(&format!("next {}", last.place())),
    ];
    site.fill(&tokens.each_ref().map(String::as_str))?;
    // A lock of 15 s is renewed within 5 s: that is when the job's end begins.
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    context["work"]["topos"]["lock_secs"] = json!(15);
    context["limits"]["slots"] = json!(2);
    let cd = stage.cd(&[("context.json", &context.to_string())])?;
    let mut policy = small_policy();
    policy["payload"]["grace_secs"] = json!(30);
    let machine = stage.tiny(&policy)?.cd(&cd).boot()?;
    for name in ["deaf", "other"] {
        site.wait_record(machine.patience(), &format!("{RUNS}{name}"))?;
    }
    site.delete("1")?;
    site.wait_record(machine.patience(), &format!("{ASKED}deaf"))?;
    other.open();
    site.wait_record(machine.patience(), &format!("{RUNS}next"))?;
    last.open();
    let ended = machine.end()?;
    site.expect_record("payload", &format!("{IN_TIME}deaf"))?;
    ended.expect_end("200 2 of 3 tokens completed")?;
    ended.expect_console("ctxinit: 2 slots")?;
    let first = (0..3).find(|at| ended.report(&format!("/tokens/{at}/id")) == "1").ok_or("no token 1 in the report")?;
    ended.expect_report(&format!("/tokens/{first}/fate"), "lost")?;
    ended.expect_report(&format!("/tokens/{first}/reason/name"), "lease-lost")
}

fn lingers(job: &Job) -> Result<ExitCode, String> {
    let [name, gate] = job.words.as_slice() else { return Err(format!("expected two words, got {:?}", job.words)) };
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block().map_err(|errno| errno.to_string())?;
    println!("{RUNS}{name}");
    if name != "deaf" {
        wait_at(gate);
        return Ok(ExitCode::SUCCESS);
    }
    term.wait().map_err(|errno| errno.to_string())?;
    println!("{ASKED}{name}");
    wait_at(gate);
    println!("{IN_TIME}{name}");
    println!("{}", marker("slots-grace"));
    Ok(ExitCode::FAILURE)
}
