//! The same image, machine and CD twice give the same report, but for what the schema says may differ.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case { deadline: 240, ..Case::new("report-same", host).with_payload(guest) };

/// It fails, in each machine alike, and leaves a process behind whose number is another one each time.
const PROLOG: &str = r#"
[ "$1" = start ] || return 0
echo "prolog in $PWD"
# As many processes as the clock has it, so that what is measured is different, too.
read -r up _ </proc/uptime
i=0; while [ "$i" -lt "${up#*.}" ]; do (:); i=$((i + 1)); done
sleep 1000 &
# Between its fork and its exec it has another name.
until read -r name <"/proc/$!/comm" && [ "$name" = sleep ]; do (:); done
exit 3
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let [first, second] = [boot(stage, &site)?, boot(stage, &site)?];
    if first == second {
        return Ok(());
    }
    // Fields are in the order of the report's structs, so equal values are equal bytes.
    let (first, second) = (pretty(&first), pretty(&second));
    let differ = first.lines().zip(second.lines()).find(|(first, second)| first != second);
    Err(format!("expected the same report twice, but for times, ids and measures; first difference: {differ:?}"))
}

fn boot(stage: &Stage, site: &Site) -> Result<Value, String> {
    site.fill(&["report-same one", "report-same two"])?;
    let files = [("prolog.sh", PROLOG), ("epilog.sh", "echo \"epilog $1\"\n"), ("context.json", &site.context())];
    let cd = stage.cd(&files)?;
    let policy = policy_with(json!({"scripts": {"prolog": {"on_failure": "continue"}}}));
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    ended.expect_end("200 2 tokens completed")?;
    ended.expect_phase("prolog", Some("failed"))?;
    ended.steady_report()
}

fn guest(_: &Job) -> Result<ExitCode, String> {
    Ok(ExitCode::SUCCESS)
}

fn pretty(report: &Value) -> String {
    format!("{report:#}")
}
