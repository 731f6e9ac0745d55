//! Files that are no scripts, each named with its own fault: one ends the machine, or all of them are gone over.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy, policy_with};

pub const STOP: Case = Case::new("script-faults-stop", |stage| {
    let cd = stage.cd(&[("prolog.sh/readme", "the site meant to put its scripts here\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("500 prolog.sh: a directory, not a regular file")?;
    ended.expect_in_phase("prolog", "/scripts/0/end", "not started: a directory, not a regular file")?;
    ended.expect_phase("network", None)
});

pub const CONTINUE: Case = Case::new("script-faults-continue", host);

/// The part of each hook of the CD, and what is said of it.
const HOOKS: &[(&str, &str, &str)] = &[
    ("10-nul.sh", "echo a\nprintf b\0\n", "line 2 holds a NUL byte (byte 15 of the file), so this is not a script"),
    ("20-directory.sh/x", "", "a directory, not a regular file"),
    (
        "30-interpreter.sh",
        "#!/usr/bin/env python3\n",
        "line 1 names the interpreter /usr/bin/env, which the image does not have",
    ),
    ("40-late.sh", "echo this must not run\necho\r\n", "line 2 ends in CR LF: the file has DOS line ends"),
];
const LARGE: &str = "10485760 bytes; a script may have 1048576";

fn host(stage: &Stage) -> Result<(), String> {
    let hooks: Vec<(String, &str)> = HOOKS.iter().map(|(name, text, _)| (format!("epilog.d/{name}"), *text)).collect();
    let large = "#".repeat(10 * 1024 * 1024);
    let mut files: Vec<(&str, &str)> = hooks.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    files.extend([
        ("prolog.sh", "echo this must not run\r\n"),
        ("epilog.sh", ""),
        ("epilog.d/05-empty.sh", ""),
        ("epilog.d/50-large.sh", &large),
    ]);
    // The hooks go by the epilog's word; the last one runs.
    files.push(("epilog.d/60-good.sh", "[ \"$1\" = stop ] || echo \"RESULT script-faults-continue ok\"\n"));
    let go_on = json!({"on_failure": "continue"});
    let policy = policy_with(json!({"scripts": {"prolog": go_on, "epilog": go_on}}));
    let ended = stage.tiny(&policy)?.cd(&stage.cd(&files)?).run()?;

    ended.expect_end("200 the scripts are done, and no work source is named")?;
    let fault = |phase: &str, text: &str| {
        ended.expect_phase(phase, Some("failed"))?;
        ended.expect_in_phase(phase, "/note", text)
    };
    fault("prolog", "prolog.sh: line 1 ends in CR LF: the file has DOS line ends")?;
    ended.expect_phase("epilog", Some("skipped"))?;
    ended.expect_in_phase("epilog", "/cause", "epilog.sh on the context CD is empty")?;
    ended.expect_console("ctxinit: epilog.d/05-empty.sh is no hook, as it is empty")?;
    let name = |name: &str| name.trim_end_matches("/x").to_owned();
    let mut all: Vec<String> = HOOKS.iter().map(|(file, _, why)| format!("epilog.d/{}: {why}", name(file))).collect();
    all.push(format!("epilog.d/50-large.sh: {LARGE}"));
    fault("hooks", &all.join("; "))?;
    for (at, why) in HOOKS.iter().map(|(.., why)| *why).chain([LARGE]).enumerate() {
        ended.expect_in_phase("hooks", &format!("/scripts/{at}/end"), format!("not started: {why}"))?;
    }
    ended.expect_in_phase("hooks", "/scripts/5/exit", 0)?;
    ended.expect_console(&format!("60-good: {}", stage.marker()))?;
    ended.expect_no_console("this must not run")
}
