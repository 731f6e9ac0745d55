//! A prolog leaves processes behind that hold its output open, one of them deaf to SIGTERM: the phase ends without
//! them, they are listed, live while the machine works, unseen by the payload, and are ended after the last `stop`.

use std::process::ExitCode;

use crate::case::Case;
use crate::guest::{Job, read};
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("script-daemons", host).with_payload(guest);

/// As in `prolog_hangs`: a command line that can be looked for.
const PROLOG: &str = r#"
alive() { cat /proc/[0-9]*/cmdline | tr '\0' '\n' | grep -c '^98765[.]$'; }
if [ "$1" = start ]; then
    setsid sh -c 'trap "echo the good one ends; exit" TERM; sleep 98765. & wait' &
    setsid sh -c 'trap "" TERM; exec sleep 98765.' &
    until [ "$(alive)" = 2 ]; do sleep 0.1; done
    echo "both run"
else
    echo "at the stop of the prolog $(alive) run"
fi
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("context.json", &site.context())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 1 tokens completed")?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_in_phase("prolog", "/outcome", "ok")?;
    let left = ended.in_phase("prolog", "/scripts/0/left_running").clone();
    let left: Vec<&str> = left.as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    let [_, _, _] = left.as_slice() else { return Err(format!("expected 3 processes left running, got {left:?}")) };
    let note = format!("exit 0, 3 processes left running: {}", left.join(", "));
    ended.expect_in_phase("prolog", "/note", note)?;
    ended.expect_order(&[
        "prolog: both run",
        "ctxinit: phase prolog: ok",
        "ctxinit: phase work: ok",
        "prolog: at the stop of the prolog 2 run",
        &format!("ctxinit: left running by prolog.sh start, asked to end: {}", left.join(", ")),
        "prolog: the good one ends",
        "ctxinit: left running by prolog.sh start, killed: ",
        "ctxinit: phase end: ok",
    ])?;
    // Only the deaf one had to be killed.
    ended.expect_no_console("killed: sh")?;
    ended.expect_no_console("cannot be killed")
}

fn guest(_: &Job) -> Result<ExitCode, String> {
    let entries = std::fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let lines = entries.flatten().filter_map(|entry| read(&entry.path().join("cmdline").to_string_lossy()).ok());
    match lines.filter(|line| line.ends_with("\x0098765.\0")).count() {
        0 => Ok(ExitCode::SUCCESS),
        other => Err(format!("a payload sees {other} services of the prolog")),
    }
}
