//! A script sets the clock an hour on: the log says by how much, and goes on with the new time.

use std::process::ExitCode;

use crate::case::Case;
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("clock-step", host).with_payload(|_: &Job| Ok(ExitCode::SUCCESS));

const STEP: f64 = 3600.0;
/// The script's own reckoning is in whole seconds, and an emulated machine may take a while between two of its commands.
const ROUGHLY: f64 = 60.0;
const PROLOG: &str = r#"
[ "$1" = start ] || return 0
date -s "@$(($(date +%s) + 3600))" >/dev/null && echo "an hour on"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let cd = stage.cd(&[("context.json", &site.context()), ("prolog.sh", PROLOG)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 1 tokens completed")?;
    site.expect_record("payload", &stage.marker())?;
    site.expect_record("prolog", "an hour on")?;
    let records = site.syslog.records();
    let steps: Vec<_> = records.iter().filter(|record| record.msgid == "clock-step").collect();
    let [step] = steps.as_slice() else { return Err(format!("expected one clock-step, got {steps:?}")) };
    let correction: f64 = step.value("correction").parse().map_err(|error| format!("{step:?}: {error}"))?;
    if (correction - STEP).abs() < ROUGHLY {
        Ok(())
    } else {
        Err(format!("expected a correction of about {STEP} seconds: {step:?}"))
    }
}
