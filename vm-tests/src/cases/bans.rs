//! A site forbids the work of one person: nothing of it starts, the log says why, and others' work runs. A list that
//! cannot be read stops everybody, and one that changes stops who runs.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::guest::Job;
use crate::http::Page;
use crate::site::{HOST, RESULTS, Site};
use crate::stage::{Stage, policy};

pub const LISTED: Case = Case::new("ban-listed", listed).with_payload(guest);
pub const BROKEN: Case = Case::new("ban-broken", broken).with_payload(guest);
pub const REFRESH: Case = Case { deadline: 180, ..Case::new("ban-refresh", refresh).with_payload(guest) };

const JAN: &str = "/C=NL/O=nikhef/CN=Jan";
const PIET: &str = "/C=NL/O=nikhef/CN=Piet";
const AD: &str = "/C=NL/O=nikhef/CN=Ad";

/// Each in the list by one spelling, and in the pool by the other.
fn listed(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill_as("text/plain; owner=\"CN=proxy, CN=Jan, O=nikhef, C=NL\"", &["ban-listed jan"])?;
    site.fill_as("text/plain; owner=\"/C=NL/O=nikhef/CN=Piet, Dr.\"", &["ban-listed piet"])?;
    site.fill_as("text/plain; vo=lhcb", &["ban-listed lhcb"])?;
    site.fill(&["ban-listed nobody"])?;
    site.fill_as("text/plain; vo=atlas", &["ban-listed half"])?;
    site.fill_as(&format!("text/plain; owner=\"{AD}\"; vo=atlas"), &["ban-listed ad"])?;
    let list = format!("# bans\n\"{JAN}\" .ban\n\"CN=Piet\\, Dr.,O=nikhef,C=NL\"\n/lhcb\n");
    let cd = stage.cd(&[("context.json", &site.context()), ("ban.list", &list)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed, 5 refused")?;
    for (token, decision) in [
        "banned by line 2: /C=NL/O=nikhef/CN=Jan",
        "banned by line 3: CN=Piet\\, Dr.,O=nikhef,C=NL",
        "banned by line 4: /lhcb",
        "refused: nobody says whose it is",
        "refused: nobody says which person's it is, and the list bans persons",
    ]
    .into_iter()
    .enumerate()
    {
        ended.expect_report(&format!("/tokens/{token}/end"), decision)?;
        ended.expect_report(&format!("/tokens/{token}/reason/name"), "banned")?;
        ended.expect_report(&format!("/tokens/{token}/fate"), "released")?;
        let told = |record: &crate::syslog::Record| record.msgid == "authz" && record.value("decision") == decision;
        if !site.syslog.records().iter().any(told) {
            return Err(format!("no record says {decision:?}"));
        }
    }
    let results = site.values(RESULTS)?;
    if results != ["ad"] {
        return Err(format!("expected the result of ad alone, found {results:?}"));
    }
    site.expect_free(5)
}

fn broken(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill_as(&format!("text/plain; owner=\"{AD}\""), &["ban-broken ad"])?;
    let cd = stage.cd(&[("context.json", &site.context()), ("ban.list", "/atlas\n\"/C=NL/CN=Jan\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    let why = "nobody's work runs: ban.list:2: the quotation mark is not closed: \"/C=NL/CN=Jan";
    ended.expect_end(&format!("400 {why}"))?;
    let heard = site.syslog.records().iter().any(|record| record.msgid == "vm-stop" && record.value("text") == why);
    if !heard {
        return Err("the site's log does not say why".to_owned());
    }
    site.expect_free(1)
}

fn refresh(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let list = Page::serve("# nobody yet\n").map_err(|error| format!("list: {error}"))?;
    site.fill_as(&format!("text/plain; owner=\"{JAN}\""), &["ban-refresh jan"])?;
    site.fill_as(&format!("text/plain; owner=\"{AD}\""), &["ban-refresh ad"])?;
    site.fill_as("text/plain; owner=\"CN=Piet,O=nikhef,C=NL\"", &["ban-refresh piet"])?;
    let bans = json!({"refresh_url": format!("http://{HOST}:{}/ban.list", list.port), "interval_secs": 10,
        "stop_running": true});
    let context = site.context_with(json!({"bans": bans}));
    let cd = stage.cd(&[("context.json", &context), ("ban.list", &format!("\"{PIET}\"\n"))])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    site.wait_record(machine.patience(), "jan runs")?;
    // One that cannot be read changes nothing yet.
    list.change("nonsense\n");
    site.wait_record(machine.patience(), "such as /atlas/Role=pilot: nonsense")?;
    list.change(&format!("\"{JAN}\"\n"));
    let ended = machine.end()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed, 2 refused")?;
    ended.expect_report("/tokens/0/end", format!("stopped: banned by line 1: {JAN}").as_str())?;
    ended.expect_report("/tokens/0/fate", "released")?;
    // No list that was fetched names him.
    ended.expect_report("/tokens/2/end", format!("banned by line 1: {PIET}").as_str())?;
    let results = site.values(RESULTS)?;
    if results != ["ad"] {
        return Err(format!("expected the result of ad alone, found {results:?}"));
    }
    site.expect_free(2)
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    let [name] = job.words.as_slice() else { return Err(format!("expected one word, got {:?}", job.words)) };
    if name != "ad" {
        println!("{name} runs");
        thread::sleep(Duration::from_secs(3600));
        return Err("nobody stopped it".to_owned());
    }
    std::fs::write(&job.result, name).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}
