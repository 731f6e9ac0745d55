//! The power button in the middle of a prolog: it is stopped with all that it started, its `stop` runs, and the machine
//! ends with 100.

use crate::case::Case;
use crate::qmp;
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("script-stopped", host);

const PROLOG: &str = r#"
if [ "$1" = start ]; then
    trap 'echo "the prolog hears it"' TERM
    setsid sleep 98765. &
    echo "the prolog waits"
    # Not in a program that it runs: a shell hears nothing before that has ended.
    while :; do wait; done
fi
[ $(cat /proc/[0-9]*/cmdline | tr '\0' '\n' | grep -c '^98765[.]$') = 0 ] && echo "RESULT script-stopped ok"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("epilog.sh", "echo the epilog runs\n")])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    machine.wait_console("prolog: the prolog waits")?;
    machine.host_does(qmp::POWER_BUTTON)?;
    let ended = machine.end()?;
    ended.expect_end("100 the host asked for the end")?;
    ended.expect_phase("prolog", Some("stopped"))?;
    ended.expect_in_phase("prolog", "/scripts/0/end", "stopped with all that it started, as the machine ends")?;
    ended.expect_in_phase("prolog", "/scripts/0/exit", serde_json::Value::Null)?;
    ended.expect_in_phase(
        "prolog",
        "/scripts/0/tail",
        serde_json::json!(["the prolog waits", "the prolog hears it"]),
    )?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_no_console("the epilog runs")
}
