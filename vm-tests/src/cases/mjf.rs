//! A site says when the machine's time is over, by http or in files, and may change its mind; what it hears of the
//! machine's end is the last that it hears.

use std::fs;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::case::Case;
use crate::features::{Features, in_secs};
use crate::guest::Job;
use crate::site::Site;
use crate::stage::{Stage, policy};

/// It is read once a minute, and four times here.
pub const HTTP: Case = Case { deadline: 420, ..Case::new("mjf-http", http).with_payload(http_guest) };
pub const FILES: Case = Case { deadline: 180, ..Case::new("mjf-files", files).with_payload(files_guest) };

const KEY: &str = "mf/shutdowntime";

fn http(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["mjf-http"])?;
    let features = Features::serve()?;
    let mjf = json!({
        "machinefeatures": features.url("mf"), "joboutputs": features.url("jo"),
        "heartbeat": {"file": "beat", "secs": 10},
    });
    let cd = stage.cd(&[("context.json", &site.context_with(json!({"mjf": mjf})))])?;
    let machine = stage.tiny(&policy())?.cd(&cd).boot()?;
    let patience = machine.patience();
    site.wait_record(patience, "no shutdowntime")?;
    let (far, near) = (in_secs(9_000), in_secs(5_000));
    for (value, seen) in [(Some(far.clone()), &far), (Some(near.clone()), &near)] {
        features.set(KEY, value.as_deref());
        site.wait_record(patience, &format!("shutdowntime {seen}"))?;
    }
    features.set(KEY, None);
    site.wait_record(patience, "shutdowntime is gone")?;
    features.set(KEY, Some(&in_secs(70)));
    let ended = machine.end()?;
    let verdict = ended.verdict().unwrap_or_default();
    if !verdict.starts_with("100 the machine's time is over") {
        return Err(format!("expected that its time is over, got {verdict:?}"));
    }
    ended.expect_report("/tokens/0/fate", "released")?;
    features.wait_puts("jo/beat", 10, Duration::ZERO)?;
    if features.gets("mf/total_cpu") != 1 || features.gets(KEY) < 4 {
        return Err("expected the static keys once, and the times again and again".to_owned());
    }
    let last = features.puts().pop();
    if last.as_ref().is_none_or(|put| put.path != "jo/shutdown_message" || put.text != verdict) {
        return Err(format!("expected the shutdown message last, got {last:?}"));
    }
    site.expect_free(1)
}

/// Says what its own features say, whenever that changes.
fn http_guest(_: &Job) -> Result<ExitCode, String> {
    let dir = std::env::var("MACHINEFEATURES").map_err(|error| error.to_string())?;
    let mut known = Some(String::new());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(400) {
        let found = fs::read_to_string(format!("{dir}/shutdowntime")).ok();
        if found != known {
            match (&found, &known) {
                (Some(text), _) => println!("shutdowntime {}", text.trim()),
                (None, Some(text)) if text.is_empty() => println!("no shutdowntime"),
                (None, _) => println!("shutdowntime is gone"),
            }
            known = found;
        }
        sleep(Duration::from_millis(200));
    }
    Err("nobody stopped it".to_owned())
}

/// As Vac's first machines had it: the prolog mounts what both sides write to, and takes it away at the end.
const PROLOG: &str = r#"#!/bin/sh
if [ $1 = start ]; then
    mkdir -p /site && mount -t tmpfs -o mode=0755 site /site
    mkdir -m 0700 /site/mf /site/jf /site/jo
    chmod 0755 /site/mf /site/jf
    echo 3 >/site/jf/allocated_CPU
    echo 2000 >/site/jf/mem_limit_MB
    echo 1b4e28ba-2fa1-11d2-883f-0016d3cca427 >/site/jf/jobstart_secs
else
    echo "at the site: $(ls /site/jo | tr '\n' ' ')"
    echo "last word: $(cat /site/jo/shutdown_message)."
    umount /site
fi
"#;

fn files(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["mjf-files"])?;
    let mjf = json!({"heartbeat": {"file": "beat"}, "joboutputs": "/site/jo"});
    let variables = "MACHINEFEATURES=/site/mf\nJOBFEATURES='/site/jf/'\nJOBOUTPUTS=/not/this/one\n";
    let context = site.context_with(json!({"mjf": mjf}));
    let cd = stage.cd(&[("context.json", &context), ("context.sh", variables), ("prolog.sh", PROLOG)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")?;
    ended.expect_console("prolog: at the site: beat console.log job-1.log job-1.made report.json shutdown_message")?;
    ended.expect_console("prolog: last word: 200 1 tokens completed.")
}

fn files_guest(_: &Job) -> Result<ExitCode, String> {
    let read = |variable: &str, key: &str| {
        let dir = std::env::var(variable).map_err(|error| format!("{variable}: {error}"))?;
        crate::guest::read(&format!("{dir}/{key}")).map(|text| text.trim().to_owned())
    };
    for (key, expected) in [
        // The site's limit is no narrower than the image's.
        ("max_rss_bytes", (256_u64 << 20).to_string()),
        ("allocated_cpu", "1".to_owned()),
        ("job_id", "1b4e28ba-2fa1-11d2-883f-0016d3cca427:job-1".to_owned()),
    ] {
        let found = read("JOBFEATURES", key)?;
        if found != expected {
            return Err(format!("{key} is {found:?}"));
        }
    }
    let outputs = std::env::var("JOBOUTPUTS").map_err(|error| error.to_string())?;
    fs::write(format!("{outputs}/made"), "by a job").map_err(|error| format!("{outputs}: {error}"))?;
    println!("it has a line");
    Ok(ExitCode::SUCCESS)
}
