//! A report as a table: what `ctxinit status` and `ctxtool report` print.

use std::fmt::Display;

use super::view::View;
use super::words::{self, bytes, duration};
use crate::text::{count, printable};

/// Escape codes, where they are wanted.
#[derive(Clone, Copy)]
struct Paint(bool);

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31;1";
const DIM: &str = "2";

impl Paint {
    fn paint(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Letters of the longest phase, `start-script`.
const WIDTH: usize = 12;
/// What belongs to the line above begins under its second column.
const INDENT: &str = "             ";

/// The whole report as lines. With `every_token`, each token has one; without, only those that were not completed.
pub fn summary(report: View<'_>, colour: bool, every_token: bool) -> String {
    let paint = Paint(colour);
    let mut lines = head(report, paint);
    lines.push(
        paint.paint(DIM, format_args!("{:WIDTH$} {:8} {:>10} {:>10}  note", "phase", "outcome", "start", "took")),
    );
    for phase in report.list("phases") {
        lines.push(row(phase, paint));
        lines.extend(phase.list("scripts").flat_map(|script| of_script(script, paint)));
        lines.extend(changes(phase, paint));
    }
    lines.extend(tokens(report, paint, every_token));
    lines.extend(tail(report, paint));
    lines.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

fn labelled(label: &str, text: impl Display) -> String {
    format!("{label:WIDTH$} {text}")
}

fn head(report: View<'_>, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    if !report.text("hostname").is_empty() {
        lines.push(labelled("machine", printable(report.text("hostname"))));
    }
    let image = report.at("image");
    if image.exists() {
        let endorser = match image.text("endorser") {
            "" => String::new(),
            name => format!(", {name}"),
        };
        let line = format!("{} version {}{endorser}", image.text("uuid"), image.text("version"));
        lines.push(labelled("booted", printable(&line)));
    }
    let medium = report.at("medium");
    if medium.exists() {
        lines.push(labelled("context", words::medium(medium)));
    }
    let signature = medium.at("signature");
    if signature.exists() {
        let code = match words::signature_is_good(signature) {
            Some(good) => {
                if good {
                    GREEN
                } else {
                    RED
                }
            }
            None => DIM,
        };
        lines.push(format!("{INDENT}signature {}", paint.paint(code, words::signature(signature))));
    }
    lines
}

fn row(phase: View<'_>, paint: Paint) -> String {
    let outcome = phase.text("outcome");
    let code = match outcome {
        "ok" => GREEN,
        "skipped" => DIM,
        "failed" => RED,
        _ => YELLOW,
    };
    // Padded before it is painted: escape codes have no width.
    let outcome = paint.paint(code, format_args!("{:8}", printable(outcome)));
    let [start, took] = ["start_ms", "millis"].map(|key| format!("{} ms", phase.number(key)));
    let [name, note] = ["name", "note"].map(|key| printable(phase.text(key)));
    format!("{name:WIDTH$} {outcome} {start:>10} {took:>10}  {note}")
}

/// Nothing of a script that ended well and left nothing.
fn of_script(script: View<'_>, paint: Paint) -> Vec<String> {
    let name = format!("{} {}", printable(script.text("name")), printable(script.text("action")));
    let mut lines = Vec::new();
    if script.script_failed() {
        let end = paint.paint(RED, printable(script.text("end")));
        lines.push(format!("{INDENT}{name}: {end} ({})", duration(script.number("millis"))));
        lines.extend(script.lines("tail").map(|line| format!("{INDENT}| {}", printable(line))));
    }
    let left: Vec<String> = script.lines("left_running").map(printable).collect();
    if !left.is_empty() {
        lines.push(format!("{INDENT}{name} left running: {}", left.join(", ")));
    }
    match script.number("output_dropped") {
        0 => {}
        dropped => lines.push(format!("{INDENT}{name}: {} of output are lost", bytes(dropped))),
    }
    lines
}

fn changes(phase: View<'_>, paint: Paint) -> Vec<String> {
    let (all, bad) = (phase.list("changes").count() as u64, phase.violations().count() as u64);
    if all == 0 {
        return Vec::new();
    }
    let mut line = format!("{INDENT}{}", count(all, "file") + " changed");
    if bad > 0 {
        line += ", ";
        line += &paint.paint(RED, count(bad, "violation"));
    }
    let violation = |change: View<'_>| {
        let back = if change.flag("reverted") == Some(true) { ", put back" } else { "" };
        let [kind, path, why] = ["kind", "path", "violation"].map(|key| printable(change.text(key)));
        format!("{INDENT}! {kind} {path}: {why}{back}")
    };
    [line].into_iter().chain(phase.violations().map(violation)).collect()
}

fn tokens(report: View<'_>, paint: Paint, every: bool) -> Vec<String> {
    let (tokens, more) = (report.list("tokens"), report.number("more_tokens"));
    let all = more.saturating_add(tokens.clone().count() as u64);
    if all == 0 {
        return Vec::new();
    }
    let fates = ["completed", "released", "failed", "lost", "stranded"].into_iter().filter_map(|fate| {
        let number = tokens.clone().filter(|token| token.text("fate") == fate).count();
        (number > 0).then(|| format!("{number} {fate}"))
    });
    let more = (more > 0).then(|| format!("{more} not listed"));
    let fates: Vec<String> = fates.chain(more).collect();
    let mut lines = vec![labelled("tokens", format_args!("{all}: {}", fates.join(", ")))];
    for token in tokens {
        let completed = token.text("fate") == "completed";
        if completed && !every {
            continue;
        }
        let fate =
            paint.paint(if completed { GREEN } else { RED }, format_args!("{:9}", printable(token.text("fate"))));
        let [id, end] = ["id", "end"].map(|key| printable(token.text(key)));
        let [start, took] = ["start_ms", "millis"].map(|key| format!("{} ms", token.number(key)));
        lines.push(format!("{id:>11}  {fate} {start:>9} {took:>10}  {end}"));
        lines.extend(token.lines("tail").map(|line| format!("{INDENT}| {}", printable(line))));
    }
    lines
}

fn tail(report: View<'_>, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(line) = words::image_device(report.at("image_device")) {
        let code = if report.at("image_device").flag("unchanged") == Some(true) { GREEN } else { RED };
        lines.push(labelled("disk", paint.paint(code, line)));
    }
    lines.extend(words::log(report).map(|line| labelled("log", line)));
    let verdict = report.at("verdict");
    if verdict.exists() {
        let code = verdict.number("code");
        let line = format!("{code} {}", printable(verdict.text("text")));
        lines.push(labelled("end", paint.paint(if words::is_fault(code) { RED } else { GREEN }, line)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const EVERYTHING: &str = include_str!("../../tests/fixtures/report/everything.json");

    fn everything() -> Value {
        serde_json::from_str(EVERYTHING).unwrap()
    }

    #[test]
    fn a_report_reads_as_a_table() {
        let report = json!({"phases": [
            {"name": "early", "outcome": "ok", "start_ms": 702, "millis": 9, "note": "ctxinit 0.1.0"},
            {"name": "prolog", "outcome": "failed", "start_ms": 900, "millis": 35, "note": "prolog.sh: exit 7",
             "scripts": [
                {"name": "init.sh", "action": "start", "end": "exit 0", "exit": 0, "tail": ["fine"]},
                {"name": "prolog.sh", "action": "start", "millis": 30, "end": "exit 7", "exit": 7,
                 "left_running": ["d (1)", "e (2)"], "tail": ["no disk"]}],
             "changes": [{"path": "/etc/motd", "kind": "added", "violation": null},
                {"path": "/bin/x", "kind": "added", "violation": "not in site_writable", "reverted": true}]}],
            "tokens": [{"id": "7", "fate": "completed", "start_ms": 1, "millis": 2, "end": "exit 0"},
                {"id": "8", "fate": "lost", "start_ms": 1000, "millis": 20, "end": "exit 1", "tail": ["lost it"]}],
            "more_tokens": 1,
            "verdict": {"code": 500, "text": "no CD"}});
        let wanted = "\
phase        outcome       start       took  note
early        ok           702 ms       9 ms  ctxinit 0.1.0
prolog       failed       900 ms      35 ms  prolog.sh: exit 7
             prolog.sh start: exit 7 (30 ms)
             | no disk
             prolog.sh start left running: d (1), e (2)
             2 files changed, 1 violation
             ! added /bin/x: not in site_writable, put back
tokens       3: 1 completed, 1 lost, 1 not listed
          8  lost        1000 ms      20 ms  exit 1
             | lost it
end          500 no CD
";
        assert_eq!(summary(View::new(&report), false, false), wanted);
        assert!(
            summary(View::new(&report), false, true)
                .contains("\n          7  completed      1 ms       2 ms  exit 0\n")
        );
    }

    #[test]
    fn every_phase_fits_its_column() {
        let text = summary(View::new(&everything()), false, true);
        let rows: Vec<&str> = text.lines().filter(|line| line.contains(" ms  ") && !line.starts_with(' ')).collect();
        assert_eq!(rows.len(), crate::agent::phase_names().len(), "{text}");
        let crooked = |row: &&&str| row.as_bytes().get(WIDTH) != Some(&b' ') || row.find(" ms  ") != Some(29);
        assert_eq!(rows.iter().find(crooked), None, "{text}");
    }

    #[test]
    fn machine_medium_disk_and_log_are_told_where_they_are_known() {
        let text = summary(View::new(&everything()), false, false);
        for line in [
            "booted       6b0a2b0e-8f8b-4d3e-b8c4-19f2a1f0f9a1 version 2.4.1, biomed VO, ops@biomed.example",
            "context      CONTEXT on /dev/vdb (iso9660), 5 files, 12.3 KiB",
            "             signature good: signed by RWT3nV9c for this image, until 2027-01-01T00:00:00Z",
            "disk         /dev/vda is unchanged, 0 sectors written, its hash at the end is that of the start",
            "log          no syslog server, 122 records stayed in the machine",
            "end          200 1 of 3 tokens completed",
        ] {
            assert!(text.lines().any(|each| each == line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn an_image_that_asks_for_no_signature_shows_no_fault() {
        let mut report = everything();
        report["medium"]["signature"] = json!({"state": "off", "why": "the image asks for none"});
        let text = summary(View::new(&report), true, false);
        assert!(text.contains("signature \x1b[2moff: the image asks for none\x1b[0m"), "{text}");
    }

    #[test]
    fn colours_come_from_us_alone() {
        let text = summary(View::new(&everything()), false, true);
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text}");
        assert!(text.contains(r"\u{1b}[31mwarning: <script>alert(1)</script>"), "{text}");
        let text = summary(View::new(&everything()), true, true);
        assert!(text.contains("\nepilog       \x1b[31;1mfailed  \x1b[0m"), "{text}");
        assert_eq!(text.matches('\x1b').count() % 2, 0);
    }
}
