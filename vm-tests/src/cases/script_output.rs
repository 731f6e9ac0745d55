//! 200 MB of output, with binary before and behind it: the script waits for nobody, what is beyond the limit is counted,
//! and none of it stays in the agent's memory.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case { deadline: 240, ..Case::new("script-output", host) };

/// KiB in `image.json`, bytes of the flood, of a piece of it, and of noise behind it.
const LIMIT: u64 = 64;
const FLOOD: u64 = 200_000_000;
const PIECE: u64 = 1_000_000;
const NOISE: u64 = 1_000_000;
/// What a line costs beside its text.
const LINE_COST: u64 = 100;
const BINARY: &str = r"\001\033[2J\377\n";
/// As the agent counts: without the line's end.
const BINARY_BYTES: u64 = 6;
const LAST: &str = "RESULT script-output ok\n";

fn host(stage: &Stage) -> Result<(), String> {
    let prolog = format!(
        "[ $1 = start ] || exit 0
printf '{BINARY}'
# A busybox writes 1 MB of single lines in a second, and of files as much as anybody reads.
yes | head -c {PIECE} >/tmp/piece
cat $(yes /tmp/piece | head -n $(({FLOOD} / {PIECE})))
rss=$(sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$PPID/status)
[ \"$rss\" -lt 12000 ] || {{ echo \"the agent has $rss kB\"; exit 1; }}
head -c {NOISE} /dev/urandom
printf '\\n{LAST}'
"
    );
    let policy = policy_with(json!({"scripts": {"prolog": {"output_kb": LIMIT, "timeout_secs": 120}}}));
    let ended = stage.tiny(&policy)?.cd(&stage.cd(&[("prolog.sh", &prolog)])?).run()?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_in_phase("prolog", "/scripts/0/exit", 0)?;
    // The line that meets the limit is the last one that is logged.
    let lines = (LIMIT * 1024 - BINARY_BYTES - LINE_COST).div_ceil(1 + LINE_COST);
    let dropped = FLOOD - 2 * lines + NOISE + 1 + LAST.len() as u64;
    ended.expect_in_phase("prolog", "/scripts/0/output_dropped", dropped)?;
    ended.expect_in_phase("prolog", "/note", format!("exit 0, {dropped} bytes of output dropped"))?;
    let last = ended.in_phase("prolog", "/scripts/0/tail/4");
    if *last != stage.marker() {
        return Err(format!("expected the marker as the last line of output, got {last}"));
    }
    ended.expect_order(&[
        "prolog: \\u{1}\\u{1b}[2J\u{fffd}",
        "prolog: [64 KiB of output: what follows is thrown away]",
        "ctxinit: phase prolog: ok",
    ])
}
