//! Hooks of the image and of the CD: run after the epilog in their order, stopped before it in the reverse one; one that
//! fails is named, and goes by the epilog's word.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CONTINUE: Case = Case::new("hooks-continue", |stage| host(stage, "continue"));
pub const STOP: Case = Case::new("hooks-stop", |stage| host(stage, "stop"));
pub const NO_CD: Case = Case::new("hooks-no-cd", without_cd);

const FIRST: &str = "/etc/ctxinit/epilog.d/10-first.sh";
const FAILS: &str = "epilog.d/05-fails.sh";

fn host(stage: &Stage, on_failure: &str) -> Result<(), String> {
    let script = |name: &str| format!("echo \"{name} $1 in $PWD with $COLOUR\"\n");
    let image = [
        ("etc/ctxinit/epilog.d/10-first.sh", script("first") + "exit 0\n"),
        ("etc/ctxinit/epilog.d/20-second.sh", script("second")),
        ("etc/ctxinit/epilog.d/pilot", "echo this must not run\n".to_owned()),
    ];
    let cd = [
        ("epilog.sh", script("epilog")),
        ("context.sh", "COLOUR='dark blue'\n".to_owned()),
        (FAILS, script("fails") + "[ $1 = stop ] || exit 3\n"),
        ("epilog.d/30-last.sh", script("last")),
    ];
    let image: Vec<(&str, &str)> = image.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let cd: Vec<(&str, &str)> = cd.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let policy = policy_with(json!({"scripts": {"epilog": {"on_failure": on_failure}}}));
    let ended = stage.tiny_with(&policy, &image)?.cd(&stage.cd(&cd)?).run()?;

    let failed = format!("{FAILS}: exit 3; last line: fails start in /var/lib/hepix/context with dark blue");
    ended.expect_phase("hooks", Some("failed"))?;
    ended.expect_in_phase("hooks", "/note", failed.clone())?;
    ended.expect_in_phase("hooks", "/cause", "2 hooks in /etc/ctxinit/epilog.d, 2 in epilog.d on the context CD")?;
    ended.expect_in_phase("hooks", "/scripts/0/name", FIRST)?;
    ended.expect_in_phase("hooks", "/scripts/2/exit", 3)?;
    ended.expect_console("ctxinit: /etc/ctxinit/epilog.d/pilot is no hook, as its name does not end in .sh")?;
    ended.expect_no_console("this must not run")?;
    let goes_on = on_failure == "continue";
    let mut order =
        vec!["epilog: epilog start", "10-first: first start", "20-second: second start", "05-fails: fails start"];
    if goes_on {
        order.extend(["30-last: last start", "30-last: last stop"]);
    }
    order.extend(["05-fails: fails stop", "20-second: second stop", "10-first: first stop", "epilog: epilog stop"]);
    ended.expect_order(&order)?;
    if goes_on {
        return ended.expect_end("200 the scripts are done, and no work source is named");
    }
    ended.expect_no_console("30-last: ")?;
    ended.expect_end(&format!("500 {failed}"))
}

/// A hook of the image needs no CD; what lies in the image's "/" is not the context's.
fn without_cd(stage: &Stage) -> Result<(), String> {
    let image = [
        ("etc/ctxinit/epilog.d/10-first.sh", "echo \"first $1 in $PWD\"\n"),
        ("init.sh", "echo the init.sh of the image runs\n"),
    ];
    let policy = policy_with(json!({"medium": {"need": "optional", "wait_secs": 1}}));
    let ended = stage.tiny_with(&policy, &image)?.run()?;
    ended.expect_phase("hooks", Some("ok"))?;
    ended.expect_in_phase("hooks", "/cause", "1 hook in /etc/ctxinit/epilog.d, 0 in epilog.d on the context CD")?;
    ended.expect_order(&["10-first: first start in /", "10-first: first stop in /"])?;
    ended.expect_no_console("init.sh of the image")?;
    ended.expect_end("500 no context CD, and the image names no work source")
}
