//! The spool: records that no server took wait on a disk for the next machine.
//!
//! | case | the disk | what comes of it |
//! |---|---|---|
//! | `spool-power-cut` | in use when the machine loses its power, then on another bus | the next machine delivers what was written, as it was |
//! | `spool-full` | too small for what a payload says | audit records come, what was dropped is counted |
//! | `spool-damaged` | a superblock with a wrong byte, and a site that has blank disks formatted | memory instead, and the same bytes afterwards |
//! | `spool-two` | two of them | memory instead, and the same bytes afterwards |

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::{Case, marker};
use crate::disk::Disk;
use crate::guest::Job;
use crate::machine::Ended;
use crate::process;
use crate::site::{HOST, Site, keep_port};
use crate::stage::{CTXTOOL, Stage, policy, policy_with};

/// Two boots take two times as long.
const TWICE: u32 = 240;
const LIMIT: Duration = Duration::from_secs(60);
/// Lines of a payload: more than are written between two writes of the disk.
const LINES: usize = 3000;

pub const POWER_CUT: Case = Case { deadline: TWICE, ..Case::new("spool-power-cut", power_cut).with_payload(guest) };
pub const FULL: Case = Case { deadline: TWICE, ..Case::new("spool-full", full).with_payload(guest) };
pub const DAMAGED: Case = Case::new("spool-damaged", damaged).with_payload(guest);
pub const TWO: Case = Case::new("spool-two", two).with_payload(guest);

/// A spool of so many MiB.
fn spool(stage: &Stage, name: &str, mb: u64) -> Result<Disk, String> {
    let disk = Disk::blank(&stage.dir, name, mb << 20)?;
    process::make(Command::new(CTXTOOL).args(["log", "spool"]).arg(stage.dir.join(name)), LIMIT)?;
    Ok(disk)
}

/// The records that wait there, each as a server gets it.
fn waiting(stage: &Stage, name: &str) -> Result<Vec<String>, String> {
    let mut command = Command::new(CTXTOOL);
    command.args(["log", "spool", "--show", "--print"]).arg(stage.dir.join(name));
    Ok(process::output(&mut command, LIMIT)?.lines().map(str::to_owned).collect())
}

/// The context of a machine whose syslog server is away. The socket is bound and never listens, so connections are
/// refused and nobody else is given the port.
fn away(site: &Site, name: &str) -> Result<(OwnedFd, String), String> {
    let (port, keeper) = keep_port().map_err(|errno| errno.to_string())?;
    Ok((keeper, site.context_with(json!({"hostname": name, "syslog": {"server": HOST, "port": port}}))))
}

fn boot_and_number(record: &str) -> Option<(&str, u64)> {
    let value = |name: &str| record.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split('"').next());
    Some((value(" boot")?, value("[meta sequenceId")?.parse().ok()?))
}

fn power_cut(stage: &Stage) -> Result<(), String> {
    const NAME: &str = "spool.img";
    let disk = spool(stage, NAME, 16)?;
    let site = Site::start(stage)?;
    site.fill(&["spool-power-cut wait"])?;
    let (_keeper, context) = away(&site, "first-vm")?;
    let machine = disk.of(stage.tiny(&policy())?).cd(&stage.cd(&[("context.json", &context)])?).boot()?;
    machine.wait_console("phase policy: ok")?;
    let begun = Instant::now();
    let said = stage.marker();
    let written = loop {
        let records = waiting(stage, NAME)?;
        if records.iter().any(|record| record.ends_with(&said)) {
            break records;
        }
        if begun.elapsed() > machine.patience() {
            return Err(format!("expected {said:?} on the spool, it has {} records", records.len()));
        }
        sleep(Duration::from_millis(200));
    };
    // QEMU is killed: what the guest's memory held is gone.
    drop(machine);
    let found = waiting(stage, NAME)?;
    if !found.starts_with(&written) {
        return Err(format!("expected the {} records that were written, found {}", written.len(), found.len()));
    }
    let first_boot = written.first().and_then(|record| boot_and_number(record)).ok_or("no boot id")?.0.to_owned();
    for (number, record) in (1..).zip(&found) {
        if boot_and_number(record) != Some((first_boot.as_str(), number)) || !record.contains(" first-vm ") {
            return Err(format!("expected number {number} of first-vm, got {record:?}"));
        }
    }

    // Found by what it holds, wherever it hangs.
    site.fill(&["spool-power-cut second"])?;
    let context = site.context_with(json!({"hostname": "second-vm"}));
    let drive = format!("if=none,id=spool,format=raw,file={}", stage.dir.join(NAME).display());
    let machine = stage.tiny(&policy())?.cd(&stage.cd(&[("context.json", &context)])?);
    let ended =
        machine.qemu(["-device", "virtio-scsi-pci", "-drive", &drive, "-device", "scsi-hd,drive=spool"]).run()?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/log/undelivered", 0)?;
    ended.expect_report("/log/spooled", 0)?;
    let _ = site.syslog.records();
    let received = site.syslog.lines().all();
    if !received.starts_with(&found) {
        let same = received.iter().zip(&found).take_while(|(got, want)| got == want).count();
        return Err(format!("expected the first boot's {} records, {same} came as they were", found.len()));
    }
    let rest = received.get(found.len()..).unwrap_or_default();
    for (number, record) in (1..).zip(rest) {
        let told = boot_and_number(record).ok_or("no boot id")?;
        if told.0 == first_boot || told.1 != number || !record.contains(" second-vm ") {
            return Err(format!("expected number {number} of second-vm, got {record:?}"));
        }
    }
    if waiting(stage, NAME)?.is_empty() { Ok(()) } else { Err("expected an empty spool".to_owned()) }
}

fn full(stage: &Stage) -> Result<(), String> {
    let disk = spool(stage, "spool.img", 2)?;
    let site = Site::start(stage)?;
    site.fill(&["spool-full loud"])?;
    let (_keeper, context) = away(&site, "first-vm")?;
    let ended = disk.of(stage.tiny(&policy())?).cd(&stage.cd(&[("context.json", &context)])?).run()?;
    ended.expect_end("200 1 tokens completed")?;
    let (undelivered, spooled) = (ended.number("/log/undelivered")?, ended.number("/log/spooled")?);
    ended.expect_console(&format!("ctxinit: {spooled} undelivered records wait on the spool"))?;
    if spooled == 0 || spooled >= undelivered {
        return Err(format!("expected dropped records beside those on the spool, got {spooled} of {undelivered}"));
    }
    site.fill(&["spool-full second"])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let second = disk.of(stage.tiny(&policy())?).cd(&cd).run()?;
    second.expect_report("/log/spooled", 0)?;
    // What the second machine says before it has a network meets a full spool.
    let again = second.number("/log/undelivered")?;
    let records = site.syslog.records();
    let boot = records.first().map(|record| record.value("boot").to_owned()).unwrap_or_default();
    let (first, rest): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.value("boot") == boot);
    let number = |name: &str, record: &crate::syslog::Record| record.value(name).parse::<u64>().unwrap_or(0);
    let last = |of: &[&crate::syslog::Record]| of.iter().map(|record| number("sequenceId", record)).max().unwrap_or(0);
    let dropped = |of: &[&crate::syslog::Record]| {
        of.iter().filter(|record| record.msgid == "log-gap").map(|record| number("count", record)).sum::<u64>()
    };
    let told = (spooled + dropped(&first), dropped(&rest), records.len() as u64 + again);
    let expected = (last(&first), again, spooled + last(&rest));
    if told != expected {
        return Err(format!("expected {expected:?} of the first, dropped by the second, and of both, got {told:?}"));
    }
    for id in ["vm-start", "job-start", "job-end", "vm-stop"] {
        if !first.iter().any(|record| record.msgid == id) {
            return Err(format!("expected the audit record {id} of the first boot"));
        }
    }
    Ok(())
}

/// One machine that works as if it had no spool.
fn without(stage: &Stage, why: &str, disks: &[&Disk], policy: &Value, user_disk: Value) -> Result<Ended, String> {
    let before = disks.iter().map(|disk| disk.bytes()).collect::<Result<Vec<_>, _>>()?;
    let site = Site::start(stage)?;
    site.fill(&[format!("{} without", stage.case.name).as_str()])?;
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    if let Some(context) = context.as_object_mut().filter(|_| !user_disk.is_null()) {
        context.insert("user_disk".to_owned(), user_disk);
    }
    let machine = disks.iter().fold(stage.tiny(policy)?, |machine, disk| disk.of(machine));
    let ended = machine.cd(&stage.cd(&[("context.json", &context.to_string())])?).run()?;
    ended.expect_end("200 1 tokens completed")?;
    let line = format!("no spool: {why}; the log waits in memory");
    ended.expect_console(&format!("ctxinit: {line}"))?;
    ended.expect_report("/log/spooled", Value::Null)?;
    site.expect_record("ctxinit", &line)?;
    site.expect_record("payload", &stage.marker())?;
    let after = disks.iter().map(|disk| disk.bytes()).collect::<Result<Vec<_>, _>>()?;
    if before == after { Ok(ended) } else { Err("expected untouched disks".to_owned()) }
}

fn damaged(stage: &Stage) -> Result<(), String> {
    let disk = spool(stage, "spool.img", 16)?;
    disk.write(20, &[1])?;
    let policy = policy_with(json!({"user_disk": {"need": "optional"}}));
    // The CD is the first disk.
    let why = "/dev/vdb: a spool whose first block is damaged";
    let ended = without(stage, why, &[&disk], &policy, json!({"format": true}))?;
    ended.expect_report_start("/user_disk/why", "no disk with label CTXUSER")
}

fn two(stage: &Stage) -> Result<(), String> {
    let (one, other) = (spool(stage, "one.img", 16)?, spool(stage, "other.img", 16)?);
    let why = "several disks are one: /dev/vdb, /dev/vdc";
    without(stage, why, &[&one, &other], &policy(), Value::Null).map(drop)
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    let entries = fs::read_dir("/dev").map_err(|error| format!("/dev: {error}"))?;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_block_device()) {
            return Err(format!("expected no disk, there is {}", entry.path().display()));
        }
    }
    let word = job.words.first().map(String::as_str);
    let mut out = std::io::stdout().lock();
    let mut say = |line: &str| writeln!(out, "{line}").map_err(|error| error.to_string());
    match word {
        Some("wait") => {
            (0..LINES).try_for_each(|n| say(&format!("line {n}")))?;
            say(&marker(POWER_CUT.name))?;
            sleep(Duration::from_secs(3600));
        }
        Some("loud") => (0..3 * LINES).try_for_each(|n| say(&format!("line {n} {}", "x".repeat(500))))?,
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}
