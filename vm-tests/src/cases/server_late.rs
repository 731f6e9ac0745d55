//! The token server is down when the machine boots, and comes back: nothing is lost but time.

use std::process::ExitCode;

use crate::case::Case;
use crate::guest::Job;
use crate::site::{RESULTS, Site};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("server-late", host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let mut site = Site::start(stage)?;
    site.fill(&["server-late"])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    site.stop_server();
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    machine.wait_console("; next try in")?;
    site.start_server()?;
    let ended = machine.end()?;
    ended.expect_end("200 1 tokens completed")?;
    site.expect_record("payload", &stage.marker())?;
    site.expect_free(0)?;
    let results = site.values(RESULTS)?;
    if results == ["done"] { Ok(()) } else { Err(format!("expected the result \"done\", found {results:?}")) }
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    std::fs::write(&job.result, "done").map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}
