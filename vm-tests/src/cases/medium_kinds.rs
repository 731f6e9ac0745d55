//! The file systems that a context CD may have.
//!
//! The images of vfat and udf are in `tests/fixtures/media`: mkfs.vfat and mtools made the first, mkudffs and Linux' own
//! driver the second. Each holds `prolog.sh`, `numbers, by line` and `name`, the name of its case.

use crate::case::Case;
use crate::cd;
use crate::machine::Medium;
use crate::stage::{Stage, policy};

pub const VFAT: Case = Case::new("medium-vfat", |stage| {
    let image = cd::fixture(&stage.dir, "vfat.img")?;
    boot(stage, Medium::virtio(image), "vfat", "CONTEXT")
});

pub const UDF: Case = Case::new("medium-udf", |stage| {
    let image = cd::fixture(&stage.dir, "udf.img")?;
    boot(stage, Medium { image, bus: "ide" }, "udf", "CONTEXT")
});

/// Names of eight and three letters, as any writer of 1988 makes them.
pub const PLAIN: Case = Case::new("medium-plain-iso", |stage| {
    let prolog = "[ \"$1\" = stop ] || echo \"RESULT $(cat name) ok\"\n";
    let image = cd::build_with(&stage.dir, "PLAIN", &[], &[("prolog.sh", prolog), ("name", stage.case.name)])?;
    boot(stage, Medium::virtio(image), "iso9660", "PLAIN")
});

/// Long names, and no modes.
pub const JOLIET: Case = Case::new("medium-joliet-iso", |stage| {
    let prolog = "[ \"$1\" = stop ] || echo \"RESULT $(cat 'the name, in a long file') ok\"\n";
    let files = [("prolog.sh", prolog), ("the name, in a long file", stage.case.name)];
    boot(stage, Medium::virtio(cd::build_with(&stage.dir, "JOLIET", &["-J"], &files)?), "iso9660", "JOLIET")
});

fn boot(stage: &Stage, medium: Medium, filesystem: &str, volume: &str) -> Result<(), String> {
    let ended = stage.tiny(&policy())?.cd(&medium).run()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_report("/medium/filesystem", filesystem)?;
    ended.expect_report("/medium/volume", volume)
}
