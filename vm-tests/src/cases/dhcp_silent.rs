//! A network on which nobody answers.

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case::new("dhcp-silent", host);

const PROLOG: &str = "[ $1 != start ] || echo \"RESULT dhcp-silent ok\"\n";

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("epilog.sh", "echo the epilog runs\n")])?;
    let policy = policy_with(json!({"network": {"timeout_secs": 4}}));
    // A hub with one cable.
    let machine = stage.tiny(&policy)?.cd(&cd).words(["--no-net"]);
    let machine = machine.qemu(["-netdev", "hubport,hubid=0,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="]);
    let ended = machine.run()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_end("500 no DHCP server answered on eth0")?;
    ended.expect_phase("network", Some("failed"))?;
    ended.expect_phase("epilog", None)?;
    ended.expect_no_console("the epilog runs")
}
