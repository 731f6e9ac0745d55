//! `ctxinit status` and `ctxinit explain`: the report of this boot, for people and programs inside the machine. What a
//! report says in words is also what `ctxtool report` shows of it elsewhere.

pub mod explain;
mod summary;
pub mod view;
pub mod words;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::agent::{self, report};
use crate::clock::Deadline;
use crate::text::printable;

pub use self::summary::summary;
pub use self::view::View;

/// The report changes at most a few times a second, and the command has nothing else to do.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How `status` is to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Wait until the boot is over: the work phase has begun, or the machine ends.
    pub wait: bool,
    /// Seconds for that; none means for ever.
    pub timeout: Option<u64>,
    /// Print the report as it is.
    pub json: bool,
    /// Paint the table.
    pub colour: bool,
}

/// All is well, or not over yet and well so far.
pub const OK: i32 = 0;
/// A phase failed, or the machine ends with a fault.
pub const FAULT: i32 = 3;

/// Why there is no answer, or not the one that was waited for.
#[derive(Debug, Error)]
pub enum StatusError {
    /// No report, or none that can be read.
    #[error("{}: {why}; is this machine booted by ctxinit?", .path.display())]
    NoReport {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The boot was not over in time; what there is was printed.
    #[error("the boot is not over after {secs} s: it is in the phase after {last}")]
    Timeout {
        /// The limit.
        secs: u64,
        /// The last phase that ended.
        last: String,
    },
    /// Not a phase.
    #[error("there is no phase {name:?}; there are {}", .names.join(", "))]
    NoPhase {
        /// What was asked for.
        name: String,
        /// What could have been.
        names: Vec<&'static str>,
    },
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl StatusError {
    /// The exit code, as `ctxinit --help` lists them.
    pub fn code(&self) -> i32 {
        match self {
            Self::NoPhase { .. } | Self::Output(_) => 1,
            Self::NoReport { .. } => 2,
            Self::Timeout { .. } => 4,
        }
    }
}

/// Prints the state of the machine; returns the exit code.
///
/// # Errors
/// See [`StatusError`].
pub fn run(options: Options, out: &mut impl Write) -> Result<i32, StatusError> {
    run_on(Path::new(report::PATH), options, out)
}

/// Prints why each phase, or this one, ran, was skipped or failed.
///
/// # Errors
/// See [`StatusError`].
pub fn explain(phase: Option<&str>, out: &mut impl Write) -> Result<i32, StatusError> {
    let (_, report) = read(Path::new(report::PATH))?;
    let told = explain::text(View::new(&report), phase, &agent::phase_names());
    let told = told.map_err(|names| StatusError::NoPhase { name: phase.unwrap_or_default().to_owned(), names })?;
    out.write_all(told.as_bytes())?;
    Ok(OK)
}

fn run_on(path: &Path, options: Options, out: &mut impl Write) -> Result<i32, StatusError> {
    let deadline = options.timeout.map(|secs| Deadline::after(Duration::from_secs(secs)));
    let (text, report) = loop {
        let read = read(path);
        let settled = read.as_ref().is_ok_and(|(_, report)| settled(View::new(report)));
        if settled || !options.wait || deadline.is_some_and(Deadline::passed) {
            break read?;
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let view = View::new(&report);
    if options.json {
        out.write_all(text.as_bytes())?;
    } else {
        out.write_all(summary(view, options.colour, false).as_bytes())?;
    }
    match options.timeout {
        Some(secs) if options.wait && !settled(view) => {
            let last = view.list("phases").last().map_or("none", |phase| phase.text("name"));
            Err(StatusError::Timeout { secs, last: printable(last) })
        }
        _ => Ok(code(view)),
    }
}

fn read(path: &Path) -> Result<(String, Value), StatusError> {
    let bad = |why: String| StatusError::NoReport { path: path.to_owned(), why };
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| bad(format!("not JSON: {error}")))?;
    Ok((text, report))
}

/// Every phase before `work` is in the report, or the verdict is. A phase that is skipped is there, too.
fn settled(report: View<'_>) -> bool {
    let names = agent::phase_names();
    let work = names.iter().position(|&name| name == "work").unwrap_or(names.len());
    // From the last one before it on.
    let over = names.get(work.saturating_sub(1)..).unwrap_or_default();
    report.at("verdict").exists() || report.list("phases").any(|phase| over.contains(&phase.text("name")))
}

fn code(report: View<'_>) -> i32 {
    let failed = report.list("phases").any(|phase| phase.text("outcome") == "failed");
    if failed || words::is_fault(report.at("verdict").number("code")) { FAULT } else { OK }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(report: &str, options: Options) -> (i32, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        fs::write(&path, report).unwrap();
        let mut out = Vec::new();
        let (code, complaint) = match run_on(&path, options, &mut out) {
            Ok(code) => (code, String::new()),
            Err(error) => (error.code(), error.to_string()),
        };
        (code, String::from_utf8(out).unwrap(), complaint)
    }

    fn phase(name: &str, outcome: &str) -> String {
        format!(r#"{{"name": "{name}", "outcome": "{outcome}", "start_ms": 1, "millis": 3, "note": "n"}}"#)
    }

    #[test]
    fn the_boot_is_over_after_the_last_phase_before_work() {
        let names = agent::phase_names();
        let work = names.iter().position(|&name| name == "work").unwrap();
        for outcome in ["ok", "skipped"] {
            for last in 0..names.len() {
                let phases: Vec<String> = names[..=last].iter().map(|name| phase(name, outcome)).collect();
                let report = format!(r#"{{"phases": [{}], "verdict": null}}"#, phases.join(","));
                let expected = if last + 1 < work { 4 } else { OK };
                let wait = Options { wait: true, timeout: Some(0), ..Options::default() };
                assert_eq!(ask(&report, wait).0, expected, "{outcome} as far as {}", names[last]);
            }
        }
    }

    /// Every state that a machine can be in: what is in the report, and the codes without and with a wait that is over
    /// at once.
    #[test]
    fn states_have_codes_of_their_own() {
        let wait = Options { wait: true, timeout: Some(0), ..Options::default() };
        type State = (&'static [(&'static str, &'static str)], Option<u16>, i32, i32);
        let states: [State; 12] = [
            (&[], None, OK, 4),
            (&[("prolog", "ok")], None, OK, 4),
            (&[("prolog", "failed")], None, FAULT, 4),
            (&[("prolog", "ok"), ("network", "ok"), ("disk", "skipped")], None, OK, OK),
            (&[("prolog", "skipped"), ("disk", "skipped")], None, OK, OK),
            (&[("prolog", "failed"), ("disk", "ok")], None, FAULT, FAULT),
            (&[("prolog", "failed"), ("end", "ok")], None, FAULT, FAULT),
            (&[("prolog", "stopped"), ("end", "ok")], Some(100), OK, OK),
            (&[("disk", "ok"), ("work", "ok"), ("end", "ok")], Some(200), OK, OK),
            (&[("disk", "ok"), ("work", "ok"), ("end", "ok")], Some(300), OK, OK),
            (&[("disk", "ok"), ("work", "ok"), ("end", "ok")], Some(400), FAULT, FAULT),
            (&[("disk", "ok"), ("work", "failed"), ("end", "ok")], Some(700), FAULT, FAULT),
        ];
        for (phases, verdict, now, waited) in states {
            let phases: Vec<String> = phases.iter().map(|(name, outcome)| phase(name, outcome)).collect();
            let verdict = verdict.map_or("null".to_owned(), |code| format!(r#"{{"code": {code}, "text": "t"}}"#));
            let report = format!(r#"{{"phases": [{}], "verdict": {verdict}}}"#, phases.join(","));
            assert_eq!(ask(&report, Options::default()).0, now, "{report}");
            assert_eq!(ask(&report, wait).0, waited, "{report}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let wait = Options { wait: true, timeout: Some(0), ..Options::default() };
        let booting = format!(r#"{{"phases": [{}], "verdict": null}}"#, phase("prolog", "ok"));
        let (_, out, complaint) = ask(&booting, wait);
        assert!(out.contains("\nprolog       ok "), "{out}");
        assert_eq!(complaint, "the boot is not over after 0 s: it is in the phase after prolog");
        let (code, _, complaint) = ask("{", wait);
        assert_eq!(code, 2);
        assert!(complaint.contains("report.json: not JSON: EOF"), "{complaint}");
        let error = run_on(Path::new("/nonexistent/report.json"), Options::default(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), 2);
        let wanted =
            "/nonexistent/report.json: No such file or directory (os error 2); is this machine booted by ctxinit?";
        assert_eq!(error.to_string(), wanted);
    }

    #[test]
    fn a_wait_ends_when_the_boot_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let report = format!(r#"{{"phases": [{}], "verdict": null}}"#, phase("disk", "ok"));
        let late = path.clone();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            fs::write(late, report).unwrap();
        });
        // No report at first is no reason to give up.
        let options = Options { wait: true, timeout: Some(60), ..Options::default() };
        assert_eq!(run_on(&path, options, &mut Vec::new()).unwrap(), OK);
        writer.join().unwrap();
    }

    #[test]
    fn json_is_the_file_itself() {
        let text = "{\"phases\": [], \"verdict\": null}\n";
        assert_eq!(ask(text, Options { json: true, ..Options::default() }), (OK, text.to_owned(), String::new()));
    }
}
