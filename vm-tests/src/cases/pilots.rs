//! Pilots: a program that finds its work itself, and every way in which its end is the machine's.

use serde_json::{Value, json};

use crate::case::Case;
use crate::features::Features;
use crate::qmp;
use crate::site::Site;
use crate::stage::{Stage, policy_with};

pub const FIZZLED: Case = Case::new("pilot-fizzled", |stage| plain(stage, "exit 0", "300 the pilot ended well after "));
pub const DONE: Case = Case::new("pilot-done", |stage| plain(stage, "sleep 2", "200 the pilot ended well after "));
pub const FAILED: Case = Case::new("pilot-failed", |stage| plain(stage, "exit 3", "700 pilot: exit 3, after "));
pub const TOO_LONG: Case =
    Case::new("pilot-too-long", |stage| plain(stage, "sleep 999", "100 the pilot's time of 20 s was over"));
pub const SAID: Case = Case::new("pilot-said", said);
pub const STOPPED: Case = Case::new("pilot-stopped", stopped);
pub const NOT_STARTED: Case = Case::new("pilot-not-started", not_started);

/// Lies in the image.
const PILOT: &str = "usr/bin/pilot";

/// One that lives shorter has found no work; enough for `sleep 2` on any host, and not for a process that ends at once
/// on one that is as slow as that.
const FIZZLE_SECS: u32 = 2;

fn policy() -> Value {
    policy_with(json!({"payload": {"command": ["/bin/sh", format!("/{PILOT}")], "wall_secs": 20, "grace_secs": 3}}))
}

fn context(site: &Site, exec: Value, more: Value) -> String {
    let mut context = json!({"work": {"exec": exec}});
    if let (Some(context), Value::Object(more)) = (context.as_object_mut(), more) {
        context.extend(more);
    }
    site.context_with(context)
}

fn plain(stage: &Stage, script: &str, end: &str) -> Result<(), String> {
    let site = Site::start(stage)?;
    let fizzle = if end.starts_with("300") { 600 } else { FIZZLE_SECS };
    let cd = stage.cd(&[("context.json", &context(&site, json!({"fizzle_secs": fizzle}), json!({})))])?;
    let ended = stage.tiny_with(&policy(), &[(PILOT, script)])?.cd(&cd).run()?;
    let verdict = ended.verdict().unwrap_or_default();
    if verdict.starts_with(end) { Ok(()) } else { Err(format!("expected the end {end:?}..., got {verdict:?}")) }
}

/// All of its contract: environment, features, credentials, outputs, and its last word.
const CONTRACT: &str = r#"
fail() { echo "guest half: $1"; exit 9; }
[ "$JOB_ID" = vm-7 ] || fail "JOB_ID is $JOB_ID"
[ "$PILOT_UUID" = "vm://pilot-vm/vm-7" ] || fail "PILOT_UUID is $PILOT_UUID"
[ "$QUEUE" = "a queue" ] && [ "$X509_CERT_DIR" = /etc/grid ] || fail "QUEUE is $QUEUE"
[ "$(cat "$X509_USER_PROXY")" = "a proxy" ] || fail "no proxy"
[ "$(stat -c '%a %u' "$X509_USER_PROXY")" = "400 $(id -u)" ] || fail "$(stat -c '%a %u' "$X509_USER_PROXY")"
[ -z "$TOKEN_ID$TOKEN_FILE$RESULT_FILE" ] || fail "it has a token"
[ "$PWD" = "$HOME" ] && [ ! -e token ] || fail "$PWD"
[ "$(cat $MACHINEFEATURES/total_cpu)" = 1 ] && [ "$(cat $MACHINEFEATURES/hs06)" = 12.5 ] || fail "$MACHINEFEATURES"
[ "$(cat $JOBFEATURES/job_id)" = vm-7 ] && [ "$(cat $JOBFEATURES/wall_limit_secs)" = 20 ] || fail "$JOBFEATURES"
[ ! -e $MACHINEFEATURES/shutdowntime ] && [ ! -e $JOBFEATURES/shutdowntime_job ] || fail "a shutdowntime"
for dir in $MACHINEFEATURES $JOBFEATURES; do
    for file in x total_cpu job_id; do
        (echo 1 >$dir/$file) 2>/dev/null && fail "it writes to $dir/$file"
    done
    rm -f $dir/total_cpu $dir/job_id 2>/dev/null && fail "it removes files of $dir"
done
echo "a pilot's line"
echo "its own log" >$JOBOUTPUTS/pilot.log
ln -s /etc/ctxinit/image.json $JOBOUTPUTS/link
printf '%s' "345 No work for you" >$JOBOUTPUTS/shutdown_message
echo "RESULT pilot-said ok"
"#;

fn said(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let features = Features::serve()?;
    features.set("mf/hs06", Some("12.5\n"));
    features.set("jf/job_id", Some("vm-7\n\n"));
    features.set("jf/wall_limit_secs", Some("<html>error</html>"));
    // Older than the machine: somebody else's.
    features.set("mf/shutdowntime", Some("1000000000"));
    let mjf = json!({
        "machinefeatures": features.url("mf"), "jobfeatures": features.url("jf"), "joboutputs": features.url("jo"),
        "heartbeat": {"file": "vm-heartbeat", "secs": 10},
    });
    let exec = json!({"environment": {"QUEUE": "a queue"}, "proxy": "proxy.pem", "certificates": "/etc/grid"});
    let more = json!({"mjf": mjf, "hostname": "pilot-vm", "cd": {"secret": ["proxy.pem"]}});
    let context = context(&site, exec, more);
    let cd = stage.cd(&[("context.json", &context), ("proxy.pem", "a proxy")])?;
    // The site's server is away for a moment; the machine's word arrives all the same.
    features.refuse(&[503]);
    let ended = stage.tiny_with(&policy(), &[(PILOT, CONTRACT)])?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("345 pilot: No work for you")?;
    ended.expect_console("ctxinit: features: wall_limit_secs: a web page and no value")?;
    ended.expect_console("ctxinit: job-1: joboutputs: link: ")?;
    let puts = features.puts();
    let text = |name: &str| puts.iter().rfind(|put| put.path == format!("jo/{name}")).map(|put| put.text.as_str());
    let (first, last) = (puts.first(), puts.last());
    if first.is_none_or(|put| put.path != "jo/vm-heartbeat" || put.status != 503 || put.text.split(' ').count() != 4) {
        return Err(format!("expected a heartbeat first, got {first:?}"));
    }
    if last.is_none_or(|put| put.path != "jo/shutdown_message" || put.text != "345 pilot: No work for you") {
        return Err(format!("expected the shutdown message last, got {last:?}"));
    }
    if text("job-1.pilot.log") != Some("its own log\n") || text("job-1.shutdown_message") != Some("345 No work for you")
    {
        return Err(format!("expected the pilot's outputs, got {puts:?}"));
    }
    if !text("job-1.log").unwrap_or_default().contains("a pilot's line\n") {
        return Err(format!("expected the pilot's output, got {:?}", text("job-1.log")));
    }
    let report: Value = serde_json::from_str(text("report.json").unwrap_or_default()).unwrap_or_default();
    if report["verdict"]["code"] != 345 || !text("console.log").unwrap_or_default().contains("phase platform: ok") {
        return Err("expected report and console log at the site".to_owned());
    }
    Ok(())
}

fn stopped(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let script = "trap 'exit 0' TERM; echo it runs; while :; do sleep 1; done";
    let cd = stage.cd(&[("context.json", &context(&site, json!({}), json!({})))])?;
    let machine = stage.tiny_with(&policy(), &[(PILOT, script)])?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), "it runs")?;
    machine.host_does(qmp::POWER_BUTTON)?;
    let ended = machine.end()?;
    ended.expect_end("100 the host asked for the end")
}

fn not_started(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let cd = stage.cd(&[("context.json", &context(&site, json!({}), json!({})))])?;
    let mut policy = policy();
    policy["payload"]["command"] = json!(["/no/such/pilot"]);
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    ended.expect_end("500 pilot not started: open /no/such/pilot: ENOENT: No such file or directory")
}
