//! A prolog that fails ends the machine before any interface is up, and its `stop` runs.

use crate::case::Case;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("prolog-fails", host);

const PROLOG: &str = r#"
if [ "$1" = start ]; then
    echo "the site's disk is not there" >&2
    exit 7
fi
for link in /sys/class/net/*; do
    [ $(($(cat "$link/flags") & 1)) = 0 ] || { echo "$link is up"; exit 1; }
done
echo "RESULT prolog-fails ok"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("epilog.sh", "echo the epilog runs\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_end("500 prolog.sh: exit 7; last line: the site's disk is not there")?;
    ended.expect_phase("prolog", Some("failed"))?;
    ended.expect_phase("network", None)?;
    ended.expect_no_console("the epilog runs")
}
