//! An `image.json` that cannot be meant so: nothing is done at all, as nobody knows what is allowed.

use crate::case::Case;
use crate::stage::Stage;

pub const CASE: Case = Case::new("bad-image", host);

const POLICY: &str = r#"{
  "image": {"uuid": "vm-tests", "version": "1"},
  "payload": {
    "command": ["/usr/bin/vm-tests", "guest"],
    "memory": 64
  }
}
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", "echo the prolog runs\n")])?;
    let ended = stage.tiny_text(POLICY)?.cd(&cd).run()?;
    let why = "/etc/ctxinit/image.json:5: payload.memory: unknown field `memory`, expected one of \
        `command`, `commands`, `memory_mb`, `pids`, `cpu_percent`, `open_files`, `scratch_mb`, `wall_secs`, `grace_secs`, \
        `no_retry`, `writable`, `user_namespaces`, `setuid_programs`, `network`, `console_shell`";
    ended.expect_end(&format!("500 {why}"))?;
    ended.expect_phase("policy", Some("failed"))?;
    ended.expect_phase("medium", None)?;
    ended.expect_no_console("the prolog runs")
}
