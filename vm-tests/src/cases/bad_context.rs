//! A context that cannot be meant so: one line names file, line and key, and nothing of the CD runs.

use crate::case::Case;
use crate::stage::{Stage, policy};

pub const UNKNOWN_KEY: Case = Case::new("bad-context-key", |stage| {
    let text = "{\n  \"hostname\": \"vm\",\n  \"sylog\": {\"server\": \"10.0.2.2\"}\n}\n";
    let why = "context.json:3: sylog: unknown field `sylog`, \
        expected one of `hostname`, `timezone`, `network`, `firewall`, `syslog`, `work`, `limits`, \
        `user_disk`, `cd`, `payload`, `mjf`, `bans`";
    boot(stage, "context.json", text, why)
});

pub const BAD_VALUE: Case = Case::new("bad-context-value", |stage| {
    let text = "{\n  \"syslog\": {\n    \"server\": \"10.0.2.2\",\n    \"port\": 70000\n  }\n}\n";
    boot(stage, "context.json", text, "context.json:4: syslog.port: invalid value: integer `70000`, expected u16")
});

pub const BAD_VARIABLES: Case = Case::new("bad-context-variables", |stage| {
    let text = "# by hand\nSITE='x'\nHOST=$(hostname)\n";
    boot(stage, "context.sh", text, "context.sh:3: HOST: '$' outside quotes would need a shell")
});

fn boot(stage: &Stage, name: &str, text: &str, why: &str) -> Result<(), String> {
    let cd = stage.cd(&[(name, text), ("prolog.sh", "echo the prolog runs\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_console_end(&format!(": {why}"))?;
    ended.expect_end(&format!("500 {why}"))?;
    ended.expect_phase("medium", Some("failed"))?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console("the prolog runs")
}
