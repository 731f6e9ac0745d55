//! `ctxinit status`: the report of this boot, for people and programs inside the machine.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::agent::report;
use crate::clock::Deadline;

/// The report changes at most a few times a second, and the command has nothing else to do.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How the command is to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Wait until the boot is over: the work phase has begun, or the machine ends.
    pub wait: bool,
    /// Seconds for that; none means for ever.
    pub timeout: Option<u64>,
    /// Print the report as it is.
    pub json: bool,
}

/// Exit codes, as `ctxinit --help` lists them.
pub const OK: i32 = 0;
/// There is no report: ctxinit does not run this machine.
pub const NO_REPORT: i32 = 2;
/// A phase failed, or the machine ends with a fault.
pub const FAULT: i32 = 3;
/// The boot was not over in time.
pub const TIMEOUT: i32 = 4;

/// Prints the state of the machine; returns the exit code.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(options: Options, out: &mut impl Write) -> io::Result<i32> {
    run_on(Path::new(report::PATH), options, out)
}

fn run_on(path: &Path, options: Options, out: &mut impl Write) -> io::Result<i32> {
    let deadline = options.timeout.map(|secs| Deadline::after(Duration::from_secs(secs)));
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let report: Value = serde_json::from_str(&text).unwrap_or_default();
        let late = deadline.is_some_and(Deadline::passed);
        if options.wait && !settled(&report) && !late {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        if report.is_null() {
            writeln!(out, "ctxinit: no report at {}", path.display())?;
            return Ok(NO_REPORT);
        }
        if options.json {
            out.write_all(text.as_bytes())?
        } else {
            out.write_all(summary(&report).as_bytes())?
        }
        return Ok(if options.wait && !settled(&report) { TIMEOUT } else { code(&report) });
    }
}

fn phases(report: &Value) -> &[Value] {
    report.get("phases").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Every phase before `work` is in the report, or the verdict is.
fn settled(report: &Value) -> bool {
    let ends = |phase: &Value| phase["name"] == "hooks" || phase["name"] == "end";
    !report["verdict"].is_null() || phases(report).iter().any(ends)
}

fn code(report: &Value) -> i32 {
    let failed = phases(report).iter().any(|phase| phase["outcome"] == "failed");
    let fault = report["verdict"]["code"].as_u64().is_some_and(|code| code >= 400);
    if failed || fault { FAULT } else { OK }
}

fn summary(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = phases(report)
        .iter()
        .map(|phase| {
            let millis = phase["millis"].as_u64().unwrap_or(0);
            format!(
                "{:8} {:8} {millis:>7} ms  {}\n",
                text(&phase["name"]),
                text(&phase["outcome"]),
                text(&phase["note"])
            )
        })
        .collect();
    let tokens = report["tokens"].as_array().map_or(0, Vec::len);
    if tokens > 0 {
        lines.push(format!("tokens   {tokens}\n"));
    }
    if let Some(code) = report["verdict"]["code"].as_u64() {
        lines.push(format!("end      {code} {}\n", text(&report["verdict"]["text"])));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(report: &str, options: Options) -> (i32, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        fs::write(&path, report).unwrap();
        let mut out = Vec::new();
        let code = run_on(&path, options, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn states_have_codes_of_their_own() {
        let wait = Options { wait: true, timeout: Some(0), json: false };
        let booting = r#"{"phases": [{"name": "prolog", "outcome": "ok", "millis": 3, "note": "exit 0"}]}"#;
        assert_eq!(ask(booting, Options::default()), (OK, "prolog   ok             3 ms  exit 0\n".to_owned()));
        assert_eq!(ask(booting, wait).0, TIMEOUT);
        let up = r#"{"phases": [{"name": "hooks", "outcome": "skipped", "millis": 0, "note": ""}]}"#;
        assert_eq!(ask(up, wait).0, OK);
        let ended = r#"{"phases": [], "tokens": [{}], "verdict": {"code": 500, "text": "no CD"}}"#;
        assert_eq!(ask(ended, wait), (FAULT, "tokens   1\nend      500 no CD\n".to_owned()));
        assert_eq!(ask("", Options::default()).0, NO_REPORT);
    }

    #[test]
    fn json_is_the_file_itself() {
        let text = "{\"phases\": [], \"verdict\": null}\n";
        assert_eq!(ask(text, Options { json: true, ..Options::default() }), (OK, text.to_owned()));
    }
}
