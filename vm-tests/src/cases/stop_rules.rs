//! Why a machine claims no more: enough tokens, a drain, a deadline. What runs then goes on, or is stopped in time.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::slots::{small_policy, wait_at};
use crate::case::{Case, marker};
use crate::guest::Job;
use crate::site::{Gate, Site};
use crate::stage::Stage;

pub const MAX_TASKS: Case = Case::new("max-tasks", max_tasks).with_payload(|_| Ok(ExitCode::SUCCESS));
pub const DRAIN: Case = Case { deadline: 240, ..Case::new("drain", drain).with_payload(waits) };
pub const DEADLINE: Case = Case { deadline: 300, ..Case::new("deadline", deadline).with_payload(sleeps) };
pub const LATE: Case = Case::new("deadline-late", late).with_payload(|_| Ok(ExitCode::SUCCESS));

const RUNS: &str = "runs: ";
const DRAINED: &str = "the site drains";

/// `context.json` with these limits.
fn context(site: &Site, limits: Value) -> String {
    let mut all = json!({"idle_secs": 1, "fault_secs": 90});
    if let (Some(all), Value::Object(limits)) = (all.as_object_mut(), limits) {
        all.extend(limits);
    }
    site.context_with(json!({"limits": all}))
}

/// Five tokens, two slots, and three are enough.
fn max_tasks(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name; 5])?;
    let cd = stage.cd(&[("context.json", &context(&site, json!({"slots": 2, "max_tasks": 3})))])?;
    let ended = stage.tiny(&small_policy())?.cd(&cd).run()?;
    ended.expect_end("200 limit of 3 tasks reached: 3 tokens completed")?;
    ended.expect_phase("work", Some("ok"))?;
    site.expect_free(2)?;
    let touched: u64 = site.tokens(crate::site::WORK)?.iter().map(|token| token.leases).sum();
    // The rule is kept by not asking, not by giving back.
    if touched == 0 { Ok(()) } else { Err(format!("expected two tokens that nobody had, they have {touched} leases")) }
}

/// Two tokens run, and the third waits for the next machine.
fn drain(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let (drain, end) = (Gate::shut()?, Gate::shut()?);
    let tokens: Vec<String> = (1..=3).map(|number| format!("{} {number} {}", stage.case.name, end.place())).collect();
    site.fill(&tokens.iter().map(String::as_str).collect::<Vec<_>>())?;
    let wait = drain.wait();
    let epilog = format!("[ $1 = start ] || return 0\n({wait}; : > /run/ctxinit/drain && echo \"{DRAINED}\") &\n");
    let cd = stage.cd(&[("context.json", &context(&site, json!({"slots": 2}))), ("epilog.sh", &epilog)])?;
    let machine = stage.tiny(&small_policy())?.cd(&cd).boot()?;
    for number in ["1", "2"] {
        site.wait_record(machine.patience(), &format!("{RUNS}{number}"))?;
    }
    drain.open();
    machine.wait_console(DRAINED)?;
    end.open();
    let ended = machine.end()?;
    ended.expect_end("100 the site drains this machine (/run/ctxinit/drain): 2 tokens completed")?;
    ended.expect_phase("work", Some("ok"))?;
    site.expect_free(1)
}

fn waits(job: &Job) -> Result<ExitCode, String> {
    let [number, gate] = job.words.as_slice() else { return Err(format!("expected two words, got {:?}", job.words)) };
    println!("{RUNS}{number}");
    wait_at(gate);
    Ok(ExitCode::SUCCESS)
}

/// From the kernel's start; long enough for a boot on a busy host.
const LIFE: u64 = 120;

/// A payload that never ends is stopped so early that its token is free when the time is over.
fn deadline(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let cd = stage.cd(&[("context.json", &context(&site, json!({"max_secs": LIFE})))])?;
    let mut policy = small_policy();
    policy["payload"]["grace_secs"] = json!(1);
    let machine = stage.tiny(&policy)?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), &stage.marker())?;
    let locked = site.expect_free(1).is_err();
    let ended = machine.end()?;
    if !locked {
        return Err("expected a locked token while the job runs".to_owned());
    }
    ended.expect_end("100 the machine's time is over: none of 1 tokens completed")?;
    ended.expect_phase("work", Some("ok"))?;
    ended.expect_report("/tokens/0/fate", "released")?;
    ended.expect_report("/tokens/0/end", "stopped, as the machine ends")?;
    let over = ended.in_phase("work", "/start_ms").as_u64().unwrap_or(u64::MAX) + ended.millis("work")?;
    if over > LIFE * 1000 {
        return Err(format!("expected the work to be over after {LIFE} s, it took {over} ms"));
    }
    site.expect_free(1)
}

fn sleeps(_: &Job) -> Result<ExitCode, String> {
    println!("{}", marker(DEADLINE.name));
    sleep(Duration::from_secs(3600));
    Err("nobody stopped it".to_owned())
}

/// Nobody begins what cannot be finished.
fn late(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let limits = json!({"max_secs": 3600, "min_task_secs": 3600});
    let cd = stage.cd(&[("context.json", &context(&site, limits))])?;
    let ended = stage.tiny(&small_policy())?.cd(&cd).run()?;
    ended.expect_end("100 too little time is left for another one: no token worked on")?;
    site.expect_free(1)?;
    let touched: u64 = site.tokens(crate::site::WORK)?.iter().map(|token| token.leases).sum();
    if touched == 0 { Ok(()) } else { Err(format!("expected a token that nobody had, it has {touched} leases")) }
}
