//! What stands above everything else: the end, the identities, and what went wrong.

use super::html::{Html, anchor, escape};
use crate::status::View;
use crate::status::words;
use crate::text::count;

/// Why the machine ended.
pub fn verdict(html: &mut Html, report: View<'_>) {
    let verdict = report.at("verdict");
    if !verdict.exists() {
        return html.add("<p class=\"verdict\"><strong>The machine had not ended yet.</strong></p>\n");
    }
    let code = verdict.number("code");
    html.add(format_args!(
        "<p class=\"verdict {}\"><strong>{code}: {}</strong><span>{}xx means: {}.</span></p>\n",
        if words::is_fault(code) { "bad" } else { "good" },
        escape(verdict.text("text")),
        code / 100,
        words::meaning(code)
    ));
}

/// Who the machine was: image, context CD, signature.
pub fn identity(html: &mut Html, report: View<'_>) {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let image = report.at("image");
    if image.exists() {
        let mut text = format!("{}, version {}", escape(image.text("uuid")), escape(image.text("version")));
        if !image.text("endorser").is_empty() {
            text += &format!("<br>vouched for by {}", escape(image.text("endorser")));
        }
        rows.push(("Image", text));
    }
    if let Some(line) = words::image_device(report.at("image_device")) {
        let changed = report.at("image_device").flag("unchanged") != Some(true);
        rows.push(("Image's disk", coloured(if changed { "bad" } else { "good" }, &line)));
    }
    let medium = report.at("medium");
    rows.push(("Context CD", escape(&words::medium(medium))));
    if !medium.text("sha256").is_empty() {
        rows.push(("CD's SHA-256", format!("<code>{}</code>", escape(medium.text("sha256")))));
    }
    let signature = medium.at("signature");
    if signature.exists() {
        let class = match words::signature_is_good(signature) {
            Some(good) => {
                if good {
                    "good"
                } else {
                    "bad"
                }
            }
            None => "soft",
        };
        rows.push(("Signature", coloured(class, &words::signature(signature))));
    }
    rows.extend(words::log(report).map(|line| ("Log", line)));
    html.add("<dl>\n");
    for (name, value) in rows {
        html.add(format_args!("<dt>{name}</dt><dd>{value}</dd>\n"));
    }
    html.add("</dl>\n");
}

fn coloured(class: &str, text: &str) -> String {
    format!("<span class=\"{class}\">{}</span>", escape(text))
}

/// What a site administrator has to look at; nothing, if there is nothing.
pub fn problems(html: &mut Html, report: View<'_>) {
    let mut items = Html::default();
    for phase in report.list("phases") {
        let name = phase.text("name");
        let link = format!("<a href=\"#phase-{}\">{}</a>", anchor(name), escape(name));
        // The script that failed it says more.
        if phase.text("outcome") == "failed" && !phase.list("scripts").any(View::script_failed) {
            items.add(format_args!("<li><strong>{link} failed</strong>: {}</li>\n", escape(phase.text("note"))));
        }
        for script in phase.list("scripts").filter(|script| script.script_failed()) {
            let [script_name, action, end] = ["name", "action", "end"].map(|key| escape(script.text(key)));
            items.add(format_args!("<li><strong>{script_name} {action}</strong> in {link}: {end}"));
            items.lines(script.lines("tail"));
            items.add("</li>\n");
        }
        let bad = phase.violations().count() as u64;
        if bad > 0 {
            let what = count(bad, "change") + " that the image does not allow";
            let back = match phase.violations().filter(|change| change.flag("reverted") == Some(true)).count() {
                0 => "not put back".to_owned(),
                back => format!("{back} put back"),
            };
            items.add(format_args!("<li><strong>{what}</strong> in {link}; {back}</li>\n"));
        }
    }
    let bad = report.list("tokens").filter(|token| token.text("fate") != "completed").count() as u64;
    if bad > 0 {
        let what = count(bad, "token");
        items.add(format_args!("<li><strong>{what} not completed</strong>: <a href=\"#tokens\">tokens</a></li>\n"));
    }
    let device = report.at("image_device");
    if device.flag("unchanged") == Some(false) {
        let unknown = device.text("hashes") == "unknown" && device.maybe("sectors_written") == Some(0);
        let what = if unknown { "is not known to be unchanged" } else { "was changed" };
        items.add(format_args!("<li><strong>The image's disk {what}</strong></li>\n"));
    }
    let items = items.to_string();
    if !items.is_empty() {
        html.add(format_args!(
            "<section aria-labelledby=\"problems\">\n<h2 id=\"problems\">What went wrong</h2>\n\
             <ul class=\"problems\">\n{items}</ul>\n</section>\n"
        ));
    }
}
