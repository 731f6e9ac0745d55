//! `ctxtool timeline`: a report's phases and tokens as a table and as a picture.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use thiserror::Error;

use crate::config::ConfigError;

/// Show the phases of a boot as a table, and draw them
#[derive(Debug, clap::Args)]
pub struct Timeline {
    /// The report.json of a machine
    report: PathBuf,
    /// Draw a picture with a bar a phase
    #[arg(short, long, value_name = "FILE.svg")]
    output: Option<PathBuf>,
}

/// What is wrong with a report.
#[derive(Debug, Error)]
pub enum TimelineError {
    /// A file that cannot be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not a report.
    #[error(transparent)]
    Report(#[from] ConfigError),
}

/// A report, as far as it is drawn; whatever else it holds is for others.
#[derive(Debug, Deserialize)]
struct Report {
    hostname: Option<String>,
    phases: Vec<Phase>,
    tokens: Vec<Token>,
    verdict: Option<Verdict>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    name: String,
    start_ms: u64,
    millis: u64,
    outcome: String,
    note: String,
}

#[derive(Debug, Deserialize)]
struct Token {
    id: String,
    start_ms: u64,
    millis: u64,
    fate: String,
    end: String,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    code: u16,
    text: String,
}

/// Reads the report, writes the picture if asked for, and returns the table.
///
/// # Errors
/// Names the file.
pub fn run(options: &Timeline) -> Result<String, TimelineError> {
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |error| TimelineError::Io { path, error }
    };
    let text = fs::read(&options.report).map_err(at(&options.report))?;
    let report: Report = crate::config::parse(&options.report.display().to_string(), &text)?;
    if let Some(path) = &options.output {
        fs::write(path, svg(&report)).map_err(at(path))?;
    }
    Ok(table(&report))
}

fn table(report: &Report) -> String {
    let mut text = format!("{:10} {:>9} {:>9}  {:9} {}\n", "phase", "start ms", "took ms", "outcome", "note");
    for phase in &report.phases {
        let Phase { name, start_ms, millis, outcome, note } = phase;
        let _ = writeln!(text, "{name:10} {start_ms:>9} {millis:>9}  {outcome:9} {note}");
    }
    for token in &report.tokens {
        let Token { id, start_ms, millis, fate, end } = token;
        let _ = writeln!(text, "{:10} {start_ms:>9} {millis:>9}  {fate:9} {end}", format!("token {id}"));
    }
    if let Some(Verdict { code, text: why }) = &report.verdict {
        let _ = writeln!(text, "{:10} {:>19}  {code} {why}", "end", "");
    }
    text
}

const LEFT: f64 = 110.0;
const WIDTH: f64 = 760.0;
const RIGHT: f64 = 110.0;
const ROW: f64 = 24.0;
const TOP: f64 = 62.0;

/// One bar.
struct Bar<'a> {
    label: String,
    start: u64,
    millis: u64,
    class: &'a str,
    title: String,
}

fn bars(report: &Report) -> Vec<Bar<'_>> {
    let phase = |phase: &Phase| Bar {
        label: phase.name.clone(),
        start: phase.start_ms,
        millis: phase.millis,
        class: match phase.outcome.as_str() {
            "ok" => "ok",
            "skipped" => "skipped",
            _ => "failed",
        },
        title: format!("{} {}: {}", phase.name, phase.outcome, phase.note),
    };
    let token = |token: &Token| Bar {
        label: format!("token {}", token.id),
        start: token.start_ms,
        millis: token.millis,
        class: if token.fate == "completed" { "token" } else { "failed" },
        title: format!("token {} {}: {}", token.id, token.fate, token.end),
    };
    // Before the first phase the machine was the kernel's.
    let kernel = report.phases.first().map(|first| Bar {
        label: "kernel".to_owned(),
        start: 0,
        millis: first.start_ms,
        class: "kernel",
        title: "kernel: from its start to /init".to_owned(),
    });
    // Tokens stand below the phase they belong to, which is the one before `end`.
    let (end, phases): (Vec<_>, Vec<_>) = report.phases.iter().partition(|phase| phase.name == "end");
    let phases = kernel.into_iter().chain(phases.into_iter().map(phase));
    phases.chain(report.tokens.iter().map(token)).chain(end.into_iter().map(phase)).collect()
}

fn svg(report: &Report) -> String {
    let bars = bars(report);
    let total = bars.iter().map(|bar| bar.start + bar.millis).max().unwrap_or(0).max(1);
    let x = |millis: u64| LEFT + WIDTH * millis as f64 / total as f64;
    let bottom = TOP + ROW * bars.len() as f64;
    let (width, height) = (LEFT + WIDTH + RIGHT, bottom + 40.0);
    let host = escape(report.hostname.as_deref().unwrap_or("machine"));
    let end =
        report.verdict.as_ref().map(|v| format!(" · ended with {}: {}", v.code, escape(&v.text))).unwrap_or_default();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Boot of {host}\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"head\" x=\"16\" y=\"28\">{host}{end}</text>\n"
    );
    for tick in ticks(total) {
        let (at, seconds) = (x(tick), tick as f64 / 1000.0);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{:.1}\" x2=\"{at:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\">{seconds} s</text>",
            TOP - 8.0,
            bottom + 20.0
        );
    }
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let (from, to) = (x(bar.start), x(bar.start + bar.millis));
        let Bar { label, millis, class, title, .. } = bar;
        let _ = writeln!(
            svg,
            "<g><title>{}</title><text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\
             <rect class=\"{class}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/>\
             <text class=\"time\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            escape(title),
            LEFT - 10.0,
            y + 12.0,
            escape(label),
            y,
            (to - from).max(2.0),
            ROW - 8.0,
            to.max(from + 2.0) + 6.0,
            y + 12.0,
            if *class == "skipped" { "skipped".to_owned() } else { format!("{millis} ms") },
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Colours of a page and of a dark one; the picture stands alone in a file.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2933}.head{font-weight:600;font-size:15px}\
.label{text-anchor:end}.tick{text-anchor:middle;fill:#66788a}.time{fill:#66788a;font-size:12px}\
.paper{fill:#fff}.grid{stroke:#e4e9ee}.ok{fill:#3b7dd8}.token{fill:#2f9e6e}.skipped,.kernel{fill:#b8c4ce}.failed{fill:#d64545}\
@media(prefers-color-scheme:dark){.paper{fill:#16191d}text{fill:#e3e8ed}.grid{stroke:#2c333a}.tick,.time{fill:#93a1af}}";

/// Round times, five to ten of them.
fn ticks(total: u64) -> impl Iterator<Item = u64> {
    let steps = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000, 3_600_000];
    let step = steps.into_iter().find(|step| total / step <= 9).unwrap_or(total);
    (0..=total / step).map(move |n| n * step)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"version": 1, "hostname": "vm<1>", "phases": [
        {"name": "prolog", "start_ms": 900, "millis": 35, "outcome": "ok", "note": "exit 0"},
        {"name": "epilog", "start_ms": 1000, "millis": 0, "outcome": "skipped", "note": "no epilog.sh"},
        {"name": "end", "start_ms": 1600, "millis": 10, "outcome": "ok", "note": ""}],
        "tokens": [{"id": "7", "start_ms": 1100, "millis": 400, "fate": "completed", "end": "exit 0"}],
        "verdict": {"code": 200, "text": "done"}}"#;

    fn report() -> Report {
        crate::config::parse("r", REPORT.as_bytes()).unwrap()
    }

    #[test]
    fn the_table_has_a_line_a_phase_and_a_token() {
        let table = table(&report());
        assert_eq!(table.lines().count(), 6);
        assert!(table.contains("prolog           900        35  ok        exit 0\n"), "{table}");
        assert!(table.contains("token 7         1100       400  completed"), "{table}");
        assert!(table.contains("200 done"), "{table}");
    }

    #[test]
    fn the_picture_has_a_bar_each_at_its_time() {
        let svg = svg(&report());
        assert!(svg.contains("vm&lt;1&gt; · ended with 200: done"), "{svg}");
        assert_eq!(svg.matches("<g>").count(), 5);
        // 900 of 1610 ms, and at least 2 wide.
        assert!(svg.contains("class=\"ok\" x=\"534.8\" y=\"86.0\" width=\"16.5\""), "{svg}");
        assert!(svg.contains("class=\"token\""), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(1610).collect::<Vec<_>>(), [0, 200, 400, 600, 800, 1000, 1200, 1400, 1600]);
        assert_eq!(ticks(50).collect::<Vec<_>>(), [0]);
    }
}
