//! The boot as a picture: a lane for each phase and script, all tokens in one, over one axis of time.
//!
//! Places along the axis are percentages and text has a fixed size, so that one picture fits a screen and a phone.

use super::html::{Html, escape};
use crate::status::View;
use crate::status::words::duration;

/// Pixels from one lane to the next: its words, and its bar under them.
const LANE: usize = 34;
/// Pixels above the first lane, for the axis.
const TOP: usize = 24;
/// Percent; even the shortest is seen.
const THINNEST: f64 = 0.3;
/// Characters of a label: what fits beside the time on a phone.
const LABEL: usize = 28;

/// One lane.
struct Lane {
    label: String,
    /// At the right end.
    value: String,
    failed: bool,
    bars: Vec<Bar>,
    /// When its time was over.
    limit: Option<u64>,
}

/// One stretch of time.
struct Bar {
    class: &'static str,
    from: u64,
    to: u64,
    title: String,
}

/// The whole life in one picture; in two, each with an axis of its own, where the work takes so long that nothing of
/// the boot could be seen.
pub fn pictures(report: View<'_>) -> String {
    let phases: Vec<View<'_>> = report.list("phases").collect();
    let end = phases.iter().map(|phase| span(*phase).1).max().unwrap_or(0);
    let work = phases.iter().position(|phase| phase.text("name") == "work");
    let split = work.filter(|at| phases.get(*at).is_some_and(|work| end / 2 >= work.number("start_ms").max(1)));
    let (boot, rest) = phases.split_at(split.unwrap_or(phases.len()));
    let mut lanes: Vec<Lane> = kernel(&phases).into_iter().collect();
    lanes.extend(boot.iter().flat_map(|phase| lanes_of(report, *phase)));
    let mut svg = picture("The boot", 0, &lanes);
    if let Some(work) = rest.first() {
        let lanes: Vec<Lane> = rest.iter().flat_map(|phase| lanes_of(report, *phase)).collect();
        svg += &picture("Work and end", work.number("start_ms"), &lanes);
    }
    svg
}

fn span(view: View<'_>) -> (u64, u64) {
    let start = view.number("start_ms");
    (start, start.saturating_add(view.number("millis")))
}

/// Before the first phase the machine was the kernel's.
fn kernel(phases: &[View<'_>]) -> Option<Lane> {
    let to = phases.first()?.number("start_ms");
    let title = "The kernel, from its start to ctxinit".to_owned();
    let bars = vec![Bar { class: "wait", from: 0, to, title }];
    Some(Lane { label: "kernel".to_owned(), value: duration(to), failed: false, bars, limit: None })
}

fn lanes_of(report: View<'_>, phase: View<'_>) -> Vec<Lane> {
    let (from, to) = span(phase);
    let (name, outcome) = (phase.text("name"), phase.text("outcome"));
    let failed = outcome == "failed";
    let title = format!("{name} {outcome}: {}", phase.text("note"));
    let bar = |class, from, to| Bar { class, from, to, title: title.clone() };
    let bars = match (name, outcome) {
        (_, "skipped") => Vec::new(),
        (_, "failed") => vec![bar("failed", from, to)],
        // Waiting for the CD, then reading it; without one, only waiting.
        ("medium", _) if !report.at("medium").at("device").exists() => vec![bar("wait", from, to)],
        ("medium", _) => match report.at("medium").maybe("read_ms") {
            Some(read) => {
                let reading = to.saturating_sub(read).max(from);
                vec![bar("wait", from, reading), bar("ran", reading, to)]
            }
            None => vec![bar("ran", from, to)],
        },
        // Waiting for tokens, which have a lane of their own.
        ("work", _) => vec![bar("wait", from, to)],
        _ => vec![bar("ran", from, to)],
    };
    let value = match outcome {
        "ok" => duration(to - from),
        "skipped" => "skipped".to_owned(),
        _ => format!("{outcome}, {}", duration(to - from)),
    };
    let limit = phase.maybe("limit_ms").map(|limit| from.saturating_add(limit));
    let mut lanes = vec![Lane { label: name.to_owned(), value, failed, bars, limit }];
    lanes.extend(phase.list("scripts").map(script));
    if name == "work" {
        lanes.extend(tokens(report));
    }
    lanes
}

fn script(script: View<'_>) -> Lane {
    let (from, to) = span(script);
    let failed = script.script_failed();
    let label = format!("{} {}", script.text("name"), script.text("action"));
    let title = format!("{label}: {}", script.text("end"));
    let class = if failed { "failed" } else { "script" };
    let value = if failed { format!("failed, {}", duration(to - from)) } else { duration(to - from) };
    // The arrow says that it belongs to the lane above.
    let label = format!("\u{21b3} {label}");
    Lane { label, value, failed, bars: vec![Bar { class, from, to, title }], limit: None }
}

fn tokens(report: View<'_>) -> Option<Lane> {
    let bar = |token: View<'_>| {
        let (from, to) = span(token);
        let class = if token.text("fate") == "completed" { "token" } else { "failed token-bar" };
        let [id, fate, end] = ["id", "fate", "end"].map(|key| token.text(key));
        Bar { class, from, to, title: format!("token {id} {fate}: {end}, {}", duration(to - from)) }
    };
    let bars: Vec<Bar> = report.list("tokens").map(bar).collect();
    let completed = bars.iter().filter(|bar| bar.class == "token").count();
    let value = format!("{completed} of {} completed", bars.len());
    let failed = completed < bars.len();
    (!bars.is_empty()).then(|| Lane { label: "\u{21b3} tokens".to_owned(), value, failed, bars, limit: None })
}

fn picture(name: &str, from: u64, lanes: &[Lane]) -> String {
    let end = lanes.iter().flat_map(|lane| &lane.bars).map(|bar| bar.to).max().unwrap_or(from);
    let total = end.saturating_sub(from).max(1);
    let percent = |at: u64| (at.saturating_sub(from) as f64 * 100.0 / total as f64).min(100.0);
    let height = TOP + LANE * lanes.len();
    let mut svg = Html::default();
    svg.add(format_args!(
        "<svg class=\"chart\" width=\"100%\" height=\"{height}\" role=\"img\" aria-label=\"{name}: {} in {}; \
         the list of phases says the same in words\">\n",
        lanes.iter().map(|lane| escape(&lane.label)).collect::<Vec<_>>().join(", "),
        duration(total)
    ));
    for tick in ticks(total) {
        let x = percent(from + tick);
        let anchor = match x {
            ..5.0 => "start",
            95.0.. => "end",
            _ => "middle",
        };
        svg.add(format_args!(
            "<line class=\"grid\" x1=\"{x:.2}%\" y1=\"{}\" x2=\"{x:.2}%\" y2=\"{height}\"/>\
             <text class=\"tick\" x=\"{x:.2}%\" y=\"12\" text-anchor=\"{anchor}\">{}</text>\n",
            TOP - 6,
            duration(from + tick)
        ));
    }
    for (row, lane) in lanes.iter().enumerate() {
        let y = TOP + LANE * row;
        let value = if lane.failed { "value failed" } else { "value" };
        svg.add(format_args!(
            "<text x=\"0\" y=\"{}\">{}</text><text class=\"{value}\" x=\"100%\" y=\"{0}\" text-anchor=\"end\">{}</text>\n",
            y + 13,
            escape(&shortened(&lane.label)),
            escape(&lane.value)
        ));
        for Bar { class, from, to, title } in &lane.bars {
            let x = percent(*from).min(100.0 - THINNEST);
            svg.add(format_args!(
                "<rect class=\"{class}\" x=\"{x:.2}%\" y=\"{}\" width=\"{:.2}%\" height=\"8\"><title>{}</title></rect>\n",
                y + 19,
                (percent(*to) - x).max(THINNEST),
                escape(title)
            ));
        }
        if let Some(limit) = lane.limit.filter(|limit| *limit <= end) {
            let x = percent(limit);
            svg.add(format_args!(
                "<line class=\"limit\" x1=\"{x:.2}%\" y1=\"{}\" x2=\"{x:.2}%\" y2=\"{}\"><title>Its limit</title></line>\n",
                y + 15,
                y + 31
            ));
        }
    }
    svg.add("</svg>\n");
    svg.to_string()
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= LABEL {
        return label.to_owned();
    }
    label.chars().take(LABEL - 1).chain(['\u{2026}']).collect()
}

/// Round times, at most six of them: a phone has room for no more.
fn ticks(total: u64) -> impl Iterator<Item = u64> {
    let steps = [
        10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
        3_600_000, 7_200_000, 21_600_000, 86_400_000,
    ];
    let step = steps.into_iter().find(|step| total / step <= 5).unwrap_or(total);
    (0..=total / step).map(move |n| n * step)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report() -> Value {
        json!({"phases": [
            {"name": "early", "start_ms": 900, "millis": 10, "outcome": "ok", "note": ""},
            {"name": "medium", "start_ms": 1000, "millis": 400, "outcome": "ok", "note": "<b>", "limit_ms": 300},
            {"name": "prolog", "start_ms": 1400, "millis": 100, "outcome": "failed", "note": "", "limit_ms": 60000,
             "scripts": [{"name": "prolog.sh", "action": "start", "start_ms": 1450, "millis": 50, "exit": 1}]},
            {"name": "logging", "start_ms": 1500, "millis": 0, "outcome": "skipped", "note": ""},
            {"name": "work", "start_ms": 1500, "millis": 400, "outcome": "ok", "note": ""},
            {"name": "end", "start_ms": 1900, "millis": 100, "outcome": "ok", "note": ""}],
            "medium": {"device": "vdb", "read_ms": 100},
            "tokens": [{"id": "7", "start_ms": 1600, "millis": 100, "fate": "completed"},
                {"id": "8", "start_ms": 1750, "millis": 0, "fate": "lost"}]})
    }

    #[test]
    fn every_bar_is_at_its_time() {
        let svg = pictures(View::new(&report()));
        assert_eq!(svg.matches("<svg ").count(), 1);
        for bar in [
            // Of 2000 ms: the kernel, the wait for the CD, its reading.
            "class=\"wait\" x=\"0.00%\" y=\"43\" width=\"45.00%\"",
            "class=\"wait\" x=\"50.00%\" y=\"111\" width=\"15.00%\"",
            "class=\"ran\" x=\"65.00%\" y=\"111\" width=\"5.00%\"",
            "class=\"failed\" x=\"72.50%\" y=\"179\" width=\"2.50%\"",
            "class=\"token\" x=\"80.00%\" y=\"281\" width=\"5.00%\"",
            "class=\"failed token-bar\" x=\"87.50%\" y=\"281\" width=\"0.30%\"",
            "class=\"limit\" x1=\"65.00%\" y1=\"107\"",
        ] {
            assert!(svg.contains(bar), "{bar}\nis not in\n{svg}");
        }
        assert_eq!(svg.matches("class=\"limit\"").count(), 1);
        let mut without = report();
        without["medium"]["device"] = Value::Null;
        assert!(pictures(View::new(&without)).contains("class=\"wait\" x=\"50.00%\" y=\"111\" width=\"20.00%\""));
        assert!(svg.contains(">1 of 2 completed</text>") && svg.contains(">skipped</text>"), "{svg}");
        assert!(svg.contains("medium ok: &lt;b&gt;") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn long_work_has_a_picture_of_its_own() {
        let mut report = report();
        report["phases"][4]["millis"] = json!(3_600_000);
        let svg = pictures(View::new(&report));
        let (boot, work) = svg.split_once("</svg>").unwrap();
        assert!(boot.contains("aria-label=\"The boot: kernel, early") && !boot.contains("tokens"), "{boot}");
        assert!(work.contains("aria-label=\"Work and end: work, \u{21b3} tokens, end in 1 h"), "{work}");
        assert!(pictures(View::new(&json!({"phases": []}))).contains("The boot"));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(1610).collect::<Vec<_>>(), [0, 500, 1000, 1500]);
        assert_eq!(ticks(69).collect::<Vec<_>>(), [0, 20, 40, 60]);
        for total in [1, 999, 7200, 250_000, 90_000_000] {
            assert!((1..=6).contains(&ticks(total).count()), "{total}");
        }
    }
}
