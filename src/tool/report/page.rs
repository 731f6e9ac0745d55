//! The page: what went wrong first, then the boot as a picture, then everything else, folded.
//!
//! One file that asks nobody for anything: no script, no font, no picture from elsewhere. Every text of the report is
//! foreign and goes through [`escape`]; the page forbids itself what a mistake in that would open.

use super::head::{identity, problems, verdict};
use super::html::{Html, anchor, escape};
use super::picture::pictures;
use crate::status::View;
use crate::status::explain;
use crate::status::words::{bytes, duration};
use crate::text::count;

const STYLE: &str = include_str!("style.css");
/// Tokens that are shown without being asked for.
const TOKENS_OPEN: usize = 20;
/// Digits of a hash that tell two files apart; the whole one stands in its title and in the report.
const HASH: usize = 12;

/// The page of a report.
pub fn page(report: View<'_>) -> String {
    let host = match report.text("hostname") {
        "" => "a machine without a name".to_owned(),
        name => escape(name),
    };
    let mut html = Html::default();
    html.add(format_args!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Boot of {host}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<p class=\"kicker\">ctxinit boot report</p>\n<h1>{host}</h1>\n"
    ));
    verdict(&mut html, report);
    identity(&mut html, report);
    html.add("</header>\n<main>\n");
    problems(&mut html, report);
    html.add("<section aria-labelledby=\"picture\">\n<h2 id=\"picture\">Time</h2>\n");
    html.add(pictures(report));
    html.add(LEGEND);
    html.add("</section>\n<section aria-labelledby=\"phases\">\n<h2 id=\"phases\">Phases</h2>\n");
    let phases: Vec<View<'_>> = report.list("phases").collect();
    for (at, each) in phases.iter().enumerate() {
        phase(&mut html, report, *each, phases.get(at + 1).copied());
    }
    html.add("</section>\n");
    tokens(&mut html, report);
    html.add(format_args!(
        "</main>\n<footer>Made by ctxtool {} from a report of ctxinit {}, boot {}.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(report.text("ctxinit")),
        escape(report.text("boot_id"))
    ));
    html.to_string()
}

const LEGEND: &str = "<ul class=\"legend\"><li><i class=\"ran\"></i>phase</li><li><i class=\"wait\"></i>waiting: for the \
    kernel, the CD, work</li><li><i class=\"script\"></i>script</li><li><i class=\"token\"></i>token</li>\
    <li><i class=\"failed\"></i>failed; dashed: a limit that was reached</li></ul>\n";

fn phase(html: &mut Html, report: View<'_>, phase: View<'_>, next: Option<View<'_>>) {
    let name = phase.text("name");
    let outcome = phase.text("outcome");
    let class = match outcome {
        "ok" => "good",
        "failed" => "bad",
        "skipped" => "soft",
        _ => "warn",
    };
    let open = if outcome == "failed" || phase.violations().next().is_some() { " open" } else { "" };
    html.add(format_args!(
        "<details id=\"phase-{}\"{open}>\n<summary><strong>{}</strong><span class=\"outcome {class}\">{}</span>\
         <span class=\"took\">{}</span><span class=\"note\">{}</span></summary>\n<div class=\"inside\">\n",
        anchor(name),
        escape(name),
        escape(outcome),
        duration(phase.number("millis")),
        if outcome == "skipped" { escape(phase.text("cause")) } else { escape(phase.text("note")) }
    ));
    let told = explain::phase(report, phase, next);
    for sentence in &told.sentences {
        html.add(format_args!("<p>{}</p>\n", escape(sentence)));
    }
    for script in &told.scripts {
        self::script(html, script);
    }
    if !told.changes.is_empty() {
        html.add("<h3>Changes</h3>\n");
        html.add(format_args!("<p>{}</p>\n", escape(&told.changes.join(" "))));
        changes(html, phase);
    }
    if let Some(after) = &told.after {
        html.add(format_args!("<p class=\"bad\">{}</p>\n", escape(after)));
    }
    html.add("</div>\n</details>\n");
}

fn script(html: &mut Html, script: &explain::Script<'_>) {
    let class = if script.report.script_failed() { " class=\"bad\"" } else { "" };
    html.add(format_args!("<h3{class}>{}</h3>\n", escape(&script.headline)));
    html.add(format_args!("<p>{}</p>\n", escape(&script.sentences.join(" "))));
    html.lines(script.report.lines("tail"));
}

/// Violations first.
fn changes(html: &mut Html, phase: View<'_>) {
    let mut rows: Vec<View<'_>> = phase.list("changes").collect();
    if rows.is_empty() {
        return;
    }
    rows.sort_by_key(|change| !change.at("violation").exists());
    html.add(
        "<table>\n<thead><tr><th scope=\"col\">Path</th><th scope=\"col\">Now</th>\
         <th scope=\"col\" class=\"number wide\">Size</th><th scope=\"col\" class=\"wide\">SHA-256</th></tr></thead>\n<tbody>\n",
    );
    for change in rows {
        let [path, kind, sha256] = ["path", "kind", "sha256"].map(|key| escape(change.text(key)));
        let (class, why) = match change.text("violation") {
            "" => ("", String::new()),
            why => {
                let back = if change.flag("reverted") == Some(true) { "; put back" } else { "; still there" };
                (
                    " class=\"violation\"",
                    format!("<br><strong class=\"bad\">not allowed</strong>: {}{back}", escape(why)),
                )
            }
        };
        let short: String = sha256.chars().take(HASH).collect();
        html.add(format_args!(
            "<tr{class}><td><code>{path}</code>{why}</td><td class=\"short\">{kind}</td><td class=\"number wide\">{}</td>\
             <td class=\"short wide\"><code title=\"{sha256}\">{short}</code></td></tr>\n",
            bytes(change.number("size"))
        ));
    }
    html.add("</tbody>\n</table>\n");
}

fn tokens(html: &mut Html, report: View<'_>) {
    let tokens: Vec<View<'_>> = report.list("tokens").collect();
    if tokens.is_empty() {
        return;
    }
    let more = report.number("more_tokens");
    let all = count(more.saturating_add(tokens.len() as u64), "token");
    let completed = tokens.iter().filter(|token| token.text("fate") == "completed").count();
    let more = if more > 0 { format!("; {more} more are not in the report") } else { String::new() };
    let open = if tokens.len() <= TOKENS_OPEN || completed < tokens.len() { " open" } else { "" };
    html.add(format_args!(
        "<section aria-labelledby=\"tokens\">\n<h2 id=\"tokens\">Tokens</h2>\n<details{open}>\n\
         <summary><strong>{all}</strong><span class=\"note\">{completed} completed{more}</span></summary>\n\
         <table>\n<thead><tr><th scope=\"col\">Token</th><th scope=\"col\">Fate</th><th scope=\"col\">Payload</th>\
         <th scope=\"col\" class=\"number wide\">Began</th><th scope=\"col\" class=\"number\">Took</th>\
         <th scope=\"col\" class=\"number wide\">CPU</th><th scope=\"col\" class=\"number wide\">Memory</th>\
         <th scope=\"col\" class=\"number wide\">Result</th></tr></thead>\n<tbody>\n"
    ));
    tokens.into_iter().for_each(|one| token(html, one));
    html.add("</tbody>\n</table>\n</details>\n</section>\n");
}

fn token(html: &mut Html, token: View<'_>) {
    let [id, fate, end, note] = ["id", "fate", "end", "note"].map(|key| escape(token.text(key)));
    let usage = token.at("usage");
    let completed = token.text("fate") == "completed";
    let (row, class) = if completed { ("", "good") } else { (" class=\"violation\"", "bad") };
    html.add(format_args!(
        "<tr{row}><td>{id}</td><td class=\"{class}\">{fate}</td><td>{end}</td><td class=\"number wide\">{}</td>\
         <td class=\"number\">{}</td><td class=\"number wide\">{}</td><td class=\"number wide\">{}</td>\
         <td class=\"number wide\">{}</td></tr>\n",
        duration(token.number("start_ms")),
        duration(token.number("millis")),
        usage.maybe("cpu_millis").map_or_else(|| "?".to_owned(), duration),
        usage.maybe("memory_kib").map_or_else(|| "?".to_owned(), |kib| bytes(kib.saturating_mul(1024))),
        bytes(token.number("result_bytes"))
    ));
    if !completed {
        html.add(format_args!("<tr class=\"violation more\"><td colspan=\"8\">{note}"));
        html.lines(token.lines("tail"));
        html.add("</td></tr>\n");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const EVERYTHING: &str = include_str!("../../../tests/fixtures/report/everything.json");

    /// Reads the page as a browser would, as far as ours goes: each element is closed in its order, each attribute is
    /// quoted, nothing else stands between angle brackets. Returns the elements, and all text.
    fn parse(page: &str) -> (Vec<String>, String) {
        let (mut open, mut elements, mut text) = (Vec::new(), Vec::new(), String::new());
        // Its content is CSS, which is ours.
        let (head, rest) = page.split_once("<style>").unwrap();
        let (_, tail) = rest.split_once("</style>").unwrap();
        let page = format!("{head}{tail}");
        for part in page.strip_prefix("<!doctype html>").unwrap().split('<').skip(1) {
            let (tag, after) = part.split_once('>').unwrap_or_else(|| panic!("<{part}"));
            assert!(!after.contains('>'), "{after}");
            text.push_str(after);
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "</{tag}>");
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            let empty = tag.ends_with('/') || ["meta", "br"].contains(&name.as_str());
            if !empty {
                open.push(name);
            }
            elements.push(tag.to_owned());
        }
        assert_eq!(open, Vec::<String>::new());
        (elements, text)
    }

    fn everything() -> Value {
        serde_json::from_str(EVERYTHING).unwrap()
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody() {
        let page = page(View::new(&everything()));
        let (elements, text) = parse(&page);
        let named = |name: &str| elements.iter().filter(|tag| tag.split(' ').next() == Some(name)).count();
        assert_eq!((named("details"), named("h1"), named("svg")), (18, 1, 1));
        assert_eq!((named("script"), named("link"), named("img"), named("iframe"), named("b")), (0, 0, 0, 0, 0));
        for outside in ["src=", "url(", "@import", "http:", "https:", "javascript:"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(text.contains("wn-17.&lt;b&gt;example&lt;/b&gt;.org"));
        assert!(text.contains(r"\u{1b}[31mwarning: &lt;script&gt;alert(1)&lt;/script&gt; &amp; co"), "{text}");
        // Every link leads somewhere, and every name is there once.
        let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        for link in page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert_eq!(ids.iter().filter(|id| **id == link).count(), 1, "{link}");
        }
    }

    #[test]
    fn a_hostile_report_is_only_text() {
        /// Puts the same text wherever a text can be.
        fn poison(value: &mut Value) {
            const POISON: &str = "\"><script>alert(1)</script><i x='";
            match value {
                Value::String(text) => *text = POISON.to_owned(),
                Value::Array(items) => items.iter_mut().for_each(poison),
                Value::Object(fields) => fields.values_mut().for_each(poison),
                _ => {}
            }
        }
        let mut report = everything();
        poison(&mut report);
        let (elements, _) = parse(&page(View::new(&report)));
        assert!(elements.iter().all(|tag| !tag.starts_with("script")), "{elements:?}");
    }

    #[test]
    fn numbers_of_a_hostile_machine_are_only_numbers() {
        fn poison(value: &mut Value) {
            match value {
                Value::Number(number) => *number = u64::MAX.into(),
                Value::Array(items) => items.iter_mut().for_each(poison),
                Value::Object(fields) => fields.values_mut().for_each(poison),
                _ => {}
            }
        }
        let mut report = everything();
        poison(&mut report);
        // In all that is made of a report: sums that overflow would panic here, and be wrong in a release.
        let report = View::new(&report);
        let (_, text) = parse(&page(report));
        let memory = bytes(u64::MAX);
        assert!(text.contains(&memory), "{text}");
        assert!(explain::text(report, None, &[]).unwrap().contains(&format!("at most {memory} of memory")));
        let table = crate::status::summary(report, false, true);
        assert!(table.contains(&format!("{}: 1 completed", u64::MAX)), "{table}");
    }

    #[test]
    fn what_went_wrong_comes_first_and_is_open() {
        let page = page(View::new(&everything()));
        let at = |words: &str| page.find(words).unwrap_or_else(|| panic!("{words}"));
        assert!(at("What went wrong") < at("<svg") && at("<svg") < at("id=\"phases\""));
        for words in [
            "<li><strong>epilog.sh start</strong> in <a href=\"#phase-epilog\">epilog</a>: ran into its deadline",
            "<li><strong>prolog.sh stop</strong> in <a href=\"#phase-end\">end</a>: killed by SIGSEGV<pre>bye</pre>",
            "<li><strong>1 change that the image does not allow</strong> in <a href=\"#phase-prolog\">prolog</a>; 1 put back</li>",
            "<li><strong>2 tokens not completed</strong>",
            "<details id=\"phase-epilog\" open>",
            "<details id=\"phase-network\">",
            "<strong class=\"bad\">not allowed</strong>: not in site_writable; still there",
            "<span class=\"good\">/dev/vda is unchanged, 0 sectors written",
            "<span class=\"good\">good: signed by RWT3nV9c",
        ] {
            at(words);
        }
        // The violation stands above what is allowed.
        assert!(at("a-tool-with-quite") < at("<code>/etc/rsyslog.d/site.conf"));
    }

    #[test]
    fn a_phase_that_failed_without_a_script_is_told_of() {
        let report = json!({"version": 1, "phases": [{"name": "network", "outcome": "failed", "note": "no <answer>"}]});
        let wanted = "<li><strong><a href=\"#phase-network\">network</a> failed</strong>: no &lt;answer&gt;</li>";
        assert!(page(View::new(&report)).contains(wanted));
    }

    #[test]
    fn a_good_boot_and_a_running_one_have_no_problems() {
        let good = json!({"version": 1, "phases": [{"name": "early", "outcome": "ok"}],
            "verdict": {"code": 200, "text": "done"}});
        let text = page(View::new(&good));
        assert!(!text.contains("What went wrong") && text.contains("verdict good\"><strong>200: done"), "{text}");
        parse(&text);
        let mut unasked = everything();
        unasked["medium"]["signature"]["state"] = json!("off");
        let text = page(View::new(&unasked));
        assert!(
            text.contains("<span class=\"soft\">off: ") && text.contains("no syslog server, 122 records"),
            "{text}"
        );
        let running = json!({"version": 1, "phases": []});
        assert!(page(View::new(&running)).contains("The machine had not ended yet."));
    }
}
