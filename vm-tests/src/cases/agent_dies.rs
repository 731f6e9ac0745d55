//! The agent is killed during a job: init says so, the worker gives the token back, and the machine goes off.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use crate::case::{Case, marker};
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy};

const NAME: &str = "agent-dies";
pub const CASE: Case = Case::new(NAME, host).with_payload(guest);

/// A root process of the site's does what a bug in the agent or the kernel's memory killer would do.
const EPILOG: &str = r#"
[ "$1" = start ] || return
(
    until grep -qs "^RESULT" /run/ctxinit/jobs/*/home/said; do sleep 1; done
    kill -9 "$PPID"
) &
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[NAME])?;
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", EPILOG)])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), &stage.marker())?;
    machine.wait_console("ctxinit: end 700 the agent died: killed by SIGKILL")?;
    // There is no report from a machine whose agent died: its end line is all, and was waited for.
    let _ = machine.end();
    site.expect_free(1)
}

fn guest(_: &Job) -> Result<ExitCode, String> {
    println!("{}", marker(NAME));
    std::fs::write("said", marker(NAME)).map_err(|error| error.to_string())?;
    sleep(Duration::from_secs(3600));
    Err("nobody stopped it".to_owned())
}
