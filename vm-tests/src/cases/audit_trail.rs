//! From the site's log alone: who ran what, when, and how it ended. One job does well; the other one fails, and tries to
//! put records of its own between ours.

use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

use crate::case::Case;
use crate::guest::Job;
use crate::site::{HOST, Site, WORK};
use crate::stage::{Stage, policy};
use crate::syslog::Record;

pub const CASE: Case = Case::new("audit-trail", host).with_payload(guest);

/// What a payload would have a record say.
const FORGED: &str = "owner=\"/CN=Nobody\"";
/// The text behind it, on its standard output and at `/dev/log`.
const PRINTED: &str = "printed";
const SENT: &str = "sent";
/// The name by which it would have it made.
const FORGER: &str = "ctxinit";
const JAN: &str = "/C=NL/O=nikhef/CN=Jan";
const AD: &str = "/C=NL/O=nikhef/CN=Ad ] \\\"x\\\"";

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill_as(&format!("text/plain; owner=\"{JAN}\"; vo=atlas"), &["audit-trail well"])?;
    site.fill_as(&format!("text/plain; owner=\"{AD}\""), &["audit-trail badly"])?;
    let tokens: Vec<String> = site.tokens(WORK)?.into_iter().map(|token| token.id).collect();
    let prolog = "echo prolog";
    let cd = stage.cd(&[("context.json", &site.context()), ("prolog.sh", prolog)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("700 3 jobs in a row failed, the last: exit 3")?;

    let records = site.syslog.records();
    let find = |msgid: &str, job: &str| {
        let mut found = records.iter().filter(|record| record.msgid == msgid && record.value("job") == job);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(format!("no {msgid} of {job:?}")),
            _ => Err(format!("several {msgid} of {job:?}")),
        }
    };
    let expect = |record: &Record, facts: &[(&str, &str)]| {
        let wrong = facts.iter().find(|(name, value)| record.value(name) != *value);
        wrong.map_or(Ok(()), |(name, value)| Err(format!("{name} is not {value:?} in {record:?}")))
    };
    let pool = format!("http://{HOST}:{}/4.1/pools/{WORK}", site.port);
    // Which of the two came first is the pool's affair.
    for (token, owner, groups, status) in [(&tokens[0], JAN, "/atlas", "0"), (&tokens[1], AD, "", "3")] {
        let owner = owner.replace('\\', "");
        let start = records.iter().find(|record| record.msgid == "job-start" && record.value("token") == token);
        let start = start.ok_or_else(|| format!("no job of token {token}"))?;
        expect(start, &[("owner", &owner), ("groups", groups), ("pool", &pool)])?;
        let end = find("job-end", start.value("job"))?;
        expect(end, &[("token", token), ("owner", &owner), ("reason", "1"), ("subcode", status)])?;
        let fate = if status == "0" { "completed" } else { "released" };
        expect(find("settled", start.value("job"))?, &[("token", token), ("fate", fate)])?;
    }
    let count = |msgid: &str| records.iter().filter(|record| record.msgid == msgid).count();
    let pairs =
        [("job-start", 4), ("job-end", 4), ("settled", 4), ("authz", 4), ("script-start", 2), ("script-end", 2)];
    for (msgid, expected) in pairs.into_iter().chain([("vm-start", 1), ("vm-stop", 1)]) {
        if count(msgid) != expected {
            return Err(format!("expected {expected} records {msgid}, got {}", count(msgid)));
        }
    }
    expect(find("vm-start", "")?, &[("image", "vm-tests"), ("version", "1")])?;
    let stop = find("vm-stop", "")?;
    expect(stop, &[("verdict", "700"), ("jobs", "4"), ("jobs-ended", "4"), ("scripts", "2"), ("scripts-ended", "2")])?;
    let script = records.iter().find(|record| record.msgid == "context" && record.value("file") == "prolog.sh");
    // printf 'echo prolog' | sha256sum
    let sha256 = "43f30481b715263b37f799b71f7ad23df9b263e740911a2a82da0b78a43e7d6f";
    expect(script.ok_or("no record of prolog.sh")?, &[("sha256", sha256)])?;
    let forged = records.iter().any(|record| record.value("owner").contains("Nobody"));
    if forged {
        return Err("a payload made an audit record".to_owned());
    }
    let (code, found) = site.checked_log()?;
    let owners = found["machines"][0]["jobs"].as_array().map(|jobs| jobs.iter().map(|job| &job["owner"]).collect());
    let owners: Vec<&serde_json::Value> = owners.unwrap_or_default();
    let jans = owners.iter().filter(|owner| ***owner == JAN).count();
    if code != 0 || owners.len() != 4 || jans != 1 {
        return Err(format!("expected a complete log of 4 jobs, one of them of {JAN}: {code}, {found:#}"));
    }
    // Both came, as what they are: the words of a payload, four times.
    for (app, end) in [("payload", PRINTED), (FORGER, SENT)] {
        let told =
            |record: &&Record| record.app == app && record.text.ends_with(&format!("[audit@32473 {FORGED}] {end}"));
        let told = records.iter().filter(told).count();
        if told != 4 {
            return Err(format!("expected 4 records of {app} with what was to be forged, and {end:?}, got {told}"));
        }
    }
    Ok(())
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    let [how] = job.words.as_slice() else { return Err(format!("expected one word, got {:?}", job.words)) };
    println!("<109>1 - vm ctxinit 1 job-end [audit@32473 {FORGED}] {PRINTED}");
    let forged = format!("<109>1 - vm {FORGER} 1 job-start [audit@32473 {FORGED}] {SENT}");
    let sent = UnixDatagram::unbound().and_then(|log| log.send_to(forged.as_bytes(), "/dev/log"));
    sent.map_err(|error| format!("/dev/log: {error}"))?;
    Ok(if how == "well" { ExitCode::SUCCESS } else { ExitCode::from(3) })
}
