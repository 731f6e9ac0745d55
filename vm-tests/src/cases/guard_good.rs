//! Scripts that do what contextualisation is for: nothing of it is a violation. And a daemon that a script left behind
//! writes where daemons write, and nowhere else once the scripts are done.

use std::process::Command;

use serde_json::json;

use crate::case::Case;
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case { deadline: 240, ..Case::new("guard-good", host) };

const PROLOG: &str = r#"
[ "$1" = start ] || return 0
mkdir -p /etc/rsyslog.d /etc/machinefeatures /etc/jobfeatures /etc/grid-security/certificates /etc/sysconfig/network-scripts
echo '*.* @@log.example.org' >/etc/rsyslog.d/50-site.conf
echo '10.0.2.9 squid.example.org squid' >>/etc/hosts
echo 8 >/etc/machinefeatures/hs06
echo 3600 >/etc/jobfeatures/wall_limit_secs
echo 'DEVICE=eth0' >/etc/sysconfig/network-scripts/ifcfg-eth0
echo CA >/etc/grid-security/certificates/0123abcd.0
mkdir -p /cvmfs/atlas.example.org && busybox mount -t tmpfs cvmfs /cvmfs/atlas.example.org
mkdir -p /var/lib/condor && echo 1 >/var/lib/condor/state
touch /tmp/x /var/tmp/y /var/log/boot.site
(
    exec </dev/null >/dev/null 2>&1
    trap '' TERM
    until [ -e /run/go ]; do sleep 0.2; done
    for place in /usr/bin /usr/lib /etc /etc/ctxinit /etc/rsyslog.d /opt / /root /var/lib /var/lib/dpkg; do
        echo evil >$place/evil && echo "$place" >>/run/written
    done
    for place in /var/log /var/tmp /tmp /var/lib/condor /cvmfs/atlas.example.org /run; do
        echo fine >$place/fine || echo "$place" >>/run/closed
    done
    echo "the daemon is done" >/var/log/daemon
) &
"#;

const EPILOG: &str = r#"
if [ "$1" = start ]; then
    echo "tmpfs /scratch tmpfs rw 0 0" >>/etc/fstab
    mkdir -p /scratch
    exit 0
fi
echo go >/run/go
until [ -s /var/log/daemon ]; do sleep 0.1; done
[ ! -e /run/written ] || { echo "written: $(cat /run/written)"; exit 1; }
[ ! -e /run/closed ] || { echo "closed: $(cat /run/closed)"; exit 1; }
grep -q 'nameserver' /etc/resolv.conf || exit 1
echo "RESULT guard-good ok"
"#;

fn host(stage: &Stage) -> Result<(), String> {
    let cd = stage.cd(&[("prolog.sh", PROLOG), ("epilog.sh", EPILOG)])?;
    let policy = policy_with(json!({"guard": {"on_violation": "refuse", "hash_device": true}}));
    let ended = stage.debian_writable(&policy, &[("/bin/busybox", "usr/bin/busybox")])?.cd(&cd).run()?;
    ended.expect_console(&format!("epilog: {}", stage.marker()))?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_phase("seal", Some("ok"))?;
    for path in ["/etc/rsyslog.d/50-site.conf", "/etc/hosts", "/etc/sysconfig", "/cvmfs/atlas.example.org"] {
        ended.expect_change("prolog", path, None)?;
    }
    ended.expect_change("epilog", "/etc/fstab", None)?;
    ended.expect_change("end", "/var/log/daemon", None)?;
    ended.expect_report("/guard/violations", 0)?;
    ended.expect_report("/guard/sealed", true)?;
    ended.expect_report("/image_device/unchanged", true)?;
    // As this side sees the disk.
    let sum = Command::new("sha256sum").arg(stage.disk()).output().map_err(|error| format!("sha256sum: {error}"))?;
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
    ended.expect_report("/image_device/sha256_before", sum.clone())?;
    ended.expect_report("/image_device/sha256_after", sum)
}
