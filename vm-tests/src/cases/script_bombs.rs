//! A prolog that eats memory and an epilog that eats processes: each is named with its limit, nothing of it is left,
//! and under `continue` the machine goes on to its end.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case { deadline: 240, ..Case::new("script-bombs", host) };

const PROLOG: &str = r#"
[ $1 = start ] || exit 0
echo "the bomb is lit"
more=0123456789abcdef
while :; do more=$more$more; done
"#;

/// Those that cannot fork end, and the others go on in their place; the first one need not.
const EPILOG: &str = r#"
[ $1 = start ] || exit 0
trap '' TERM
bomb() { while :; do bomb & done; }
bomb 2>/dev/null &
while :; do :; done
"#;

/// A script's cgroup is removed when nobody is left in it; and the failures are told inside as well.
const HOOK: &str = r#"
[ $1 = start ] || exit 0
set -- /sys/fs/cgroup/ctxinit/script-*
/init status >/tmp/status
echo "$# of the scripts run, status $?"
grep -q '^prolog  *failed ' /tmp/status && [ $# = 1 ] && echo "RESULT script-bombs ok"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("epilog.sh", EPILOG), ("epilog.d/look.sh", HOOK)])?;
    let policy = policy_with(json!({"scripts": {
        "prolog": {"on_failure": "continue", "memory_mb": 32},
        "epilog": {"on_failure": "continue", "timeout_secs": 20},
    }}));
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_phase("prolog", Some("failed"))?;
    let end = ended.in_phase("prolog", "/scripts/0/end").as_str().unwrap_or_default();
    let counted = end.strip_prefix("ran out of its 32 MiB of memory and was killed (oom_kill ");
    if !counted.is_some_and(|rest| rest == "1)" || rest == "2)") {
        return Err(format!("expected a prolog that ran out of its 32 MiB of memory, got {end:?}"));
    }
    ended.expect_in_phase("prolog", "/note", format!("prolog.sh: {end}; last line: the bomb is lit"))?;
    ended.expect_phase("epilog", Some("failed"))?;
    ended.expect_in_phase(
        "epilog",
        "/scripts/0/end",
        "ran into its deadline and was killed with all that it started, after it wanted more than its 512 processes",
    )?;
    ended.expect_in_phase("epilog", "/scripts/0/left_running", json!([]))?;
    ended.expect_console("look: 1 of the scripts run, status 3")?;
    ended.expect_console(&format!("look: {}", stage.marker()))
}
