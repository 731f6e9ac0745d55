//! The context CD on each of the buses that a hypervisor may hang it on.

use crate::case::Case;
use crate::machine::Medium;
use crate::stage::{Stage, policy};

pub const VIRTIO: Case = Case::new("cd-on-virtio", |stage| boot(stage, "virtio", "vda"));
pub const SCSI: Case = Case::new("cd-on-scsi", |stage| boot(stage, "scsi", "sr0"));
pub const IDE: Case = Case::new("cd-on-ide", |stage| boot(stage, "ide", "sr0"));

/// The second file is the proof that the whole CD was read, the marker that its content is right.
const PROLOG: &str = r#"
[ "$1" = start ] || return 0
[ "$(cat numbers | md5sum)" = "$(seq 1 100000 | md5sum)" ] && echo "RESULT $CASE ok"
"#;

fn boot(stage: &Stage, bus: &'static str, device: &str) -> Result<(), String> {
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let name = format!("CASE='{}'\n", stage.case.name);
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("context.sh", &name), ("numbers", &numbers)])?;
    let ended = stage.tiny(&policy())?.cd(&Medium { bus, ..cd }).run()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_report("/medium/device", device)?;
    ended.expect_report("/medium/volume", "CONTEXT")?;
    ended.expect_report("/medium/files", 3)
}
