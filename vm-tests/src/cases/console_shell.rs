//! A shell in a job, on the machine's console: only where image and site want it, as the job's user, behind its walls.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::{Job, PAYLOAD_USERS};
use crate::machine::Machine;
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case { deadline: 180, ..Case::new("console-shell", host).with_payload(guest) };
pub const UNASKED: Case = Case::new("console-shell-unasked", unasked).with_payload(guest);

const OFFER: &str = "a shell as its user reads from this console";

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let mut machine = boot(stage, &site, true)?.typing()?.boot()?;
    machine.wait_console(OFFER)?;
    // The program has ended long before anybody has typed a word.
    machine.wait_console("job-1: exit 0; it stays until its shell on the console ends")?;
    let uid = PAYLOAD_USERS.start;
    let asked = [
        ("id -u", format!("shell: {uid}")),
        ("cat /etc/ctxinit/image.json && echo open || echo closed", "shell: closed".to_owned()),
        ("[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo it has no terminal", "shell: it has no terminal".to_owned()),
        ("grep -c . /proc/self/mountinfo >/dev/null && echo I am $$", "shell: I am 3".to_owned()),
        ("nonsense(; echo", "shell: ".to_owned()),
        ("grep '^CapBnd' /proc/self/status", "shell: CapBnd:\t0000000000000000".to_owned()),
        ("cat $TOKEN_FILE; echo", "shell: console-shell".to_owned()),
    ];
    for (typed, answer) in asked {
        machine.type_line(typed)?;
        machine.wait_console(&answer)?;
    }
    machine.type_line("exit")?;
    let ended = machine.end()?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/tokens/0/left_behind", 0)?;
    // Who did what is in the site's log.
    site.expect_record("shell", "typed: id -u")?;
    site.expect_record("shell", &uid.to_string())
}

/// The image allows it, and the site has not asked for it.
fn unasked(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let ended = boot(stage, &site, false)?.run()?;
    ended.expect_no_console(OFFER)?;
    ended.expect_end("200 1 tokens completed")
}

fn boot(stage: &Stage, site: &Site, asked: bool) -> Result<Machine, String> {
    site.fill(&[stage.case.name])?;
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    if asked {
        context["payload"] = json!({"console_shell": true});
    }
    let cd = stage.cd(&[("context.json", &context.to_string())])?;
    let mut policy = policy();
    policy["payload"]["console_shell"] = json!(true);
    Ok(stage.tiny(&policy)?.cd(&cd))
}

fn guest(_: &Job) -> Result<ExitCode, String> {
    Ok(ExitCode::SUCCESS)
}
