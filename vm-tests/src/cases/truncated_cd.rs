//! A CD whose image was cut off: it mounts and lists, and its last file cannot be read. No script of it runs.

use std::fs::OpenOptions;

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case::new("truncated-cd", host);

fn host(stage: &Stage) -> Result<(), String> {
    let large = "x".repeat(1024 * 1024);
    let cd = stage.cd(&[("prolog.sh", "echo the prolog runs\n"), ("software.tar", &large)])?;
    let cut = OpenOptions::new().write(true).open(&cd.image).and_then(|file| file.set_len(700 * 1024));
    cut.map_err(|error| format!("{}: {error}", cd.image.display()))?;
    let ended = stage.tiny(&policy_with(json!({"medium": {"wait_secs": 5}})))?.cd(&cd).run()?;
    ended.expect_end("500 the context CD cannot be read: /dev/vda: software.tar: I/O error (os error 5)")?;
    ended.expect_phase("medium", Some("failed"))?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console("the prolog runs")
}
