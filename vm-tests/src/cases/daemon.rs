//! A payload leaves a process behind, in a session of its own and deaf to SIGTERM: it is gone before the next token.

use std::process::{self, ExitCode};

use crate::case::Case;
use crate::guest::{Job, leave_daemon, payload_processes};
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("payload-daemon", host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["payload-daemon first", "payload-daemon second"])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 2 tokens completed")?;
    site.expect_record("payload", crate::guest::DAEMON_RUNS)?;
    let markers = site.syslog.records().into_iter().filter(|record| record.text == stage.marker()).count();
    if markers != 2 {
        return Err(format!("expected the marker of 2 payloads, got {markers}"));
    }
    ended.expect_console_end(", 1 process left behind and killed")
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    let others = || payload_processes().map(|pids| pids.into_iter().filter(|&pid| pid != process::id()).count());
    let before = others()?;
    if before > 0 {
        return Err(format!("{before} processes of other payloads are there"));
    }
    if job.words == ["first"] {
        leave_daemon().map_err(|error| format!("daemon: {error}"))?;
        // It is seen, so the next one's look would find it.
        if others()? != 1 {
            return Err("the daemon is not seen".to_owned());
        }
    }
    Ok(ExitCode::SUCCESS)
}
