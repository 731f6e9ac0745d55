//! Everything at once, on the Debian image that a site would get: both scripts, DHCP, syslog, and three tokens that
//! are claimed, run as users without any privilege, and completed.

use std::collections::HashSet;
use std::fs;
use std::process::ExitCode;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use serde_json::json;

use crate::case::Case;
use crate::cd;
use crate::guest::{Job, PAYLOAD_USERS, read, status};
use crate::machine::Medium;
use crate::site::{RESULTS, Site, WORK};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case { deadline: 240, ..Case::new("whole-slice", host).with_payload(guest) };

/// IFF_UP is bit 0. Not even loopback is up yet.
const PROLOG: &str = r#"
echo "prolog $1 in $PWD"
[ "$1" = start ] || return 0
[ "$PWD" = /var/lib/hepix/context ] && [ -r ./context.json ] || exit 1
for link in /sys/class/net/*; do
    [ $(($(cat "$link/flags") & 1)) = 0 ] || { echo "$link is up"; exit 1; }
done
[ -e /sys/class/net/eth0 ] || { echo "no eth0"; exit 1; }
echo "RESULT whole-slice-prolog ok"
"#;

const EPILOG: &str = r#"
echo "epilog $1"
[ "$1" = start ] || return 0
grep -q '10\.0\.2\.15$' /proc/net/fib_trie || { echo "no address"; exit 1; }
[ -n "$(awk '$2 == "00000000"' /proc/net/route)" ] || { echo "no default route"; exit 1; }
grep -qx 'nameserver 10.0.2.3' /etc/resolv.conf || { echo "no name server"; exit 1; }
[ "$(cat /proc/sys/kernel/hostname)" = slice ] || { echo "not the name that DHCP gave"; exit 1; }
ctxinit status | grep -q '^prolog  *ok ' || { echo "ctxinit status does not know the prolog"; exit 1; }
ctxinit status --wait --timeout 0 >/dev/null; [ $? = 4 ] || { echo "the boot is over before its epilog"; exit 1; }
ctxinit explain prolog | grep -q '^  It ran because prolog.sh is on the context CD' || { echo "not explained"; exit 1; }
ctxinit status --json | grep -q '"boot_id"' || { echo "no report"; exit 1; }
echo "RESULT whole-slice-epilog ok"
"#;

const MEMORY_MB: u64 = 64;
const PIDS: u64 = 16;
/// The first process of the job's namespace, which is ctxinit's.
const KEEPER: u64 = 1;

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["whole-slice 1", "whole-slice 2", "whole-slice 3"])?;
    let context = site.context();
    let files = [("prolog.sh", PROLOG), ("epilog.sh", EPILOG), ("context.json", context.as_str())];
    let cd = Medium::virtio(cd::build_by_ctxtool(&stage.dir, "SITE", &files)?);
    let mut policy = policy();
    policy["medium"] = json!({"need": "require"});
    policy["payload"]["memory_mb"] = json!(MEMORY_MB);
    policy["payload"]["pids"] = json!(PIDS);
    let ended = stage.debian(&policy)?.cd(&cd).words(["--hostname", "slice"]).run()?;

    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 3 tokens completed")?;
    ended.expect_order(&[
        "prolog: prolog start in /var/lib/hepix/context",
        "prolog: RESULT whole-slice-prolog ok",
        "ctxinit: phase prolog: ok",
        "ctxinit: phase network: ok",
        "ctxinit: phase logging: ok",
        "epilog: RESULT whole-slice-epilog ok",
        "ctxinit: phase epilog: ok",
        "ctxinit: phase work: ok",
        "epilog: epilog stop",
        "prolog: prolog stop",
        "ctxinit: phase end: ok",
    ])?;
    ended.expect_report("/hostname", "slice")?;
    ended.expect_report("/medium/device", "vdb")?;
    ended.expect_report("/tokens/2/fate", "completed")?;
    ended.expect_report("/log/undelivered", 0)?;

    site.expect_record("prolog", "RESULT whole-slice-prolog ok")?;
    site.expect_record("epilog", "RESULT whole-slice-epilog ok")?;
    let records = site.syslog.records();
    let markers = records.iter().filter(|record| record.app == "payload" && record.text == stage.marker()).count();
    if markers != 3 {
        return Err(format!("expected the marker of 3 payloads at the syslog receiver, got {markers}"));
    }
    if let Some(other) = records.iter().find(|record| record.app == "payload" && record.host != "slice") {
        return Err(format!("expected records of host slice, got {other:?}"));
    }

    site.expect_complete_log()?;

    let left = site.tokens(WORK)?;
    if !left.is_empty() {
        return Err(format!("expected an empty pool, found {left:?}"));
    }
    let results = site.values(RESULTS)?;
    let field = |at: usize| results.iter().filter_map(|result| result.split(' ').nth(at)).collect::<HashSet<_>>();
    if results.len() != 3 || field(0) != HashSet::from(["1", "2", "3"]) || field(1).len() != 3 {
        return Err(format!("expected 3 results by 3 users, found {results:?}"));
    }
    Ok(())
}

/// What an intruder would try first. Each line is a wall of its own.
fn guest(job: &Job) -> Result<ExitCode, String> {
    let [number] = job.words.as_slice() else { return Err(format!("expected one word, got {:?}", job.words)) };
    let user = identity()?;
    descriptors()?;
    session()?;
    limits()?;
    no_way_back()?;
    fs::write(&job.result, format!("{number} {user}")).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}

fn identity() -> Result<u32, String> {
    let status = status()?;
    let field = |name: &str| status.get(name).map(String::as_str).ok_or_else(|| format!("no {name} in status"));
    let user: u32 = field("Uid")?.split('\t').next().and_then(|id| id.parse().ok()).ok_or("no uid")?;
    if !PAYLOAD_USERS.contains(&user) {
        return Err(format!("uid {user} is not one of {PAYLOAD_USERS:?}"));
    }
    let four = [user; 4].map(|id| id.to_string()).join("\t");
    let none = "0000000000000000";
    let wanted = [
        ("Uid", four.as_str()),
        ("Gid", &four),
        ("Groups", ""),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("NoNewPrivs", "1"),
        ("SigBlk", none),
    ];
    for (name, wanted) in wanted {
        let found = field(name)?;
        if found != wanted {
            return Err(format!("{name} is {found:?} and not {wanted:?}"));
        }
    }
    Ok(user)
}

fn descriptors() -> Result<(), String> {
    let entries = fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    for entry in entries.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned();
        let allowed = match entry.file_name().to_string_lossy().as_ref() {
            "0" => target == "/dev/null",
            "1" | "2" => target.starts_with("pipe:"),
            // The one that reads this directory.
            _ => target.ends_with("/fd"),
        };
        if !allowed {
            return Err(format!("descriptor {:?} is {target}", entry.file_name()));
        }
    }
    Ok(())
}

/// `pid (comm) state ppid pgrp session tty_nr`, proc(5).
fn session() -> Result<(), String> {
    let stat = read("/proc/self/stat")?;
    let fields: Vec<&str> = stat.split(' ').collect();
    let [pid, _, _, _, group, session, terminal, ..] = fields.as_slice() else { return Err(stat) };
    if pid != group || pid != session || *terminal != "0" {
        return Err(format!("process {pid} is in group {group} and session {session} on terminal {terminal}"));
    }
    Ok(())
}

fn limits() -> Result<(), String> {
    let cgroup = read("/proc/self/cgroup")?;
    let path = cgroup.trim_end().strip_prefix("0::").ok_or_else(|| format!("cgroup {cgroup:?}"))?;
    let memory = (MEMORY_MB * 1024 * 1024).to_string();
    for (file, wanted) in [("memory.max", memory.as_str()), ("pids.max", &(PIDS + KEEPER).to_string())] {
        let path = format!("/sys/fs/cgroup{path}/{file}");
        let found = read(&path)?;
        if found.trim_end() != wanted {
            return Err(format!("{path} is {found:?} and not {wanted}"));
        }
    }
    Ok(())
}

fn no_way_back() -> Result<(), String> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    if setresuid(user, user, user).is_ok() || setresgid(group, group, group).is_ok() || setgroups(&[group]).is_ok() {
        return Err("root came back".to_owned());
    }
    for hidden in ["/etc/ctxinit", "/var/lib/hepix"] {
        // Not there is not the same as hidden; a test that looked at the wrong place would prove nothing.
        let entries = fs::read_dir(hidden).map_err(|error| format!("{hidden}: {error}"))?.count();
        if entries > 0 {
            return Err(format!("{hidden} holds {entries} entries"));
        }
    }
    for place in ["/usr/bin/x", "/etc/x", "/run/ctxinit/x", "/var/lib/hepix/x"] {
        if fs::write(place, "x").is_ok() {
            return Err(format!("{place} can be written"));
        }
    }
    Ok(())
}
