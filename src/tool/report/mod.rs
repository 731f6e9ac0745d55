//! `ctxtool report`: a machine's report as a table, or as a page.

mod head;
pub(super) mod html;
mod page;
mod picture;

use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::Value;
use thiserror::Error;

use crate::config::{self, ConfigError};
use crate::status::{self, View};
use crate::text;

/// The newest format that is known here.
const VERSION: u64 = 1;

/// Show the report of a machine as a table, or make a page of it
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The report.json of a machine
    report: PathBuf,
    /// Write one self-contained HTML page: the boot as a picture, each phase, script, change and token
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

/// What is wrong with a report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file that cannot be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] ConfigError),
    /// JSON of something else.
    #[error("{}: not a report of ctxinit: no \"version\" and \"phases\" in it", .path.display())]
    Other {
        /// Which.
        path: PathBuf,
    },
    /// A newer format.
    #[error("{}: a report of version {version}, and this ctxtool knows version {VERSION}", .path.display())]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
}

/// Reads the report; returns the table, or writes the page and returns a line that says so.
///
/// # Errors
/// Names the file.
pub fn run(options: &Options) -> Result<String, ReportError> {
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |error| ReportError::Io { path, error }
    };
    let text = fs::read(&options.report).map_err(at(&options.report))?;
    let value: Value = config::parse(&options.report.display().to_string(), &text)?;
    let report = View::new(&value);
    let path = options.report.clone();
    match report.maybe("version") {
        Some(version) if version > VERSION => return Err(ReportError::Newer { path, version }),
        Some(_) if value["phases"].is_array() => {}
        _ => return Err(ReportError::Other { path }),
    }
    let Some(output) = &options.output else {
        return Ok(status::summary(report, text::in_colours(), true));
    };
    let page = page::page(report);
    fs::write(output, &page).map_err(at(output))?;
    Ok(format!("{}: written, {}\n", output.display(), status::words::bytes(page.len() as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("r.json");
        fs::write(&report, text).unwrap();
        let error = run(&Options { report, output: None }).unwrap_err().to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    }

    #[test]
    fn only_a_report_is_shown() {
        assert_eq!(complaint("{"), "r.json:1: EOF while parsing an object");
        assert_eq!(complaint("[]"), "r.json: not a report of ctxinit: no \"version\" and \"phases\" in it");
        assert_eq!(
            complaint(r#"{"version": 1}"#),
            "r.json: not a report of ctxinit: no \"version\" and \"phases\" in it"
        );
        assert_eq!(
            complaint(r#"{"version": 2, "phases": []}"#),
            "r.json: a report of version 2, and this ctxtool knows version 1"
        );
    }

    #[test]
    fn a_page_is_written_where_it_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let [report, output] = ["r.json", "r.html"].map(|name| dir.path().join(name));
        fs::write(&report, r#"{"version": 1, "phases": []}"#).unwrap();
        let said = run(&Options { report, output: Some(output.clone()) }).unwrap();
        assert!(said.starts_with(&output.display().to_string()) && said.ends_with(" KiB\n"), "{said}");
        assert!(fs::read_to_string(output).unwrap().starts_with("<!doctype html>"));
    }
}
