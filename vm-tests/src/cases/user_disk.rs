//! The user's disk, which outlives machines.
//!
//! | case | the disk | what comes of it |
//! |---|---|---|
//! | `disk-keeps`, `disk-xfs` | used by one machine, then by another whose job has another user | the job's own, both times |
//! | `disk-format` | blank, and the site allows it | made, checked by the next machine |
//! | `disk-not-blank` | one byte in the first MiB | the same bytes afterwards |
//! | `disk-not-allowed` | blank, and the site says nothing | the same bytes afterwards |
//! | `disk-grown` | larger than its file system | grown |
//! | `disk-repaired` | not unmounted in order, with a fault | e2fsck puts it right |
//! | `disk-broken`, `disk-required` | a superblock and nothing else | the job runs without, or no job |
//! | `disk-no-source` | with a prolog.sh and a context.sh | nobody reads them |
//! | `disk-two` | two with the label | neither is taken |
//! | `disk-power-button` | in use when the button is pressed | unmounted in order |
//! | `disk-left` | an e2fsck that leaves a process with the disk open | it is dead before a job starts |
//! | `disk-tool-button` | an e2fsck that hangs when the button is pressed, and hears no SIGTERM | dead, and the machine ends |

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::{Case, marker};
use crate::disk::{Disk, SIZE, SIZE_XFS, programs};
use crate::guest::{self, Job, PAYLOAD_USERS};
use crate::machine::{Ended, Machine, Running};
use crate::qmp;
use crate::site::Site;
use crate::stage::{Stage, policy_with};

/// Two boots take two times as long.
const TWICE: u32 = 240;
/// On the disk, from the jobs' home.
const DIARY: &str = "work/diary";
const LABEL: &str = "CTXUSER";

pub const KEEPS: Case = Case { deadline: TWICE, ..Case::new("disk-keeps", keeps).with_payload(guest) };
pub const XFS: Case = Case { deadline: TWICE, ..Case::new("disk-xfs", xfs).with_payload(guest) };
pub const FORMAT: Case = Case { deadline: TWICE, ..Case::new("disk-format", format).with_payload(guest) };
pub const NOT_BLANK: Case = Case::new("disk-not-blank", |stage| untouched(stage, true)).with_payload(guest);
pub const NOT_ALLOWED: Case = Case::new("disk-not-allowed", |stage| untouched(stage, false)).with_payload(guest);
pub const GROWN: Case = Case::new("disk-grown", grown).with_payload(guest);
pub const REPAIRED: Case = Case::new("disk-repaired", repaired).with_payload(guest);
pub const BROKEN: Case = Case::new("disk-broken", |stage| broken(stage, "optional")).with_payload(guest);
pub const REQUIRED: Case = Case::new("disk-required", |stage| broken(stage, "require")).with_payload(guest);
pub const NO_SOURCE: Case = Case::new("disk-no-source", no_source).with_payload(guest);
pub const TWO: Case = Case::new("disk-two", two).with_payload(guest);
pub const POWER_BUTTON: Case = Case::new("disk-power-button", power_button).with_payload(guest);
pub const LEFT: Case = Case::new("disk-left", left).with_payload(guest);
pub const TOOL_BUTTON: Case = Case::new("disk-tool-button", tool_button).with_payload(guest);

/// Says which network devices it has; keeps the disk open for writing.
const E2FSCK: &str = "#!/bin/sh
exec 3<>$2
echo devices: $(sed -n 's/:.*//p' /proc/self/net/dev) and no other
";
/// Ends when the one whom it leaves behind has spoken.
const LEAVES: &str = "trap 'exit 0' USR1
(trap '' TERM; echo alive; kill -USR1 $$; while :; do sleep 1; done) &
wait
";
/// Never comes back, and never is quiet.
const HANGS: &str = "trap '' TERM
while :; do echo hanging; done
";
/// When the jobs are over. Payloads see their own processes alone.
const LOOK: &str = "[ $1 = stop ] || exit 0
echo looks for tools
grep -l 'Uid:.65545' /proc/[0-9]*/status | while read who; do echo left: $who; done
";

fn policy(need: &str) -> Value {
    policy_with(json!({"user_disk": {"need": need}}))
}

/// A site whose context says this of the disk.
fn site(stage: &Stage, user_disk: &Value) -> Result<(Site, String), String> {
    let site = Site::start(stage)?;
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    if let Some(context) = context.as_object_mut().filter(|_| !user_disk.is_null()) {
        context.insert("user_disk".to_owned(), user_disk.clone());
    }
    Ok((site, context.to_string()))
}

/// One machine, whose only job gets these words.
fn boot(stage: &Stage, site: &Site, context: &str, machine: Machine, words: &str) -> Result<Ended, String> {
    site.fill(&[format!("{} {words}", stage.case.name).as_str()])?;
    let ended = machine.cd(&stage.cd(&[("context.json", context)])?).run()?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/tokens/0/fate", "completed")?;
    Ok(ended)
}

/// Checks for the owner of a file on the disk.
fn expect_owner(disk: &Disk, path: &str, owner: u32) -> Result<(), String> {
    let stat = disk.debugfs(&format!("stat {path}"))?;
    let words: Vec<&str> = stat.split_whitespace().collect();
    let of = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1)).copied();
    let owner = owner.to_string();
    let right = of("User:") == Some(&owner) && of("Group:") == Some(&owner);
    if right { Ok(()) } else { Err(format!("expected {path} to be of {owner} on the disk, debugfs says {stat:?}")) }
}

/// The image of a site, whose guard must not take the disk for a stranger's.
fn keeps(stage: &Stage) -> Result<(), String> {
    let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL])?;
    let (site, context) = site(stage, &Value::Null)?;
    let e2fsck = programs(&["e2fsck"])?;
    let e2fsck: Vec<(&str, &str)> = e2fsck.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    for words in ["first", "second"] {
        let ended = boot(stage, &site, &context, disk.of(stage.debian_with(&policy("require"), &e2fsck)?), words)?;
        ended.expect_report("/user_disk/state", "ready")?;
        ended.expect_report("/user_disk/checked", "clean")?;
        ended.expect_report("/user_disk/grown_from", Value::Null)?;
        ended.expect_report("/guard/violations", 0)?;
        ended.expect_report("/guard/complete", true)?;
        disk.expect_clean()?;
    }
    expect_owner(&disk, "/", 1000)?;
    expect_owner(&disk, DIARY, 1000)?;
    let diary = disk.debugfs(&format!("cat {DIARY}"))?;
    if diary == "first\nsecond\n" { Ok(()) } else { Err(format!("expected two lines on the disk, got {diary:?}")) }
}

fn xfs(stage: &Stage) -> Result<(), String> {
    let disk = Disk::xfs(&stage.dir, "user.img", LABEL)?;
    disk.extend(SIZE_XFS + (64 << 20))?;
    let (site, context) = site(stage, &Value::Null)?;
    for (words, grown_from) in [("first", json!(SIZE_XFS)), ("second", Value::Null)] {
        let ended = boot(stage, &site, &context, disk.of(stage.tiny(&policy("require"))?), words)?;
        ended.expect_report("/user_disk/filesystem", "xfs")?;
        ended.expect_report("/user_disk/bytes", SIZE_XFS + (64 << 20))?;
        ended.expect_report("/user_disk/grown_from", grown_from)?;
    }
    Ok(())
}

fn format(stage: &Stage) -> Result<(), String> {
    const UUID: &str = "0c1d3e5f-7a9b-4c6d-8e2f-4f5d9b6a1f3d";
    let disk = Disk::blank(&stage.dir, "user.img", SIZE)?;
    let (site, context) = site(stage, &json!({"format": true, "uuid": UUID}))?;
    let tools = programs(&["mkfs.ext4", "e2fsck"])?;
    for (words, formatted, checked) in [("first", true, Value::Null), ("second", false, json!("clean"))] {
        let machine = stage.tiny_with_host(&policy("require"), &tools)?;
        let ended = boot(stage, &site, &context, disk.of(machine), words)?;
        ended.expect_report("/user_disk/formatted", formatted)?;
        ended.expect_report("/user_disk/checked", checked)?;
        ended.expect_report("/user_disk/uuid", UUID)?;
        disk.expect_clean()?;
    }
    expect_owner(&disk, DIARY, 1000)
}

/// A disk that must not be formatted: the job runs without, and the disk is what it was.
fn untouched(stage: &Stage, allowed: bool) -> Result<(), String> {
    let disk = Disk::blank(&stage.dir, "user.img", SIZE)?;
    if allowed {
        disk.write((1 << 20) - 1, b"x")?;
    }
    let before = disk.bytes()?;
    let (site, context) = site(stage, &json!({"format": allowed}))?;
    let machine = stage.tiny_with_host(&policy("optional"), &programs(&["mkfs.ext4", "e2fsck"])?)?;
    let ended = boot(stage, &site, &context, disk.of(machine), "without")?;
    ended.expect_report("/user_disk/state", "absent")?;
    let none = if allowed { ", and none is blank" } else { "" };
    let why = format!("no disk with label CTXUSER{none} (vda: iso9660 \"CONTEXT\"; vdb: no file system that we know)");
    ended.expect_report("/user_disk/why", why)?;
    ended.expect_report("/user_disk/formatted", false)?;
    if disk.bytes()? == before { Ok(()) } else { Err("expected the disk to be what it was".to_owned()) }
}

fn grown(stage: &Stage) -> Result<(), String> {
    let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL])?;
    disk.extend(2 * SIZE)?;
    let (site, context) = site(stage, &Value::Null)?;
    let ended = boot(stage, &site, &context, disk.of(stage.tiny(&policy("require"))?), "first")?;
    ended.expect_report("/user_disk/grown_from", SIZE)?;
    ended.expect_report("/user_disk/bytes", 2 * SIZE)?;
    disk.expect_clean()?;
    let header = disk.debugfs("show_super_stats -h")?;
    let blocks = header.lines().find_map(|line| line.strip_prefix("Block count:")).map(str::trim).unwrap_or_default();
    let size = header.lines().find_map(|line| line.strip_prefix("Block size:")).map(str::trim).unwrap_or_default();
    let bytes = |text: &str| text.parse::<u64>().unwrap_or(0);
    let bytes = bytes(blocks) * bytes(size);
    if bytes == 2 * SIZE { Ok(()) } else { Err(format!("expected {} bytes on the disk, got {bytes}", 2 * SIZE)) }
}

/// A link count that is wrong, on a file system that says so.
fn repaired(stage: &Stage) -> Result<(), String> {
    let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL])?;
    disk.change("set_inode_field lost+found links_count 7")?;
    disk.change("set_super_value state 2")?;
    let (site, context) = site(stage, &Value::Null)?;
    let machine = stage.tiny_with_host(&policy("require"), &programs(&["e2fsck"])?)?;
    let ended = boot(stage, &site, &context, disk.of(machine), "first")?;
    ended.expect_report("/user_disk/checked", "repaired")?;
    disk.expect_clean()
}

/// Everything behind the superblock is lost: e2fsck -p gives up on it, and without one the kernel does.
fn broken(stage: &Stage, need: &str) -> Result<(), String> {
    let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL])?;
    disk.write(4096, &vec![0xa5; (SIZE - 4096) as usize])?;
    let (site, context) = site(stage, &Value::Null)?;
    let machine = disk.of(stage.tiny(&policy(need))?);
    let ended = if need == "optional" {
        boot(stage, &site, &context, machine, "without")?
    } else {
        site.fill(&[stage.case.name])?;
        let ended = machine.cd(&stage.cd(&[("context.json", &context)])?).run()?;
        ended.expect_phase("work", None)?;
        ended.expect_report_start("/verdict/text", "the user's disk: /dev/vdb: cannot mount /dev/vdb on ")?;
        ended.expect_report("/verdict/code", 500)?;
        site.expect_free(1)?;
        ended
    };
    ended.expect_phase("disk", Some("failed"))?;
    ended.expect_report("/user_disk/state", "bad")?;
    // The CD is the first disk.
    ended.expect_report("/user_disk/device", "vdb")
}

/// A disk that holds what a context CD holds is none, whether the machine can write to it or not; nor does the policy of
/// anybody come from there.
fn no_source(stage: &Stage) -> Result<(), String> {
    let tree = stage.dir.join("tree");
    let made = fs::create_dir_all(tree.join("etc/ctxinit")).and_then(|()| {
        let script = "echo \"the disk's script runs\" >/dev/kmsg\n";
        for name in ["prolog.sh", "epilog.sh", "init.sh", "context.sh"] {
            fs::write(tree.join(name), script)?;
        }
        fs::write(tree.join("context.json"), r#"{"hostname": "of-the-disk"}"#)?;
        fs::write(tree.join("etc/ctxinit/image.json"), "{}")
    });
    made.map_err(|error| format!("{}: {error}", tree.display()))?;
    let tree = tree.display().to_string();
    let (site, context) = site(stage, &Value::Null)?;
    for read_only in [false, true] {
        let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL, "-E", "root_owner=1000:1000", "-d", &tree])?;
        let machine = stage.tiny(&policy("require"))?;
        let (machine, words) =
            if read_only { (disk.read_only(machine), "read-only") } else { (disk.of(machine), "first") };
        let ended = boot(stage, &site, &context, machine, words)?;
        ended.expect_report("/medium/state", "found")?;
        ended.expect_report("/medium/filesystem", "iso9660")?;
        ended.expect_report("/user_disk/read_only", read_only)?;
        for name in ["prolog", "epilog"] {
            ended.expect_phase(name, Some("skipped"))?;
        }
        ended.expect_no_console("the disk's script runs")?;
        if ended.report("/hostname") == "of-the-disk" {
            return Err("the disk's context.json was read".to_owned());
        }
    }
    Ok(())
}

fn two(stage: &Stage) -> Result<(), String> {
    let one = Disk::ext4(&stage.dir, "one.img", &["-L", LABEL])?;
    let other = Disk::ext4(&stage.dir, "other.img", &["-L", LABEL])?;
    let before = (one.bytes()?, other.bytes()?);
    let (site, context) = site(stage, &json!({"format": true}))?;
    let machine = other.of(one.of(stage.tiny(&policy("optional"))?));
    let ended = boot(stage, &site, &context, machine, "without")?;
    ended.expect_phase("disk", Some("failed"))?;
    ended.expect_report("/user_disk/state", "bad")?;
    ended.expect_report("/user_disk/why", "label CTXUSER is on several disks: /dev/vdb, /dev/vdc")?;
    if (one.bytes()?, other.bytes()?) == before { Ok(()) } else { Err("expected untouched disks".to_owned()) }
}

/// The journal is empty afterwards, and what the job wrote is there.
fn power_button(stage: &Stage) -> Result<(), String> {
    let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL])?;
    let (site, context) = site(stage, &Value::Null)?;
    site.fill(&["disk-power-button wait"])?;
    let machine = disk.of(stage.tiny(&policy("require"))?).cd(&stage.cd(&[("context.json", &context)])?).boot()?;
    site.wait_record(machine.patience(), &stage.marker())?;
    machine.host_does(qmp::POWER_BUTTON)?;
    let ended = machine.end()?;
    ended.expect_end("100 the host asked for the end")?;
    disk.expect_clean()?;
    let diary = disk.debugfs(&format!("cat {DIARY}"))?;
    if diary == "wait\n" { Ok(()) } else { Err(format!("expected the job's line on the disk, got {diary:?}")) }
}

/// The tool ends well; who it leaves behind does not get to write to what is mounted.
fn left(stage: &Stage) -> Result<(), String> {
    let ended = with_tool(stage, LEAVES, "first", |_| Ok(()))?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/user_disk/checked", "clean")?;
    ended.expect_console("e2fsck: alive")?;
    ended.expect_console("ctxinit: e2fsck: ended, and left running: e2fsck (")
}

fn tool_button(stage: &Stage) -> Result<(), String> {
    let ended = with_tool(stage, HANGS, "never", |machine| {
        machine.wait_console("e2fsck: [64 KiB of output: what follows is thrown away]")?;
        machine.host_does(qmp::POWER_BUTTON)
    })?;
    ended.expect_end("100 the host asked for the end")?;
    ended.expect_phase("work", None)
}

/// A machine whose e2fsck does this; nobody of it may live at the end, nor have had a network.
fn with_tool(
    stage: &Stage,
    does: &str,
    words: &str,
    meanwhile: impl FnOnce(&Running) -> Result<(), String>,
) -> Result<Ended, String> {
    let disk = Disk::ext4(&stage.dir, "user.img", &["-L", LABEL])?;
    let (site, context) = site(stage, &Value::Null)?;
    site.fill(&[format!("{} {words}", stage.case.name).as_str()])?;
    let e2fsck = format!("{E2FSCK}{does}");
    let machine = disk.of(stage.tiny_with(&policy("require"), &[("sbin/e2fsck", &e2fsck)])?);
    let machine = machine.cd(&stage.cd(&[("context.json", &context), ("epilog.sh", LOOK)])?).boot()?;
    meanwhile(&machine)?;
    let ended = machine.end()?;
    ended.expect_console("epilog: looks for tools")?;
    ended.expect_no_console("epilog: left: ")?;
    ended.expect_console("e2fsck: devices: lo and no other")?;
    Ok(ended)
}

/// What a job sees of it.
fn guest(job: &Job) -> Result<ExitCode, String> {
    let word = job.words.first().map(String::as_str).unwrap_or_default();
    let home = env::var("HOME").map_err(|_| "no variable HOME".to_owned())?;
    let disk = env::var("USER_DISK").ok();
    match (word, &disk) {
        ("without", None) => return Ok(ExitCode::SUCCESS),
        ("without", Some(disk)) => return Err(format!("expected no disk, there is {disk}")),
        (_, Some(disk)) if *disk == home => {}
        (_, disk) => return Err(format!("expected HOME {home} to be the disk, which is {disk:?}")),
    }
    let of = |path: &str| fs::metadata(path).map_err(|error| format!("{path}: {error}"));
    let own = nix::unistd::getuid().as_raw();
    if !PAYLOAD_USERS.contains(&own) || of(&home)?.uid() != own || of(&home)?.gid() != own {
        return Err(format!("expected {home} to be of {own}, it is of {}", of(&home)?.uid()));
    }
    // Root's on the disk is nobody's here.
    let lost = format!("{home}/lost+found");
    if fs::exists(&lost).unwrap_or(false) && of(&lost)?.uid() != 65534 {
        return Err(format!("expected {lost} to be nobody's, it is of {}", of(&lost)?.uid()));
    }
    let mounts = guest::read("/proc/self/mounts")?;
    let options = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next() == Some(&home)).then(|| fields.nth(1).unwrap_or_default())
    });
    let options = options.ok_or_else(|| format!("{home} is no mount"))?;
    if !options.contains("nosuid") || !options.contains("nodev") {
        return Err(format!("expected {home} nosuid and nodev, it is {options}"));
    }
    let path = format!("{home}/{DIARY}");
    if word == "read-only" {
        let refused = OpenOptions::new().append(true).create(true).open(&path).is_err();
        return if refused { Ok(ExitCode::SUCCESS) } else { Err(format!("{path} could be written")) };
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    let expected = if word == "second" { "first\n" } else { "" };
    if before != expected {
        return Err(format!("expected {path} to hold {expected:?}, it holds {before:?}"));
    }
    let written = fs::create_dir_all(format!("{home}/work")).and_then(|()| {
        let mut diary = OpenOptions::new().append(true).create(true).open(&path)?;
        diary.write_all(format!("{word}\n").as_bytes())
    });
    written.map_err(|error| format!("{path}: {error}"))?;
    if of(&path)?.uid() != own {
        return Err(format!("expected {path} to be of {own}"));
    }
    if word == "wait" {
        println!("{}", marker(POWER_BUTTON.name));
        sleep(Duration::from_secs(3600));
    }
    Ok(ExitCode::SUCCESS)
}
