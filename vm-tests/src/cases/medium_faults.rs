//! A context CD with a fault. What passes is tried again until the limit; of one that could not be read to its end,
//! nothing runs, and the message names the file or the device.
//!
//! | fault | outcome |
//! |---|---|
//! | the volume descriptor fails a few times | found |
//! | the sector of `prolog.sh` fails for good | 500, `prolog.sh` is named |
//! | the image was cut off (`truncated_cd`) | 500, the file is named |
//! | in a drive: wrong magic, or an image of 20 kB | 500, the drive is named |
//! | on a disk: wrong magic (it might be anybody's) | absent, the disk is named |
//! | 256 KiB a second | found, however long reading takes |
//! | larger than the image allows | 500, the limit is named |

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use serde_json::json;

use crate::case::Case;
use crate::machine::{Ended, Medium};
use crate::stage::{Stage, policy_with};

/// Where the primary volume descriptor lies.
const DESCRIPTOR: u64 = 16 * 2048;
const BROKEN: &str = "500 the context CD cannot be read: ";

pub const PASSING: Case = Case::new("medium-passing-fault", |stage| {
    // The kernel itself reads twice before it gives up.
    let rule = "[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"64\"\nonce = \"on\"\n";
    let ended = boot(stage, &[], &rule.repeat(6), "ide-cd,drive=faulty")?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_console_end("; that may pass within 20 s")?;
    ended.expect_report("/medium/state", "found")
});

pub const BAD_SECTOR: Case = Case::new("medium-bad-sector", |stage| {
    let large = "x".repeat(1024 * 1024);
    let cd = stage.cd(&files(stage, &[("large", &large)]).each())?;
    let image = fs::read(&cd.image).map_err(|error| format!("{}: {error}", cd.image.display()))?;
    let place = image.windows(PROLOG.len()).position(|part| part == PROLOG.as_bytes()).ok_or("no prolog on the CD")?;
    let rule = format!("[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nsector = \"{}\"\n", place / 512);
    let ended = boot(stage, &[("large", &large)], &rule, "virtio-blk-pci,drive=faulty")?;
    ended.expect_end(&format!("{BROKEN}/dev/vda: prolog.sh: I/O error (os error 5)"))?;
    ended.expect_report("/medium/state", "broken")?;
    nothing_runs(&ended)
});

pub const WRONG_MAGIC: Case = Case::new("medium-wrong-magic", |stage| {
    let ended = spoilt(stage, "ide", |file| file.write_all_at(b"XX", DESCRIPTOR + 1))?;
    ended.expect_end(&format!("{BROKEN}/dev/sr0: no file system that we know"))?;
    nothing_runs(&ended)
});

pub const SHORT: Case = Case::new("medium-twenty-kilobytes", |stage| {
    let ended = spoilt(stage, "ide", |file| file.set_len(20 * 1024))?;
    ended.expect_end(&format!("{BROKEN}/dev/sr0: no file system that we know"))?;
    nothing_runs(&ended)
});

pub const UNKNOWN_DISK: Case = Case::new("medium-unknown-disk", |stage| {
    let ended = spoilt(stage, "virtio", |file| file.write_all_at(b"XX", DESCRIPTOR + 1))?;
    ended.expect_end("500 no context CD, and the image names no work source")?;
    let seen = json!([{"device": "vda", "kind": "disk", "what": "no file system that we know"}]);
    ended.expect_report("/medium/seen", seen)?;
    ended.expect_no_console(&stage.marker())
});

pub const SLOW: Case = Case::new("medium-slow", |stage| {
    let cd = stage.cd(&files(stage, &[("large", &"x".repeat(2 << 20))]).each())?;
    let drive = format!(
        "if=none,id=slow,media=cdrom,readonly=on,format=raw,throttling.bps-read=262144,file={}",
        cd.image.display()
    );
    let machine = stage.tiny(&policy_with(json!({"medium": {"wait_secs": 5}})))?;
    let ended = machine.qemu(["-drive", &drive, "-device", "ide-cd,drive=slow"]).run()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_report("/medium/bytes", (2 << 20) + PROLOG.len() as u64 + context(stage).len() as u64)?;
    let millis = ended.number("/medium/read_ms")?;
    // 2 MiB take 8 s at that rate, and QEMU lets the first second's worth through at once.
    if millis > 5000 { Ok(()) } else { Err(format!("expected it to be slow, it took {millis} ms")) }
});

pub const TOO_LARGE: Case = Case::new("medium-too-large", |stage| {
    let cd = stage.cd(&files(stage, &[("large", &"x".repeat(2 << 20))]).each())?;
    let ended = stage.tiny(&policy_with(json!({"medium": {"wait_secs": 3600, "size_mb": 1}})))?.cd(&cd).run()?;
    let why = "its files take more than the image's medium.size_mb, 1048576 bytes";
    // What is on it stays: nobody waits for it to change.
    ended.expect_end(&format!("500 the context CD is refused: /dev/vda: {why}"))?;
    nothing_runs(&ended)
});

/// Shorter than a sector, and found by its text in an image.
const PROLOG: &str = "[ \"$1\" = stop ] || echo \"RESULT $CASE ok\"\n";

fn context(stage: &Stage) -> String {
    format!("CASE='{}'\n", stage.case.name)
}

/// The files of every CD here, and more.
struct Files<'a>(Vec<(&'a str, String)>);

fn files<'a>(stage: &Stage, more: &[(&'a str, &str)]) -> Files<'a> {
    let more = more.iter().map(|(name, text)| (*name, (*text).to_owned()));
    Files([("prolog.sh", PROLOG.to_owned()), ("context.sh", context(stage))].into_iter().chain(more).collect())
}

impl Files<'_> {
    fn each(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, text)| (*name, text.as_str())).collect()
    }
}

/// A CD behind QEMU's blkdebug with these rules.
fn boot(stage: &Stage, more: &[(&str, &str)], rules: &str, device: &str) -> Result<Ended, String> {
    let cd = stage.cd(&files(stage, more).each())?;
    let config = stage.dir.join("faults");
    fs::write(&config, rules).map_err(|error| format!("{}: {error}", config.display()))?;
    let (config, image) = (config.display(), cd.image.display());
    let drive =
        format!("if=none,id=faulty,media=cdrom,readonly=on,format=raw,rerror=report,file=blkdebug:{config}:{image}");
    let machine = stage.tiny(&policy_with(json!({"medium": {"wait_secs": 20}})))?;
    machine.qemu(["-drive", &drive, "-device", device]).run()
}

/// A CD whose image was changed after it was made.
fn spoilt(stage: &Stage, bus: &'static str, spoil: fn(&fs::File) -> std::io::Result<()>) -> Result<Ended, String> {
    let cd = stage.cd(&files(stage, &[]).each())?;
    let spoilt = OpenOptions::new().write(true).open(&cd.image).and_then(|file| spoil(&file));
    spoilt.map_err(|error| format!("{}: {error}", cd.image.display()))?;
    stage.tiny(&policy_with(json!({"medium": {"wait_secs": 5}})))?.cd(&Medium { bus, ..cd }).run()
}

fn nothing_runs(ended: &Ended) -> Result<(), String> {
    ended.expect_phase("medium", Some("failed"))?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console("RESULT ")
}
