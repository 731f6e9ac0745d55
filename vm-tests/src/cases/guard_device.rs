//! A prolog that takes back the write protection of the image's disk and writes to it: nothing puts that back, so the
//! machine ends.

use crate::case::Case;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case { deadline: 180, ..Case::new("guard-device", host) };

/// What was there is written again, so that the machine runs on; the CD is the first disk.
const PROLOG: &str = r#"
[ "$1" = start ] || return 0
dd if=/dev/vdb of=/run/block bs=4096 count=1 skip=3 2>/dev/null
dd if=/run/block of=/dev/vdb bs=4096 count=1 seek=3 2>/dev/null && echo "NOT PREVENTED"
busybox blockdev --setrw /dev/vdb
dd if=/run/block of=/dev/vdb bs=4096 count=1 seek=3 2>/dev/null && echo "written"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG)])?;
    let ended = stage.debian_writable(&policy(), &[("/bin/busybox", "usr/bin/busybox")])?.cd(&cd).run()?;
    ended.expect_no_console("NOT PREVENTED")?;
    ended.expect_console("prolog: written")?;
    let why = "/dev/vdb changed (8 sectors written): it is the image's device";
    ended.expect_end(&format!("500 guard: 1 violation could not be put back, the first: {why}"))?;
    ended.expect_phase("network", None)?;
    ended.expect_report("/image_device/unchanged", false)?;
    ended.expect_report("/image_device/sectors_written", 8)
}
