//! A prolog that hangs, deaf to SIGTERM, with descendants in sessions of their own: all of them are killed.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case::new("prolog-hangs", host);

/// A busybox `sleep` as a child of `setsid` is a process whose command line can be looked for; the pattern does not
/// find the process that looks.
const PROLOG: &str = r#"
alive() { cat /proc/[0-9]*/cmdline | tr '\0' '\n' | grep -c '^98765[.]$'; }
if [ "$1" = start ]; then
    trap '' TERM HUP
    setsid sh -c 'trap "" TERM; setsid sleep 98765. & setsid sleep 98765.' &
    sleep 98765. &
    until [ "$(alive)" = 3 ]; do sleep 0.1; done
    echo "three descendants run"
    wait
    sleep 98765
fi
[ "$(alive)" = 0 ] && echo "RESULT prolog-hangs ok"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG)])?;
    // The three must have started before the time is over, also on a host that is many times slower.
    let policy = policy_with(json!({"scripts": {"prolog": {"timeout_secs": 20}}}));
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    ended.expect_order(&["prolog: three descendants run", &format!("prolog: {}", stage.marker())])?;
    ended.expect_end(
        "500 prolog.sh: ran into its deadline and was killed with all that it started; last line: three descendants run",
    )?;
    ended.expect_phase("network", None)
}
