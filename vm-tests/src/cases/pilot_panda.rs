//! A real pilot without its server: PanDA's, from PyPI, in a machine with Python. Pages here stand for what it must
//! know of its queue, and say that there is no job.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::case::Case;
use crate::http::Page;
use crate::process;
use crate::site::{HOST, Site};
use crate::stage::{Stage, policy_with};

/// It asks once, and takes more than a minute to be sure.
pub const CASE: Case = Case { deadline: 400, ..Case::new("pilot-panda", host) };

/// Where `scripts/pilots --fetch` puts it, and where it lies in the image.
const PILOT: &str = "target/pilots/panda";
const IN_IMAGE: &str = "opt/panda";
const CONFIG: &str = "opt/panda.cfg";
const QUEUE: &str = "CTXINIT";
const FETCHING: Duration = Duration::from_secs(300);

fn host(stage: &Stage) -> Result<(), String> {
    process::make(Command::new("scripts/pilots").arg("--fetch"), FETCHING)?;
    let site = Site::start(stage)?;
    let page = |value: serde_json::Value| Page::serve(&value.to_string()).map_err(|error| format!("a page: {error}"));
    let storages = page(json!({"SOMEWHERE": {"name": "SOMEWHERE", "state": "ACTIVE"}}))?;
    let queue = json!({
        "name": QUEUE, "nickname": QUEUE, "panda_resource": QUEUE, "atlas_site": QUEUE, "state": "ACTIVE",
        "status": "online", "corecount": 1, "maxwdir": 16, "copytools": {"cp": {}}, "acopytools": {"pr": ["cp"]},
    });
    let (queue, queues) = (page(queue.clone())?, page(json!({QUEUE: queue}))?);
    let no_job = page(json!({"StatusCode": 20}))?;
    let url = |page: &Page| format!("http://{HOST}:{}/", page.port);

    let command = [
        "/usr/bin/python3",
        &format!("/{IN_IMAGE}/pilot.py"),
        "--pilot-user",
        "generic",
        "--queue",
        QUEUE,
        "--queuedata-url",
        &url(&queue),
        "--storagedata-url",
        &url(&storages),
        "--url",
        &format!("http://{HOST}"),
        "--port",
        &no_job.port.to_string(),
        "--use-https",
        "False",
        "--noproxyverification",
        "--getjobrequests",
        "1",
    ];
    let policy = policy_with(json!({"payload": {"command": command, "wall_secs": 360}}));
    let environment = json!({"HARVESTER_PILOT_CONFIG": format!("/{CONFIG}"), "LOCAL_AGIS_SCHEDCONF": url(&queues)});
    let cd =
        stage.cd(&[("context.json", &site.context_with(json!({"work": {"exec": {"environment": environment}}})))])?;
    let config = stage.dir.join("panda.cfg").display().to_string();
    fs::write(&config, small_config()?).map_err(|error| format!("{config}: {error}"))?;
    let machine = stage.debian_including("python3,curl", &policy, &[(PILOT, IN_IMAGE), (&config, CONFIG)])?;
    let ended = machine.cd(&cd).run()?;

    let records = site.syslog.records();
    let said = |words: &str| records.iter().any(|record| record.app == "payload" && record.text.contains(words));
    for words in ["did not get a job", "pilot has finished (exit code=0, shell exit code=0)"] {
        if !said(words) {
            return Err(format!("expected {words:?} of the pilot at the syslog receiver"));
        }
    }
    let verdict = ended.verdict().unwrap_or_default();
    let fizzled = verdict.starts_with("300 the pilot ended well after ");
    if fizzled { Ok(()) } else { Err(format!("expected a pilot that found no work, got {verdict:?}")) }
}

/// Its own settings, for a job's scratch in memory.
fn small_config() -> Result<String, String> {
    let path = format!("{PILOT}/pilot/util/default.cfg");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let small = text.replace("\nfree_space_limit: 2 GB\n", "\nfree_space_limit: 16 MB\n");
    if small == text { Err(format!("{path}: no free_space_limit of 2 GB")) } else { Ok(small) }
}
