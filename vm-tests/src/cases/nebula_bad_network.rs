//! Network values that cannot be meant so: the machine ends with 500, and names the value.

use serde_json::json;

use crate::case::Case;
use crate::machine::Ended;
use crate::stage::{Stage, policy_with};

/// Nothing of the CD has run by then.
pub const MASK: Case = Case::new("nebula-bad-mask", |stage| {
    let context = "ETH0_MAC='52:54:00:12:34:56'\nETH0_IP='10.0.2.77'\nETH0_MASK='255.0.255.0'\n";
    let ended = boot(stage, ("context.sh", context))?;
    ended.expect_end("500 context.sh:3: ETH0_MASK: 255.0.255.0 has holes")?;
    ended.expect_phase("medium", Some("failed"))?;
    ended.expect_phase("prolog", None)
});

pub const GATEWAY: Case = Case::new("nebula-bad-gateway", |stage| {
    let context = "{\"network\": {\"interfaces\": [\n  {\"mac\": \"52:54:00:12:34:56\", \"method\": \"static\",\n   \
        \"addresses\": [\"10.0.2.77/24\"], \"gateway\": \"10.0.3.2\"}]}}\n";
    let ended = boot(stage, ("context.json", context))?;
    ended.expect_end(
        "500 context.json:3: network.interfaces[0]: gateway: 10.0.3.2 is in no network of the card (10.0.2.77/24)",
    )?;
    ended.expect_phase("prolog", None)
});

/// The card may come late, so it is waited for.
pub const CARD: Case = Case::new("nebula-no-card", |stage| {
    let context = "ETH0_MAC='02:00:0a:00:02:4d'\nETH0_IP='10.0.2.77'\nETH0_MASK='255.255.255.0'\n";
    let ended = boot(stage, ("context.sh", context))?;
    ended.expect_end("500 no network card has the address 02:00:0a:00:02:4d; there are: eth0 52:54:00:12:34:56")?;
    ended.expect_phase("prolog", Some("ok"))?;
    ended.expect_phase("network", Some("failed"))
});

fn boot(stage: &Stage, file: (&str, &str)) -> Result<Ended, String> {
    let cd = stage.cd(&[file, ("prolog.sh", "echo the prolog runs\n")])?;
    stage.tiny(&policy_with(json!({"network": {"timeout_secs": 2}})))?.cd(&cd).run()
}
