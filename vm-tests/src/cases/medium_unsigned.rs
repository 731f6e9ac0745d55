//! A CD without a signature, where the image asks for one: nothing of it is used, or everybody is told.

use serde_json::json;

use crate::case::Case;
use crate::machine::Ended;
use crate::stage::{Stage, policy_with};

pub const REQUIRED: Case = Case::new("medium-unsigned-required", |stage| {
    let ended = boot(stage, "require")?;
    ended.expect_end(&format!("500 {WHY}"))?;
    ended.expect_report("/medium/signature/state", "unsigned")?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console("it runs")
});

pub const WARNED: Case = Case::new("medium-unsigned-warned", |stage| {
    let ended = boot(stage, "warn")?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_console("prolog: it runs")?;
    ended.expect_console_end(WHY)?;
    ended.expect_report("/medium/signature/state", "unsigned")
});

const WHY: &str = "the context CD: signature unsigned: there is no SHA256SUMS.minisig on the CD";
/// Anybody's.
const KEY: &str = "RWTjgr25YhgUjqb1XtxQPN5IcKafK1yFVYeHV3x/BYvQuH5DheMDpS0Y";

fn boot(stage: &Stage, need: &str) -> Result<Ended, String> {
    let cd = stage.cd(&[("prolog.sh", "echo it runs\n")])?;
    stage.tiny(&policy_with(json!({"signature": {"need": need, "keys": [KEY]}})))?.cd(&cd).run()
}
