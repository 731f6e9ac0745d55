//! No context CD, where the image can do without, and where it cannot.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const OPTIONAL: Case = Case::new("no-cd-optional", |stage| {
    // Nobody has said what to do: that is a fault of the site, and found only after the network is up.
    boot(stage, "optional", "500 no context CD, and the image names no work source", Some("ok"))
});

pub const REQUIRED: Case =
    Case::new("no-cd-required", |stage| boot(stage, "require", "500 no context CD, and the image requires one", None));

fn boot(stage: &Stage, need: &str, end: &str, network: Option<&str>) -> Result<(), String> {
    let ended = stage.tiny(&policy_with(json!({"medium": {"need": need, "wait_secs": 2}})))?.run()?;
    ended.expect_end(end)?;
    ended.expect_report("/medium/state", "absent")?;
    ended.expect_phase("network", network)
}
