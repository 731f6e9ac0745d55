//! A payload that exits with 3: the lock is released, the token stays, and the machine gives up after the third time.

use std::process::ExitCode;

use crate::case::Case;
use crate::guest::Job;
use crate::site::{RESULTS, Site};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("payload-fails", host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["payload-fails"])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("700 3 jobs in a row failed, the last: exit 3")?;
    for token in 0..3 {
        ended.expect_report(&format!("/tokens/{token}/fate"), "released")?;
        ended.expect_report(&format!("/tokens/{token}/end"), "exit 3")?;
    }
    site.expect_free(1)?;
    // What it left as its result does not count.
    let results = site.values(RESULTS)?;
    if results.is_empty() { Ok(()) } else { Err(format!("expected no result, found {results:?}")) }
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    std::fs::write(&job.result, "half a result").map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::from(3))
}
