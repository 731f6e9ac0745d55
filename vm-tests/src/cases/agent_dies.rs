//! The agent is killed during a job: init says so, the worker gives the token back, and the machine goes off.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use crate::case::{Case, marker};
use crate::guest::Job;
use crate::site::{Gate, Site};
use crate::stage::{Stage, policy};

const NAME: &str = "agent-dies";
pub const CASE: Case = Case::new(NAME, host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[NAME])?;
    // A root process of the site's does what a bug in the agent or the kernel's memory killer would do. Not before the
    // job's word has come: it goes through the agent.
    let gate = Gate::shut()?;
    let epilog = format!("[ \"$1\" = start ] || return\n({}; kill -9 \"$PPID\") &\n", gate.wait());
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", &epilog)])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), &stage.marker())?;
    gate.open();
    machine.wait_console("ctxinit: end 700 the agent died: killed by SIGKILL")?;
    // There is no report from a machine whose agent died: its end line is all, and was waited for.
    let _ = machine.end();
    // Nobody was there to write the ends: whoever checks the log sees which.
    let (code, found) = site.checked_log()?;
    let problems = found["machines"][0]["problems"].to_string();
    let named = ["no vm-stop", "job-1 of unknown: no record of its end"].iter().all(|what| problems.contains(what));
    if code != 3 || !named {
        return Err(format!("expected a log without an end of the job and the machine: {code}, {found:#}"));
    }
    site.expect_free(1)
}

fn guest(_: &Job) -> Result<ExitCode, String> {
    println!("{}", marker(NAME));
    sleep(Duration::from_secs(3600));
    Err("nobody stopped it".to_owned())
}
