//! The log when something goes wrong with it: its server is away, its process is killed, a payload shouts.

use std::collections::HashSet;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::case::Case;
use crate::guest::Job;
use crate::process;
use crate::site::{HOST, RESULTS, Site, keep_port};
use crate::stage::{Stage, policy};
use crate::syslog::{Receiver, Record};

pub const KILLED: Case = Case::new("log-killed", killed).with_payload(well);
pub const AWAY: Case = Case::new("log-away", away).with_payload(numbered);
pub const REQUIRED: Case = Case::new("log-required", required).with_payload(well);
pub const REQUIRED_LATE: Case = Case { deadline: 180, ..Case::new("log-required-late", late).with_payload(well) };
pub const FLOOD: Case = Case { deadline: 300, ..Case::new("log-flood", flood).with_payload(shout) };

pub const TLS: Case = Case::new("log-tls", tls).with_payload(well);

/// Lines of the script whose logger is killed, and how often that is.
const LINES: usize = 2000;
const KILLS: u64 = 3;
/// Records of the payload whose server is away.
const NUMBERED: u64 = 1000;
/// For as long as it shouts, and its severity: debug, so nothing is dropped before.
const SHOUT: Duration = Duration::from_secs(30);
const SHOUTED: &str = "<15>flood:";
/// KiB that a logger may have for itself, beside the 8 MiB that it shares with the next one.
const OWN_KIB: u64 = 2048;
/// What else is that little severe: lines of the kernel's when it boots.
const KERNEL_DEBUG: u64 = 100;

/// Three loggers die while a script says 2000 numbered lines: each line comes once, in its place, and the work goes on.
fn killed(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["log-killed"])?;
    let epilog = format!(
        "[ $1 = start ] || exit 0
logger_pid() {{ for d in /proc/[0-9]*; do
    grep -qs '^Uid:.65541' $d/status && ! grep -qs '^State:.Z' $d/status && echo ${{d#/proc/}}
done; }}
n=0
while [ $n -lt {LINES} ]; do
    echo \"line $n\"
    case $n in 500|1000|1500)
        pid=; until [ -n \"$pid\" ]; do pid=$(logger_pid); done
        kill -9 $pid
        # The same one is not found again.
        while [ \"$(logger_pid)\" = $pid ]; do :; done;;
    esac
    n=$((n + 1))
done
"
    );
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", &epilog)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_console("ctxinit: the logger died: killed by SIGKILL")?;
    ended.expect_report("/log/restarts", KILLS)?;
    ended.expect_report("/log/undelivered", 0)?;
    let records = once(&site.syslog)?;
    let lines: Vec<&str> =
        records.iter().filter(|record| record.app == "epilog").map(|record| record.text.as_str()).collect();
    let expected: Vec<String> = (0..LINES).map(|n| format!("line {n}")).collect();
    if lines != expected {
        return Err(format!("expected {LINES} lines of the epilog, each once and in order, got {}", lines.len()));
    }
    for (what, count) in [("log-restart", KILLS), ("job-start", 1), ("job-end", 1), ("vm-start", 1), ("vm-stop", 1)] {
        expect_audits(&records, what, count)?;
    }
    site.expect_record("payload", &stage.marker())
}

/// Nobody ever takes the log: the work does not notice, and the machine says how many records it kept to itself.
fn away(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["log-away"])?;
    let (port, _keeper) = keep_port().map_err(|errno| errno.to_string())?;
    let context = site.context_with(json!({"syslog": {"server": HOST, "port": port}}));
    let ended = stage.tiny(&policy())?.cd(&stage.cd(&[("context.json", &context)])?).run()?;
    ended.expect_end("200 1 tokens completed")?;
    if site.values(RESULTS)? != ["no wait"] {
        return Err(format!("expected a payload that nobody made wait, got {:?}", site.values(RESULTS)?));
    }
    let [waiting, undelivered] = ["waiting", "undelivered"].map(|of| ended.number(&format!("/log/{of}")));
    let (waiting, undelivered) = (waiting?, undelivered?);
    ended.expect_report("/log/delivered", 0)?;
    ended.expect_report("/log/dropped", 0)?;
    ended.expect_report("/log/reached", false)?;
    ended.expect_console(&format!("ctxinit: {undelivered} log records were not delivered"))?;
    // What the kernel and ctxinit say of a boot is some hundreds.
    if waiting != undelivered || !(NUMBERED + 50..NUMBERED + 2000).contains(&waiting) {
        return Err(format!("expected {NUMBERED} records and those of a boot, got {waiting} and {undelivered}"));
    }
    Ok(())
}

/// No trace, no work.
fn required(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["log-required"])?;
    let (port, _keeper) = keep_port().map_err(|errno| errno.to_string())?;
    let context = site.context_with(json!({
        "syslog": {"server": HOST, "port": port, "require": true},
        "limits": {"idle_secs": 1, "fault_secs": 5},
    }));
    let ended = stage.tiny(&policy())?.cd(&stage.cd(&[("context.json", &context)])?).run()?;
    ended.expect_end(
        "500 no job started for 5 s: no syslog server takes the log, and the context requires one (syslog.require)",
    )?;
    ended.expect_report("/tokens", json!([]))?;
    ended.expect_report("/log/reached", false)?;
    site.expect_free(1)?;
    match site.tokens(crate::site::WORK)?.as_slice() {
        [token] if token.leases == 0 => Ok(()),
        other => Err(format!("expected a token that was never claimed, got {other:?}")),
    }
}

/// The server comes while the machine waits for it: the job runs, and its trace is whole.
fn late(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["log-required-late"])?;
    let (port, _keeper) = keep_port().map_err(|errno| errno.to_string())?;
    let context = site.context_with(json!({"syslog": {"server": HOST, "port": port, "require": true}}));
    let machine = stage.tiny(&policy())?.cd(&stage.cd(&[("context.json", &context)])?).boot()?;
    machine.wait_console("ctxinit: no job starts: no syslog server takes the log")?;
    let receiver = Receiver::start_at(port).map_err(|error| format!("port {port}: {error}"))?;
    let ended = machine.end()?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/log/undelivered", 0)?;
    let records = once(&receiver)?;
    let marker = records.iter().any(|record| record.app == "payload" && record.text == stage.marker());
    if !marker {
        return Err("expected the marker of the payload at the late server".to_owned());
    }
    expect_audits(&records, "vm-start", 1)
}

/// A payload shouts for 30 s while no server is there: the audit records are all kept, the logger does not grow, and what
/// was dropped is counted to the last one.
fn flood(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["log-flood"])?;
    let (port, _keeper) = keep_port().map_err(|errno| errno.to_string())?;
    // The receiver comes when the shouting is over, and the machine waits for another token meanwhile.
    let context = site.context_with(json!({
        "syslog": {"server": HOST, "port": port},
        "limits": {"idle_secs": 5, "fault_secs": 90},
    }));
    let epilog = "[ $1 = stop ] || exit 0
for d in /proc/[0-9]*; do
    grep -qs '^Uid:.65541' $d/status && sed -n 's/^\\(VmHWM\\|RssAnon\\|RssShmem\\):[^0-9]*\\([0-9]*\\) kB/\\1 \\2/p' $d/status
done
true
";
    let cd = stage.cd(&[("context.json", &context), ("epilog.sh", epilog)])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    machine.wait_console("ctxinit: token 1: completed")?;
    let receiver = Receiver::start_at(port).map_err(|error| format!("port {port}: {error}"))?;
    let ended = machine.end()?;
    ended.expect_end("200 1 tokens completed")?;
    let sent: u64 = match site.values(RESULTS)?.as_slice() {
        [sent] => sent.parse().map_err(|error| format!("{sent:?}: {error}"))?,
        other => return Err(format!("expected one result, got {other:?}")),
    };
    let records = once(&receiver)?;
    let arrived = records.iter().filter(|record| record.app == "flood").count() as u64;
    let announced: u64 = records
        .iter()
        .filter(|record| record.msgid == "log-gap")
        .map(|record| record.value("count").parse::<u64>().unwrap_or(0))
        .sum();
    // That the numbers of all records have no other gap is seen already.
    let others = (arrived + announced).checked_sub(sent);
    if arrived == sent || others.is_none_or(|others| others > KERNEL_DEBUG) {
        return Err(format!("{sent} were sent: {arrived} arrived and {announced} were announced as dropped"));
    }
    ended.expect_report("/log/dropped", announced)?;
    ended.expect_report("/log/undelivered", announced)?;
    for what in ["vm-start", "authz", "job-start", "job-end", "settled", "vm-stop"] {
        expect_audits(&records, what, 1)?;
    }
    let memory = |what: &str| {
        let told = records.iter().filter(|record| record.app == "epilog");
        let told = told.filter_map(|record| record.text.strip_prefix(what)?.trim().parse::<u64>().ok()).next();
        told.ok_or_else(|| format!("the epilog did not tell the logger's {what}"))
    };
    let (peak, shared, own) = (memory("VmHWM")?, memory("RssShmem")?, memory("RssAnon")?);
    println!("{sent} sent, {announced} dropped; the logger: peak {peak} KiB, shared {shared} KiB, own {own} KiB");
    if own > OWN_KIB || peak.saturating_sub(shared) > 2 * OWN_KIB {
        return Err(format!(
            "the logger has {own} KiB of its own, and had {peak} KiB with {shared} KiB that it shares"
        ));
    }
    Ok(())
}

/// Everything goes by TLS, to a server that the authorities on the CD vouch for; and nothing goes to one for which they
/// do not.
fn tls(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["log-tls"])?;
    let file = |name: &str| stage.dir.join(name);
    certificate(stage, &["-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"])?;
    let name = format!("subjectAltName=IP:{HOST}");
    let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=log", "-addext", "basicConstraints=CA:FALSE"];
    certificate(stage, &[&signed[..], &["-addext", &name, "-keyout", "log.key", "-out", "log.pem"]].concat())?;
    // Nobody signed it but itself.
    certificate(stage, &["-subj", "/CN=log", "-addext", &name, "-keyout", "liar.key", "-out", "liar.pem"])?;
    let server = Receiver::start_tls(&file("log.pem"), &file("log.key"))?;
    let liar = Receiver::start_tls(&file("liar.pem"), &file("liar.key"))?;
    let context = site.context_with(json!({"syslog": {
        "server": HOST, "port": liar.port, "fallback": [format!("{HOST}:{}", server.port)],
        "ca": "log-ca.pem", "require": true,
    }}));
    let ca = std::fs::read_to_string(file("ca.pem")).map_err(|error| format!("ca.pem: {error}"))?;
    let prolog = "echo \"prolog $1\"";
    let cd = stage.cd(&[("context.json", &context), ("log-ca.pem", &ca), ("prolog.sh", prolog)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_report("/log/undelivered", 0)?;
    let records = once(&server)?;
    for (app, text) in [("prolog", "prolog start"), ("prolog", "prolog stop"), ("payload", &stage.marker())] {
        if !records.iter().any(|record| record.app == app && record.text == text) {
            return Err(format!("expected {text:?} of {app} by TLS"));
        }
    }
    ["vm-start", "job-start", "job-end", "vm-stop"].iter().try_for_each(|what| expect_audits(&records, what, 1))?;
    match liar.records().len() {
        0 => Ok(()),
        count => Err(format!("{count} records went to a server that nobody vouches for")),
    }
}

fn certificate(stage: &Stage, words: &[&str]) -> Result<(), String> {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(&stage.dir).args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]).args(words);
    process::make(&mut openssl, Duration::from_secs(60))
}

/// Records without those that came again with the number of one before; the numbers have no gap but those that are
/// announced.
fn once(receiver: &Receiver) -> Result<Vec<Record>, String> {
    let mut seen = HashSet::new();
    let mut records = receiver.records();
    records.retain(|record| seen.insert(record.value("sequenceId").to_owned()));
    let number = |record: &Record| record.value("sequenceId").parse::<u64>().unwrap_or(0);
    if !records.is_sorted_by_key(number) {
        return Err("expected records in the order of their numbers".to_owned());
    }
    let gaps: u64 = records
        .iter()
        .filter(|record| record.msgid == "log-gap")
        .map(|record| record.value("count").parse::<u64>().unwrap_or(0))
        .sum();
    let last = records.last().map_or(0, number);
    if last != records.len() as u64 + gaps {
        return Err(format!("{last} numbers, {} records and {gaps} announced as dropped", records.len()));
    }
    Ok(records)
}

fn expect_audits(records: &[Record], msgid: &str, count: u64) -> Result<(), String> {
    let found = records.iter().filter(|record| record.msgid == msgid).count() as u64;
    if found == count { Ok(()) } else { Err(format!("expected {count} records {msgid}, got {found}")) }
}

fn well(_: &Job) -> Result<ExitCode, String> {
    Ok(ExitCode::SUCCESS)
}

/// Nobody makes it wait for a server.
fn numbered(job: &Job) -> Result<ExitCode, String> {
    let log = dev_log()?;
    let mut longest = Duration::ZERO;
    for n in 0..NUMBERED {
        let begun = Instant::now();
        log.send(format!("<14>numbered: {n}").as_bytes()).map_err(|error| format!("/dev/log: {error}"))?;
        longest = longest.max(begun.elapsed());
    }
    let waited = if longest < Duration::from_secs(2) { "no wait".to_owned() } else { format!("{longest:?}") };
    std::fs::write(&job.result, waited).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}

fn shout(job: &Job) -> Result<ExitCode, String> {
    let log = dev_log()?;
    let begun = Instant::now();
    let mut sent: u64 = 0;
    while begun.elapsed() < SHOUT {
        log.send(format!("{SHOUTED} {sent} and so on, as long as a line usually is").as_bytes())
            .map_err(|error| format!("/dev/log: {error}"))?;
        sent += 1;
    }
    std::fs::write(&job.result, sent.to_string()).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}

fn dev_log() -> Result<UnixDatagram, String> {
    let log = UnixDatagram::unbound().map_err(|error| error.to_string())?;
    log.connect("/dev/log").map_err(|error| format!("/dev/log: {error}"))?;
    Ok(log)
}
