//! A job of which something is left: the machine says what, takes no more work, and comes to its end nevertheless.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::guest::{Job, read};
use crate::process;
use crate::site::Site;
use crate::stage::{Stage, policy};

pub const FROZEN: Case = Case { deadline: 240, ..Case::new("dirty-frozen", frozen).with_payload(writes_to_the_frozen) };
pub const HELD: Case = Case::new("dirty-held", held).with_payload(is_held);

/// The CD is the first disk and the image the second.
const FREEZER: &str = r#"
[ "$1" = start ] || return 0
mkdir -p /cvmfs/shared && busybox mount -t ext4 /dev/vdc /cvmfs/shared && chmod 1777 /cvmfs/shared || exit 1
(
    until [ -e /cvmfs/shared/go ]; do sleep 0.2; done
    busybox fsfreeze --freeze /cvmfs/shared && echo "the site's file system stands still"
) &
"#;

/// A process that waits for a file system in the kernel hears no signal, SIGKILL included.
fn frozen(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["dirty-frozen 1", "dirty-frozen 2"])?;
    let disk = stage.dir.join("shared.ext4");
    process::make(Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&disk).arg("16M"), Duration::from_secs(60))?;
    let drive = format!("if=none,id=shared,format=raw,file={}", disk.display());
    let cd = stage.cd(&[("prolog.sh", FREEZER), ("context.json", &site.context())])?;
    let mut policy = policy();
    policy["payload"]["writable"] = json!(["/cvmfs/shared"]);
    let machine = stage.debian_writable(&policy, &[("/bin/busybox", "usr/bin/busybox")])?.cd(&cd);
    let ended = machine.qemu(["-drive", &drive, "-device", "virtio-blk-pci,drive=shared"]).run()?;
    ended.expect_console("prolog: the site's file system stands still")?;
    let verdict = ended.report("/verdict/text").as_str().unwrap_or_default();
    if !verdict.starts_with("no more work in this machine: job-1 cannot be killed: sh (") {
        return Err(format!("expected a machine that says who cannot be killed, got {verdict:?}"));
    }
    ended.expect_report("/verdict/code", 700)?;
    ended.expect_report("/tokens/0/fate", "completed")?;
    ended.expect_report("/tokens/0/left_behind", 1)?;
    site.expect_free(1)
}

fn writes_to_the_frozen(_: &Job) -> Result<ExitCode, String> {
    fs::write("/cvmfs/shared/go", "").map_err(|error| format!("/cvmfs/shared/go: {error}"))?;
    let writer = Command::new("/bin/sh").args(["-c", "while :; do echo >>/cvmfs/shared/lines; done"]).spawn();
    let writer = writer.map_err(|error| format!("/bin/sh: {error}"))?;
    // It waits for a moment also while nothing is frozen.
    let mut waits = 0;
    while waits < 20 {
        sleep(Duration::from_millis(50));
        let stat = read(&format!("/proc/{}/stat", writer.id()))?;
        waits = if stat.contains(") D ") { waits + 1 } else { 0 };
    }
    Ok(ExitCode::SUCCESS)
}

const HOLDER: &str = r#"
[ "$1" = start ] || return 0
(
    until cd /run/ctxinit/jobs/job-1 2>/dev/null && [ -e home/token ]; do sleep 0.1; done
    echo "somebody is in the job's directory"
    echo >home/held
    exec sleep 1000
) &
"#;

/// What a job has written would outlive it.
fn held(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["dirty-held 1", "dirty-held 2"])?;
    let cd = stage.cd(&[("prolog.sh", HOLDER), ("context.json", &site.context())])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_console("prolog: somebody is in the job's directory")?;
    let what = "no more work in this machine: job-1 is not gone: cannot unmount what is on /run/ctxinit/jobs/job-1: ";
    ended.expect_report_start("/verdict/text", what)?;
    ended.expect_report("/verdict/code", 700)?;
    ended.expect_report("/tokens/0/fate", "completed")?;
    site.expect_free(1)
}

fn is_held(_: &Job) -> Result<ExitCode, String> {
    while !Path::new("held").exists() {
        sleep(Duration::from_millis(50));
    }
    Ok(ExitCode::SUCCESS)
}
