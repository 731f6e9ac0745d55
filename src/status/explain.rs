//! Why each phase ran, was skipped or failed, in sentences.

use super::view::View;
use super::words::{bytes, duration, signature};
use crate::text::{count, printable};

/// What there is to say of one phase.
pub struct Explained<'a> {
    /// Why it ran, for how long, and what came of it.
    pub sentences: Vec<String>,
    /// Each script of it.
    pub scripts: Vec<Script<'a>>,
    /// What was changed, where anything could be.
    pub changes: Vec<String>,
    /// What followed from a failure.
    pub after: Option<String>,
}

/// What there is to say of one run of a script.
pub struct Script<'a> {
    /// As the report has it.
    pub report: View<'a>,
    /// `prolog.sh start: exit 0 (35 ms)`.
    pub headline: String,
    /// What it used and left.
    pub sentences: Vec<String>,
}

/// Explains the phase; `next` is the one that came after it.
pub fn phase<'a>(report: View<'_>, phase: View<'a>, next: Option<View<'_>>) -> Explained<'a> {
    let cause = printable(phase.text("cause"));
    if phase.text("outcome") == "skipped" {
        let sentences = vec![format!("It was skipped: {cause}.")];
        return Explained { sentences, scripts: Vec::new(), changes: Vec::new(), after: None };
    }
    let mut sentences = vec![format!("It ran because {cause}."), time(phase), outcome(phase)];
    if phase.text("name") == "medium" {
        sentences.extend(medium(report.at("medium")));
    }
    let spent = phase.at("spent");
    sentences.push(format!(
        "Meanwhile the whole machine made {} and used {} of CPU time.",
        count(spent.number("forks"), "process"),
        duration(spent.number("cpu_ms"))
    ));
    let scripts = phase.list("scripts").map(script).collect();
    Explained { sentences, scripts, changes: changes(phase), after: after(phase, next) }
}

fn time(phase: View<'_>) -> String {
    let [start, took] = ["start_ms", "millis"].map(|key| duration(phase.number(key)));
    let limit = match phase.maybe("limit_ms") {
        Some(limit) => format!(" of the {} that it might take", duration(limit)),
        None => ", and has no limit as a whole".to_owned(),
    };
    format!("It began {start} after the kernel's start and took {took}{limit}.")
}

fn outcome(phase: View<'_>) -> String {
    let note = match phase.text("note") {
        "" => ".".to_owned(),
        note => format!(": {}.", printable(note).trim_end_matches('.')),
    };
    match phase.text("outcome") {
        "ok" => format!("It did its work{note}"),
        "failed" => format!("It failed{note}"),
        "stopped" => format!("It was interrupted{note}"),
        other => format!("Its outcome is {}{note}", printable(other)),
    }
}

fn medium(medium: View<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    if !medium.text("why").is_empty() {
        let [state, why] = ["state", "why"].map(|key| printable(medium.text(key)));
        sentences.push(format!("The context CD is {state}: {why}."));
    }
    for seen in medium.list("seen") {
        let [device, kind, what] = ["device", "kind", "what"].map(|key| printable(seen.text(key)));
        sentences.push(format!("Seen: /dev/{device} ({kind}): {what}."));
    }
    if let Some(millis) = medium.maybe("read_ms") {
        sentences.push(format!("Reading it took {}.", duration(millis)));
    }
    if medium.at("signature").exists() {
        sentences.push(format!("Its signature is {}.", signature(medium.at("signature"))));
    }
    sentences
}

fn script(script: View<'_>) -> Script<'_> {
    let [name, action, end] = ["name", "action", "end"].map(|key| printable(script.text(key)));
    let headline = format!("{name} {action}: {end} ({})", duration(script.number("millis")));
    let memory = match script.number("memory_kib") {
        0 => String::new(),
        kib => format!(" and at most {} of memory", bytes(kib.saturating_mul(1024))),
    };
    let mut sentences = vec![format!("It used {} of CPU time{memory}.", duration(script.number("cpu_ms")))];
    let left: Vec<String> = script.lines("left_running").map(printable).collect();
    if !left.is_empty() {
        let what = count(left.len() as u64, "process");
        sentences.push(format!("{what} still ran when it ended: {}.", left.join(", ")));
    }
    if script.number("output_dropped") > 0 {
        let lost = bytes(script.number("output_dropped"));
        sentences.push(format!("It wrote more than it may: {lost} of its output are lost."));
    }
    Script { report: script, headline, sentences }
}

/// Nothing for a phase without scripts in which nothing changed, as nobody expects it to.
fn changes(phase: View<'_>) -> Vec<String> {
    let changes = phase.list("changes");
    let all = changes.clone().count();
    if all == 0 {
        return phase
            .list("scripts")
            .next()
            .map(|_| "No file of the image was changed.".to_owned())
            .into_iter()
            .collect();
    }
    let kinds = ["added", "changed", "removed"].into_iter().filter_map(|kind| {
        let number = changes.clone().filter(|change| change.text("kind") == kind).count();
        (number > 0).then(|| format!("{number} {kind}"))
    });
    let kinds: Vec<String> = kinds.collect();
    let is = if all == 1 { "file is" } else { "files are" };
    let mut sentences = vec![format!("{all} {is} not as the image has them: {}.", kinds.join(", "))];
    let bad = phase.violations().count();
    let back = phase.violations().filter(|change| change.flag("reverted") == Some(true)).count();
    match (bad, back) {
        (0, _) => sentences.push("The image's policy allows all of that.".to_owned()),
        (_, 0) => sentences.push(format!("{bad} of these the image's policy does not allow.")),
        _ => sentences.push(format!("{bad} of these the image's policy does not allow; {back} put back.")),
    }
    sentences
}

fn after(phase: View<'_>, next: Option<View<'_>>) -> Option<String> {
    if phase.text("outcome") != "failed" {
        return None;
    }
    Some(match next?.text("name") {
        "end" => "That was the end of the machine.".to_owned(),
        name => format!("The machine went on with {}.", printable(name)),
    })
}

/// The whole report, or one phase of it, as text. `names` are all phases that a machine can have.
///
/// # Errors
/// The names, if there is no such phase.
pub fn text<'n>(report: View<'_>, only: Option<&str>, names: &[&'n str]) -> Result<String, Vec<&'n str>> {
    if only.is_some_and(|only| !names.contains(&only)) {
        return Err(names.to_vec());
    }
    let mut parts = Vec::new();
    let phases: Vec<View<'_>> = report.list("phases").collect();
    for (at, each) in phases.iter().enumerate() {
        if only.is_none_or(|only| only == each.text("name")) {
            let told = phase(report, *each, phases.get(at + 1).copied());
            let [name, outcome] = ["name", "outcome"].map(|key| printable(each.text(key)));
            parts.push(format!("{name}: {outcome}\n{}", lines(*each, &told)));
        }
    }
    let reached = |name: &&&str| phases.iter().any(|phase| phase.text("name") == **name);
    let unreached: Vec<&str> = names.iter().filter(|name| !reached(name)).copied().collect();
    let unreached: Vec<&str> = unreached.into_iter().filter(|name| only.is_none_or(|only| only == *name)).collect();
    if !unreached.is_empty() {
        let last = phases.iter().rev().find(|phase| phase.text("name") != "end");
        let last =
            last.map_or_else(String::new, |phase| format!(", whose last phase was {}", printable(phase.text("name"))));
        let why =
            if report.at("verdict").exists() { format!("never in this boot{last}") } else { "not yet".to_owned() };
        parts.push(format!("{}: {why}\n", unreached.join(", ")));
    }
    // An empty line between them.
    Ok(parts.join("\n"))
}

fn lines(phase: View<'_>, told: &Explained<'_>) -> String {
    let mut lines: Vec<String> = told.sentences.clone();
    for script in &told.scripts {
        lines.push(format!("{}.", script.headline));
        lines.extend(script.sentences.iter().cloned());
        let tail: Vec<String> = script.report.lines("tail").map(|line| format!("  | {}", printable(line))).collect();
        if !tail.is_empty() {
            lines.push("Its last lines were:".to_owned());
            lines.extend(tail);
        }
    }
    lines.extend(told.changes.iter().cloned());
    for change in phase.list("changes") {
        let [kind, path, why] = ["kind", "path", "violation"].map(|key| printable(change.text(key)));
        let back = if change.flag("reverted") == Some(true) { ", put back" } else { "" };
        let why = if why.is_empty() { why } else { format!(": NOT ALLOWED: {why}{back}") };
        lines.push(format!("  {kind} {path}{why}"));
    }
    lines.extend(told.after.clone());
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::agent::phase_names;

    const EVERYTHING: &str = include_str!("../../tests/fixtures/report/everything.json");

    fn explain(report: &Value, only: &str) -> String {
        text(View::new(report), Some(only), &phase_names()).unwrap()
    }

    /// What is tested with it is tested with everything.
    #[test]
    fn the_example_has_every_phase() {
        let report: Value = serde_json::from_str(EVERYTHING).unwrap();
        let names: Vec<&str> = View::new(&report).list("phases").map(|phase| phase.text("name")).collect();
        assert_eq!(names, phase_names());
    }

    #[test]
    fn a_phase_that_failed_says_all_that_is_known() {
        let report: Value = serde_json::from_str(EVERYTHING).unwrap();
        let wanted = "\
epilog: failed
  It ran because epilog.sh is on the context CD.
  It began 4.9 s after the kernel's start and took 3.0 s of the 3 s that it might take.
  It failed: epilog.sh: ran into its deadline and was killed with all that it started; last line: mounting /cvmfs/atlas.cern.ch.
  Meanwhile the whole machine made 57 processes and used 900 ms of CPU time.
  epilog.sh start: ran into its deadline and was killed with all that it started (3.0 s).
  It used 812 ms of CPU time and at most 20.0 MiB of memory.
  It wrote more than it may: 20.0 KiB of its output are lost.
  Its last lines were:
    | starting the batch client
    | \\u{1b}[31mwarning: <script>alert(1)</script> & co\\u{1b}[0m
";
        let told = explain(&report, "epilog");
        assert!(told.starts_with(wanted), "{told}");
        let end = "
  1 file is not as the image has them: 1 changed.
  1 of these the image's policy does not allow.
    changed /etc/passwd: NOT ALLOWED: not in site_writable
  The machine went on with hooks.
";
        assert!(told.contains(end), "{told}");
    }

    #[test]
    fn what_is_good_is_told_too() {
        let report: Value = serde_json::from_str(EVERYTHING).unwrap();
        let told = explain(&report, "medium");
        for sentence in [
            "  It ran because the image requires a context CD.",
            "  The context CD is found: one context CD among 2 devices, 41 ms.",
            "  Seen: /dev/sr0 (optical): no disc.",
            "  Its signature is good: signed by RWT3nV9c for this image, until 2027-01-01T00:00:00Z.",
        ] {
            assert!(told.lines().any(|line| line == sentence), "{sentence}\nis not in\n{told}");
        }
        let told = explain(&report, "prolog");
        assert!(told.contains("  1 process still ran when it ended: node_exporter (187).\n"));
        assert!(told.contains("  1 of these the image's policy does not allow; 1 put back.\n"), "{told}");
        assert!(told.contains("    removed /etc/motd\n"), "{told}");
        assert_eq!(
            explain(&report, "logging"),
            "logging: skipped\n  It was skipped: the context names no syslog server.\n"
        );
    }

    #[test]
    fn a_phase_that_never_was_is_told_of() {
        let phase = |name, outcome| json!({"name": name, "cause": "it always does", "outcome": outcome, "note": "x"});
        let report = json!({"phases": [phase("prolog", "failed"), phase("end", "ok")], "verdict": {"code": 500}});
        assert!(explain(&report, "prolog").ends_with("  It failed: x.\n  Meanwhile the whole machine made 0 processes and used 0 ms of CPU time.\n  That was the end of the machine.\n"));
        assert_eq!(explain(&report, "work"), "work: never in this boot, whose last phase was prolog\n");
        let booting = json!({"phases": [phase("prolog", "ok")], "verdict": null});
        let all = text(View::new(&booting), None, &["prolog", "network", "end"]).unwrap();
        assert!(all.ends_with("\n\nnetwork, end: not yet\n"), "{all}");
        assert_eq!(text(View::new(&report), Some("prologue"), &["prolog", "end"]), Err(vec!["prolog", "end"]));
    }
}
