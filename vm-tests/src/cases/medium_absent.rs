//! No context CD, and how soon that is certain.
//!
//! | what there is | `optional` | `require` |
//! |---|---|---|
//! | nothing at all (`no_cd`) | absent at the limit | 500 at the limit |
//! | a drive without a disc, or two | absent at once | 500 at the limit |
//! | a disk that can be written to, with a `prolog.sh` | absent at the limit, it is never looked at | |
//! | another system's disk | absent at the limit, the log names it | |

use serde_json::json;

use crate::case::Case;
use crate::cd;
use crate::machine::{Ended, Machine};
use crate::stage::{Stage, policy_with};

/// Far more than a whole case takes, so that a wait shows.
const LONG: u32 = 600;
const UNCONTEXTUALISED: &str = "500 no context CD, and the image names no work source";

pub const EMPTY: Case = Case::new("medium-empty-drive", |stage| {
    let ended = tiny(stage, "optional", LONG)?.qemu(["-device", "ide-cd"]).run()?;
    at_once(&ended, "absent: 1 drive, without disc, ")?;
    ended.expect_report("/medium/seen", json!([{"device": "sr0", "kind": "optical", "what": "no disc"}]))
});

pub const EMPTY_DRIVES: Case = Case::new("medium-empty-drives", |stage| {
    let machine = tiny(stage, "optional", LONG)?.qemu(["-device", "ide-cd", "-device", "ide-cd"]);
    at_once(&machine.run()?, "absent: 2 drives, both without disc, ")
});

pub const EMPTY_REQUIRED: Case = Case::new("medium-empty-drive-required", |stage| {
    let ended = tiny(stage, "require", 3)?.qemu(["-device", "ide-cd"]).run()?;
    ended.expect_end("500 no context CD, and the image requires one")?;
    at_the_limit(&ended, "absent: 1 drive, without disc, ", 3000)?;
    ended.expect_console_end("no context CD yet: 1 drive, without disc; one may come within 3 s")?;
    ended.expect_phase("network", None)
});

/// The command line's limit is for who debugs: 2 s instead of ten minutes.
pub const WRITABLE: Case = Case::new("medium-writable-disk", |stage| {
    let image = cd::build(&stage.dir, "CONTEXT", &[("prolog.sh", "echo the prolog runs\n")])?;
    let drive = format!("if=none,id=rw,format=raw,file={}", image.display());
    let machine = tiny(stage, "optional", LONG)?.words(["--append", "ctxinit.medium_wait=2"]);
    let ended = machine.qemu(["-drive", &drive, "-device", "virtio-blk-pci,drive=rw"]).run()?;
    ended.expect_end(UNCONTEXTUALISED)?;
    ended.expect_report("/medium/seen", json!([]))?;
    at_the_limit(&ended, "absent: no drive, no read-only disk, ", 2000)?;
    ended.expect_console_end("vda: can be written to, so nobody looks at it")?;
    ended.expect_no_console("the prolog runs")
});

pub const NOCLOUD: Case = Case::new("medium-nocloud", |stage| {
    let files = [("meta-data", "instance-id: x\n"), ("user-data", "#!/bin/sh\necho the user data run\n")];
    let image = cd::build(&stage.dir, "cidata", &files)?;
    let drive = format!("if=none,id=nocloud,format=raw,readonly=on,file={}", image.display());
    let machine = tiny(stage, "optional", 2)?.qemu(["-drive", &drive, "-device", "virtio-blk-pci,drive=nocloud"]);
    let ended = machine.run()?;
    ended.expect_end(UNCONTEXTUALISED)?;
    let what = "this is a NoCloud disk, not a context CD (iso9660 volume \"cidata\")";
    ended.expect_console_end(&format!("vda: {what}"))?;
    ended.expect_report("/medium/seen", json!([{"device": "vda", "kind": "disk", "what": what}]))?;
    ended.expect_no_console("the user data run")
});

fn tiny(stage: &Stage, need: &str, wait_secs: u32) -> Result<Machine, String> {
    stage.tiny(&policy_with(json!({"medium": {"need": need, "wait_secs": wait_secs}})))
}

/// Not before; how long after is the host's affair, but no multiple of what a whole case takes.
fn at_the_limit(ended: &Ended, why: &str, limit: u64) -> Result<(), String> {
    let told = ended.report("/medium/why").as_str().unwrap_or_default();
    let millis: Option<u64> = told.strip_prefix(why).and_then(|rest| rest.strip_suffix(" ms")?.parse().ok());
    let right = millis.is_some_and(|millis| (limit..limit + 20_000).contains(&millis));
    if right { Ok(()) } else { Err(format!("expected \"{why}\" and {limit} ms, got {told:?}")) }
}

fn at_once(ended: &Ended, why: &str) -> Result<(), String> {
    ended.expect_end(UNCONTEXTUALISED)?;
    ended.expect_report("/medium/state", "absent")?;
    ended.expect_report_start("/medium/why", why)?;
    let millis = ended.millis("medium")?;
    // A loaded host makes everything slow; the limit is 600 s.
    if millis < 20_000 { Ok(()) } else { Err(format!("expected it to be decided at once, it took {millis} ms")) }
}
