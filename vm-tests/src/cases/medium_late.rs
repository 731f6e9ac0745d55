//! A context CD that comes when the machine already waits for it, each on its way: all of them are found.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::machine::Running;
use crate::stage::{Stage, policy_with};

/// The drive was there and empty; nobody but the kernel sees the disc come.
pub const INSERTED: Case = Case::new("medium-inserted-late", |stage| {
    boot(stage, &["-device", "ide-cd,id=drive"], "sr0", |machine, image| {
        let medium = json!({"id": "drive", "filename": image, "format": "raw", "read-only-mode": "read-only"});
        machine.host_does(&json!({"execute": "blockdev-change-medium", "arguments": medium}).to_string())
    })
});

pub const DRIVE_PLUGGED: Case = Case::new("medium-drive-plugged-late", |stage| {
    boot(stage, &["-device", "virtio-scsi-pci,id=scsi"], "sr0", |machine, image| {
        add_image(machine, image)?;
        let device = json!({"driver": "scsi-cd", "bus": "scsi.0", "drive": "late"});
        machine.host_does(&json!({"execute": "device_add", "arguments": device}).to_string())
    })
});

pub const DISK_PLUGGED: Case = Case::new("medium-disk-plugged-late", |stage| {
    boot(stage, &[], "vda", |machine, image| {
        add_image(machine, image)?;
        let device = json!({"driver": "virtio-blk-pci", "drive": "late"});
        machine.host_does(&json!({"execute": "device_add", "arguments": device}).to_string())
    })
});

fn boot(
    stage: &Stage,
    qemu: &[&str],
    device: &str,
    bring: fn(&Running, &Path) -> Result<(), String>,
) -> Result<(), String> {
    let cd = stage.cd(&[
        ("prolog.sh", "[ \"$1\" = stop ] || echo \"RESULT $CASE ok\"\n"),
        ("context.sh", &format!("CASE='{}'\n", stage.case.name)),
    ])?;
    let image = cd.image.canonicalize().map_err(|error| format!("{}: {error}", cd.image.display()))?;
    // Far more than the case's time: the last look at the limit must not be what finds it.
    let policy = policy_with(json!({"medium": {"need": "require", "wait_secs": 600}}));
    let machine = qemu.iter().fold(stage.tiny(&policy)?, |machine, word| machine.qemu([*word]));
    let running = machine.boot()?;
    running.wait_console("no context CD yet: ")?;
    // The machine looks once more half a second after that, and then no more unless something wakes it.
    thread::sleep(Duration::from_secs(5));
    bring(&running, &image)?;
    let ended = running.end()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_report("/medium/state", "found")?;
    ended.expect_report("/medium/device", device)
}

fn add_image(machine: &Running, image: &Path) -> Result<(), String> {
    let node = json!({"driver": "raw", "node-name": "late", "read-only": true,
        "file": {"driver": "file", "filename": image}});
    machine.host_does(&json!({"execute": "blockdev-add", "arguments": node}).to_string())
}
