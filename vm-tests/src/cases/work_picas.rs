//! Tokens that are documents of a CouchDB database: a real server here, which PouchDB stands for, and a machine that
//! works them with `work.picas`.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::http;
use crate::process::Process;
use crate::site::{HOST, Site, keep_port};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("work-picas", host).with_payload(payload);

/// npm brings it when it is first used.
const STARTING: Duration = Duration::from_secs(600);
/// How PiCaS marks an error, instead of a time.
const ERROR: u64 = 99;

/// Two tokens are worked and their results attached; the third fails, which is once too often here, and is an error.
fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let (port, _keeper) = keep_port().map_err(|errno| format!("a port for PouchDB: {errno}"))?;
    let mut command = Command::new("scripts/pouchdb");
    command.arg(port.to_string()).arg(stage.dir.join("couch")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Process::start(&mut command)?;
    server.until(STARTING, || http::ask(port, "GET", "/", "", ""))?;
    let put = |place: &str, document: Value| {
        http::ask(port, "PUT", place, "Content-Type: application/json\r\n", &document.to_string()).map(drop)
    };
    put("/tokens", json!({}))?;
    // Two of the example views of PiCaS.
    let map = |lock: &str| {
        let when = format!("doc.type == 'token' && {lock} && doc.done == 0");
        json!({"map": format!("function(doc) {{ if ({when}) emit(doc._id, doc._id); }}")})
    };
    let views = json!({"todo": map("doc.lock == 0"), "locked": map("doc.lock > 0")});
    put("/tokens/_design/Monitor", json!({"language": "javascript", "views": views}))?;
    for id in ["one", "two", "poison"] {
        let input = format!("{} {id}", stage.case.name);
        put(&format!("/tokens/{id}"), json!({"type": "token", "lock": 0, "done": 0, "input": input, "mine": [id]}))?;
    }

    let picas = json!({"url": format!("http://{HOST}:{port}"), "database": "tokens", "max_scrubs": 0});
    let cd = stage.cd(&[("context.json", &site.context_with(json!({"work": {"picas": picas}})))])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 2 of 3 tokens completed")?;
    let get = |place: &str| http::ask(port, "GET", &format!("/tokens/{place}"), "", "");
    for (id, well) in [("one", true), ("two", true), ("poison", false)] {
        let token: Value = serde_json::from_str(&get(id)?).map_err(|error| format!("{id}: {error}"))?;
        let stamps = (token["lock"].as_u64().unwrap_or_default(), token["done"].as_u64().unwrap_or_default());
        let right = match well {
            true => stamps.0 > ERROR && stamps.1 >= stamps.0 && token["exit_code"] == 0,
            false => stamps == (ERROR, ERROR) && token["error"][0]["message"] == "exit 3",
        };
        // A field of somebody's stays.
        if !right || token["mine"] != json!([id]) {
            return Err(format!("expected {id} to be {}, found {token}", if well { "done" } else { "an error" }));
        }
    }
    for id in ["one", "two"] {
        let result = get(&format!("{id}/result"))?;
        if result != format!("result of {id}") {
            return Err(format!("expected the result of {id} at its token, found {result:?}"));
        }
    }
    Ok(())
}

fn payload(job: &Job) -> Result<ExitCode, String> {
    let id = job.words.first().map(String::as_str).unwrap_or_default();
    std::fs::write(&job.result, format!("result of {id}")).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(if id == "poison" { ExitCode::from(3) } else { ExitCode::SUCCESS })
}
