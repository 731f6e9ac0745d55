//! The power button, or Ctrl-Alt-Del, during a job: the job is stopped, its lock released, and the machine ends
//! with 100.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use crate::case::{Case, marker};
use crate::qmp;
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const POWER_BUTTON: Case =
    Case::new("power-button", |stage| host(stage, qmp::POWER_BUTTON)).with_payload(|_| guest("power-button"));
pub const CTRL_ALT_DEL: Case =
    Case::new("ctrl-alt-del", |stage| host(stage, qmp::CTRL_ALT_DEL)).with_payload(|_| guest("ctrl-alt-del"));

fn host(stage: &Stage, wish: &str) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&[stage.case.name])?;
    let epilog = "[ $1 = start ] || echo \"the epilog stops\"\n";
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", epilog)])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), &stage.marker())?;
    let locked = site.expect_free(1);
    machine.host_does(wish)?;
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
fn guest(name: &str) -> Result<ExitCode, String> {
    println!("{}", marker(name));
    sleep(Duration::from_secs(3600));
    Err("nobody stopped it".to_owned())
}
