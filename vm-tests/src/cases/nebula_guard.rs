//! What an OpenNebula CD asks of the machine, ctxinit does itself: the guard of a disk image takes none of it away.

use std::fs;

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case::new("nebula-guard", host);

const CONTEXT: &str = "SSH_PUBLIC_KEY='ssh-ed25519 AAAA joe@example.org'\nTIMEZONE='Test/Zone'\nSET_HOSTNAME='neb-2'\n\
                       START_SCRIPT='[ \"$(readlink /etc/localtime)\" = /usr/share/zoneinfo/Test/Zone ] || exit 1'\n";

const PROLOG: &str = r#"
[ "$1" = start ] || return 0
echo 'from the prolog' >/etc/rsyslog.conf
cat /root/.ssh/authorized_keys
"#;

const EPILOG: &str = r#"
[ "$1" = start ] || return 0
file=/root/.ssh/authorized_keys
[ "$(cat $file)" = "ssh-ed25519 AAAA joe@example.org" ] || { echo "keys: $(cat $file)"; exit 1; }
[ "$(stat -c %a/%u /root/.ssh $file)" = "700/0
600/0" ] || { stat /root/.ssh $file; exit 1; }
[ "$(readlink /etc/localtime)" = /usr/share/zoneinfo/Test/Zone ] || exit 1
"#;

const HOOK: &str = r#"
[ "$1" = start ] || return 0
[ -s /root/.ssh/authorized_keys ] && [ "$(cat /etc/rsyslog.conf)" = 'from the prolog' ] &&
    echo "RESULT nebula-guard ok"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let zone = stage.dir.join("zone");
    fs::write(&zone, "TZif2").map_err(|error| format!("{}: {error}", zone.display()))?;
    let cd = stage.cd(&[
        ("context.sh", CONTEXT),
        ("prolog.sh", PROLOG),
        ("epilog.sh", EPILOG),
        ("epilog.d/10-keys.sh", HOOK),
    ])?;
    let policy = policy_with(json!({"accounts": {"root_ssh_keys": true}}));
    let zone = (zone.to_str().unwrap_or_default(), "usr/share/zoneinfo/Test/Zone");
    let ended = stage.debian_writable(&policy, &[zone])?.cd(&cd).run()?;
    ended.expect_console("ctxinit: 1 keys for root, from SSH_PUBLIC_KEY")?;
    ended.expect_phase("start-script", Some("ok"))?;
    ended.expect_console(&format!("10-keys: {}", stage.marker()))?;
    ended.expect_report("/guard/violations", 0)?;
    ended.expect_report("/guard/reverted", 0)?;
    ended.expect_end("200 the scripts are done, and no work source is named")
}
