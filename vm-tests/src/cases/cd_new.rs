//! What `ctxtool cd new` writes is a CD that works as it is: checked, built and booted without a word of its own.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::machine::Medium;
use crate::process;
use crate::stage::{CTXTOOL, Stage, policy_with};

pub const CASE: Case = Case::new("cd-new", host);

/// For xorriso and two shells on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

fn host(stage: &Stage) -> Result<(), String> {
    let (dir, image) = (stage.dir.join("site"), stage.dir.join("site.iso"));
    process::make(Command::new(CTXTOOL).args(["cd", "new"]).arg(&dir), LIMIT)?;
    process::make(Command::new(CTXTOOL).args(["cd", "check", "--strict"]).arg(&dir), LIMIT)?;
    process::make(Command::new(CTXTOOL).args(["cd", "build"]).arg(&dir).arg("-o").arg(&image), LIMIT)?;
    process::make(Command::new(CTXTOOL).args(["cd", "check", "--strict"]).arg(&image), LIMIT)?;
    let policy = policy_with(json!({"medium": {"need": "require"}}));
    let ended = stage.tiny(&policy)?.cd(&Medium::virtio(image)).run()?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_order(&[
        "prolog: prolog: the machine belongs to this site now",
        "epilog: epilog: the network is up",
        "epilog: epilog: the work is over",
        "prolog: prolog: the last words of this site",
    ])?;
    ended.expect_phase("prolog", Some("ok"))?;
    ended.expect_phase("epilog", Some("ok"))
}
