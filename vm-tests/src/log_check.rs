//! What `ctxtool log check` says of the records that a receiver took.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::process::Process;
use crate::stage::CTXTOOL;

/// It needs milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Exit code and what it found. The records stay in `dir`, for whoever looks into a failure.
pub fn check(dir: &Path, records: &[String]) -> Result<(i32, Value), String> {
    let log = dir.join("received.log");
    fs::write(&log, records.join("\n") + "\n").map_err(|error| format!("{}: {error}", log.display()))?;
    let mut command = Command::new(CTXTOOL);
    let mut tool = Process::start(command.args(["log", "check", "--json"]).arg(&log).stdout(Stdio::piped()))?;
    let output = tool.child().stdout.take().ok_or("no standard output")?;
    let said = thread::spawn(move || std::io::read_to_string(output).unwrap_or_default());
    let code = tool.wait(LIMIT)?.code().ok_or("ctxtool log check was killed")?;
    let said = said.join().unwrap_or_default();
    let found = serde_json::from_str(&said).map_err(|error| format!("ctxtool log check: {code}, {error}: {said}"))?;
    Ok((code, found))
}
