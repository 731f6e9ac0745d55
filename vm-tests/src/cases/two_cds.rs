//! Two context CDs: nobody can know which is meant, so neither is.

use crate::case::Case;
use crate::cd;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("two-cds", host);

fn host(stage: &Stage) -> Result<(), String> {
    let first = stage.cd(&[("prolog.sh", "echo the first prolog runs\n")])?;
    let second = cd::build(&stage.dir, "OTHER", &[("epilog.sh", "echo the second epilog runs\n")])?;
    let drive = format!("if=none,id=other,format=raw,media=cdrom,readonly=on,file={}", second.display());
    let machine = stage.tiny(&policy())?.cd(&first).qemu(["-drive", &drive, "-device", "virtio-blk-pci,drive=other"]);
    let ended = machine.run()?;
    ended.expect_end("500 more than one context CD: /dev/vda (CONTEXT), /dev/vdb (OTHER)")?;
    ended.expect_report("/medium/state", "several")?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console(" runs")
}
