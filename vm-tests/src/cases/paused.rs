//! The host pauses the machine for longer than its lock, and lets it go on. Its clocks have stood still meanwhile, so
//! only the pool can tell it: the token is lost, and whoever took it is not robbed.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::http;
use crate::machine::Running;
use crate::qmp;
use crate::site::{RESULTS, Site, WORK};
use crate::stage::{Stage, policy};

pub const ROBBED: Case = Case { deadline: DEADLINE, ..Case::new("paused-taken", taken).with_payload(guest) };
pub const ALONE: Case = Case { deadline: DEADLINE, ..Case::new("paused-free", free).with_payload(guest) };
pub const BRIEF: Case = Case { deadline: DEADLINE, ..Case::new("paused-briefly", briefly).with_payload(guest) };

/// The pause itself takes a quarter of a minute or more.
const DEADLINE: u32 = 240;
/// The shortest that a site may ask for.
const LOCK_SECS: u64 = 15;
/// Of the payload: longer than the time until a renewal is due, shorter than a lock.
const WORKS: Duration = Duration::from_secs(12);
/// What the payload says first.
const WORKING: &str = "it works";
const LOST: &str = "the lock on token 1 ran out or was broken";

/// A machine that runs its payload, and is paused.
fn paused(stage: &Stage, site: &Site) -> Result<Running, String> {
    site.fill(&[stage.case.name])?;
    let mut context: Value = serde_json::from_str(&site.context()).unwrap_or_default();
    context["work"]["topos"]["lock_secs"] = json!(LOCK_SECS);
    let cd = stage.cd(&[("context.json", &context.to_string())])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), WORKING)?;
    machine.host_does(qmp::STOP)?;
    Ok(machine)
}

/// Waits until nobody holds the token.
fn wait_free(site: &Site) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(4 * LOCK_SECS);
    while site.expect_free(1).is_err() {
        if Instant::now() > deadline {
            return site.expect_free(1);
        }
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Somebody else takes the token meanwhile.
fn taken(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let machine = paused(stage, &site)?;
    wait_free(&site)?;
    let path = format!("/4.1/pools/{WORK}/nextToken?timeout=600&description=another");
    http::ask(site.port, "GET", &path, "Accept: text/plain\r\n", "")?;
    machine.host_does(qmp::CONT)?;
    let ended = machine.end()?;
    ended.expect_report("/tokens/0/fate", "lost")?;
    ended.expect_report("/tokens/0/note", LOST)?;

    // What the other one holds, it still holds; and nothing was put where its result is to be.
    let tokens = site.tokens(WORK)?;
    if !matches!(tokens.as_slice(), [token] if token.locked && token.leases == 2) {
        return Err(format!("expected the token locked by its second holder, found {tokens:?}"));
    }
    let results = site.values(RESULTS)?;
    if !results.is_empty() {
        return Err(format!("expected no result of a stopped payload, found {results:?}"));
    }
    Ok(())
}

/// Nobody does: the machine loses the token, claims it anew, and completes it.
fn free(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let machine = paused(stage, &site)?;
    wait_free(&site)?;
    machine.host_does(qmp::CONT)?;
    let ended = machine.end()?;
    ended.expect_report("/tokens/0/fate", "lost")?;
    ended.expect_report("/tokens/0/note", LOST)?;
    ended.expect_report("/tokens/1/fate", "completed")?;
    ended.expect_end("200 1 of 2 tokens completed")?;
    expect_one_result(&site)
}

/// The pause is shorter than the lock: it is proved anew, and nothing is lost.
fn briefly(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let machine = paused(stage, &site)?;
    sleep(Duration::from_secs(LOCK_SECS / 5));
    machine.host_does(qmp::CONT)?;
    let ended = machine.end()?;
    ended.expect_report("/tokens/0/fate", "completed")?;
    ended.expect_end("200 1 tokens completed")?;
    expect_one_result(&site)
}

fn expect_one_result(site: &Site) -> Result<(), String> {
    site.expect_free(0)?;
    let results = site.values(RESULTS)?;
    if results == ["worked"] { Ok(()) } else { Err(format!("expected one result, found {results:?}")) }
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    println!("{WORKING}");
    sleep(WORKS);
    std::fs::write(&job.result, "worked").map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}
