//! Policy in two hands: a site's limits hold, and a site that asks for more than the image allows runs nothing.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::{self, IN_IMAGE, Job};
use crate::site::{RESULTS, Site};
use crate::stage::{Stage, policy, policy_with};

pub const LOOSENED: Case = Case::new("payload-loosened", loosened);
pub const TIGHTENED: Case = Case::new("payload-tightened", tightened).with_payload(job);

/// The site's. The image's are 128 and 256 MiB.
const PIDS: usize = 8;
const MEMORY_MB: usize = 32;

fn loosened(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["payload-loosened"])?;
    let context = with_payload(&site, json!({"pids": PIDS, "memory_mb": 4096}))?;
    let cd = stage.cd(&[("context.json", &context), ("prolog.sh", "echo the prolog runs\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    let why = "context.json: payload.memory_mb: 4096 is more than the image's 256: a site may tighten and never loosen";
    ended.expect_console_end(&format!(": {why}"))?;
    ended.expect_end(&format!("500 {why}"))?;
    ended.expect_phase("medium", Some("failed"))?;
    ended.expect_in_phase("medium", "/note", why)?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console("the prolog runs")?;
    site.expect_free(1)
}

/// The first token finds the limit of processes. The second wants more memory than the site gives, and less than the image
/// would.
fn tightened(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["payload-tightened pids", "payload-tightened memory"])?;
    let context = with_payload(&site, json!({"pids": PIDS, "memory_mb": MEMORY_MB, "wall_secs": 100, "writable": []}))?;
    let cd = stage.cd(&[("context.json", &context)])?;
    let policy = policy_with(json!({"payload": {
        "command": [format!("/{IN_IMAGE}"), guest::ARGUMENT],
        "wall_secs": 100,
        "writable": ["/tmp"],
    }}));
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    let told = format!("payload: the site tightens memory_mb to {MEMORY_MB}, pids to {PIDS}, writable to nothing");
    ended.expect_console_end(&format!("; {told}"))?;
    let note = ended.in_phase("medium", "/note").as_str().unwrap_or_default();
    if !note.ends_with(&format!("; {told}")) {
        return Err(format!("expected a note of the medium phase that ends with {told:?}, got {note:?}"));
    }
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("700 3 jobs in a row failed, the last: killed for lack of memory")?;
    if ended.number("/tokens/0/usage/pids_refused")? == 0 {
        return Err("expected refused processes of the first token".to_owned());
    }
    let results = site.values(RESULTS)?;
    if results.len() == 1 { Ok(()) } else { Err(format!("expected the result of one token, found {results:?}")) }
}

fn with_payload(site: &Site, payload: Value) -> Result<String, String> {
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    context["payload"] = payload;
    Ok(context.to_string())
}

fn job(job: &Job) -> Result<ExitCode, String> {
    match job.words.first().map(String::as_str) {
        Some("pids") => pids(job),
        Some("memory") => memory(),
        other => Err(format!("no part {other:?}")),
    }
}

/// Some processes must be possible, and not as many as the image allows.
fn pids(job: &Job) -> Result<ExitCode, String> {
    let started = (0..2 * PIDS).take_while(|_| guest::leave_daemon().is_ok()).count();
    if started == 0 || started >= PIDS {
        return Err(format!("expected some processes beside this one, fewer than {PIDS}, got {started}"));
    }
    std::fs::write(&job.result, "limited").map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}

/// Written to, so that the kernel has to give it.
fn memory() -> Result<ExitCode, String> {
    let taken = vec![1u8; 2 * MEMORY_MB * 1024 * 1024];
    let sum: u64 = taken.iter().map(|&byte| u64::from(byte)).sum();
    Err(format!("expected to be killed, and have {sum} bytes"))
}
