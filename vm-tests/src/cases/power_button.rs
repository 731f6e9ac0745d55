//! The power button during a job: the job is stopped, its lock released, and the machine ends with 100.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use crate::case::{Case, marker};
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy};

const NAME: &str = "power-button";
pub const CASE: Case = Case::new(NAME, host).with_payload(guest);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[NAME])?;
    let epilog = "[ $1 = start ] || echo \"the epilog stops\"\n";
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", epilog)])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), &stage.marker())?;
    let locked = site.expect_free(1);
    machine.power_button()?;
    let ended = machine.end()?;
    if locked.is_ok() {
        return Err("expected a locked token while the job runs".to_owned());
    }
    ended.expect_end("100 the host asked for the end")?;
    ended.expect_report("/tokens/0/fate", "released")?;
    ended.expect_report("/tokens/0/end", "stopped, as the machine ends")?;
    ended.expect_phase("work", Some("stopped"))?;
    ended.expect_console("epilog: the epilog stops")?;
    site.expect_free(1)
}

/// This one has nothing to look at: its marker says that it runs.
fn guest(_: &Job) -> Result<ExitCode, String> {
    println!("{}", marker(NAME));
    sleep(Duration::from_secs(3600));
    Err("nobody stopped it".to_owned())
}
