//! No console: the machine works, and says so to the syslog receiver and in the report.

use std::process::ExitCode;

use crate::case::Case;
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("no-console", host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["no-console"])?;
    let cd = stage.cd(&[("prolog.sh", "echo \"prolog $1\"\n"), ("context.json", &site.context())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).no_console().run()?;
    site.expect_record("payload", &stage.marker())?;
    site.expect_record("prolog", "prolog start")?;
    ended.expect_end("200 1 tokens completed")
}

/// `/dev/console` is a device whose every open fails: that is what the case is about.
fn guest(_: &Job) -> Result<ExitCode, String> {
    let consoles = std::fs::read_to_string("/proc/consoles").unwrap_or_default();
    if consoles.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(format!("there is a console: {consoles}")) }
}
