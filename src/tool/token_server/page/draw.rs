//! The pages as HTML. Every text of a client goes through [`escape`].

use super::facts::{Facts, Line, ROWS, holder};
use super::spark;
use crate::status::words::{bytes, duration};
use crate::text::count;
use crate::tool::report::html::{Html, escape};
use crate::tool::token_server::pools::{Lock, Token};
use crate::tool::token_server::random::time_of;

const STYLE: &str = include_str!("style.css");
/// Seconds until a page loads itself again.
const REFRESH: u32 = 10;
/// From so many hand-outs on, a token is likely to be the fault: our workers give up on it at ten.
const SUSPICIOUS: i64 = 5;

/// The page of one pool; `base` is the server's URL.
pub(super) fn pool(facts: &Facts, base: &str) -> String {
    let name = escape(&facts.pool);
    let mut html = head(&format!("{} — {name}", short(facts)));
    html.add(format_args!("<header>\n<p class=\"kicker\">token pool</p>\n<h1>{name}</h1>\n"));
    html.add(format_args!("<p class=\"headline\">{}</p>\n", headline(facts)));
    bar(&mut html, facts);
    numbers(&mut html, facts);
    html.add("</header>\n<main>\n");
    pace(&mut html, facts);
    holders(&mut html, facts);
    tokens(&mut html, facts);
    html.add("</main>\n");
    let url = escape(base);
    html.add(format_args!(
        "<footer>\n<p>As of {}; this page loads itself again every {REFRESH} seconds.</p>\n\
         <p>On a terminal: <code>ctxtool pool progress {name} --url {url} --wait</code></p>\n</footer>\n</body>\n</html>\n",
        super::super::reply::iso_date(facts.now)
    ));
    html.to_string()
}

/// All pools.
pub(super) fn pools(lines: &[Line], base: &str) -> String {
    let mut html = head("Token pools");
    html.add(format_args!(
        "<header>\n<p class=\"kicker\">{}</p>\n<h1>Token pools</h1>\n</header>\n<main>\n",
        escape(base)
    ));
    if lines.is_empty() {
        html.add("<p>There is none yet: a pool comes into being with its first token.</p>\n");
    } else {
        html.add(
            "<table>\n<thead><tr><th scope=\"col\">Pool</th><th scope=\"col\" class=\"number\">Waiting</th>\
             <th scope=\"col\" class=\"number\">Running</th><th scope=\"col\" class=\"number\">Done</th></tr></thead>\n<tbody>\n",
        );
    }
    for Line { name, tokens, locked, done } in lines {
        let name = escape(name);
        html.add(format_args!(
            "<tr><td><a href=\"{name}/\">{name}</a></td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td></tr>\n",
            grouped(tokens - locked),
            grouped(*locked),
            grouped(*done)
        ));
    }
    html.add(if lines.is_empty() { "" } else { "</tbody>\n</table>\n" });
    html.add("</main>\n</body>\n</html>\n");
    html.to_string()
}

/// `title` is HTML.
fn head(title: &str) -> Html {
    let mut html = Html::default();
    html.add(format_args!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    ));
    html
}

/// For the title: seen on a tab among others.
fn short(facts: &Facts) -> String {
    match facts.total() {
        0 => "empty".to_owned(),
        total => format!("{} %", facts.done * 100 / total),
    }
}

/// How the pool stands, in a sentence or two.
fn headline(facts: &Facts) -> String {
    let failed = match facts.failed {
        0 => String::new(),
        failed => format!(" {} failed and {} set aside.", grouped(failed), if failed == 1 { "is" } else { "are" }),
    };
    if facts.total() == 0 {
        return "Nothing is here, and nothing has been done: the pool is empty, or its name is mistyped.".to_owned();
    }
    if facts.tokens == 0 {
        return format!("No work is left: {} done.{failed}", grouped(facts.done));
    }
    if facts.locked == 0 {
        let verb = if facts.tokens == 1 { "waits" } else { "wait" };
        return format!("{} {verb}, and nobody works on {}.{failed}", tokens_of(facts.tokens), them(facts.tokens));
    }
    let machines = count(facts.machines as u64, "machine");
    let verb = if facts.machines == 1 { "works" } else { "work" };
    let left = facts.rate().map(|rate| facts.tokens as f64 / rate * 60_000.0).map(|millis| {
        // Minutes are as exact as such a guess gets.
        format!(", about {} left", duration(((millis / 60_000.0).ceil() as u64).max(1) * 60_000))
    });
    format!("{machines} {verb} on {}{}.{failed}", tokens_of(facts.locked), left.unwrap_or_default())
}

fn tokens_of(tokens: i64) -> String {
    format!("{} token{}", grouped(tokens), if tokens == 1 { "" } else { "s" })
}

fn them(tokens: i64) -> &'static str {
    if tokens == 1 { "it" } else { "them" }
}

/// Done, failed and running of all; what waits is the ground.
fn bar(html: &mut Html, facts: &Facts) {
    let total = facts.total().max(1);
    let percent = |part: i64| part as f64 * 100.0 / total as f64;
    html.add(format_args!(
        "<div class=\"bar\" role=\"progressbar\" aria-valuemin=\"0\" aria-valuemax=\"{0}\" aria-valuenow=\"{1}\" \
         aria-label=\"{1} of {0} done\">",
        facts.total(),
        facts.done
    ));
    for (class, part) in [("done", facts.done), ("failed", facts.failed), ("held", facts.locked)] {
        if part > 0 {
            html.add(format_args!("<i class=\"{class}\" style=\"width:{:.3}%\"></i>", percent(part)));
        }
    }
    html.add("</div>\n");
}

fn numbers(html: &mut Html, facts: &Facts) {
    let pool = escape(&facts.pool);
    html.add("<dl class=\"numbers\">\n");
    for (class, label, number) in
        [("done", "done", facts.done), ("held", "running", facts.locked), ("waiting", "waiting", facts.waiting())]
    {
        number_of(html, class, label, number);
    }
    if facts.failed > 0 {
        number_of(html, "failed", &format!("<a href=\"../{pool}.failed/\">failed</a>"), facts.failed);
    }
    number_of(html, "total", "in all", facts.total());
    html.add("</dl>\n");
    let mut notes = Vec::new();
    for (name, tokens) in &facts.results {
        let results = if *tokens == 1 { "result" } else { "results" };
        notes.push(format!("{} {results} in <a href=\"../{1}/\">{1}</a>", grouped(*tokens), escape(name)));
    }
    if facts.withdrawn() > 0 {
        notes.push(format!("{} taken out undone", grouped(facts.withdrawn())));
    }
    if !notes.is_empty() {
        html.add(format_args!("<p class=\"soft\">{}</p>\n", notes.join(" · ")));
    }
}

/// `label` is HTML.
fn number_of(html: &mut Html, class: &str, label: &str, number: i64) {
    html.add(format_args!(
        "<div class=\"{class}\"><dt>{label}</dt><dd><data id=\"{class}\" value=\"{number}\">{}</data></dd></div>\n",
        grouped(number)
    ));
}

fn pace(html: &mut Html, facts: &Facts) {
    let done: i64 = facts.minutes.iter().sum();
    let retried: Vec<&(i64, i64)> = facts.tries.iter().filter(|(tries, _)| *tries > 1).collect();
    if done > 0 {
        html.add(format_args!(
            "<section aria-labelledby=\"pace\">\n<h2 id=\"pace\">Last hour</h2>\n<p>{} done{}</p>\n",
            grouped(done),
            facts.rate().map(|rate| format!(", {} lately", per(rate))).unwrap_or_default()
        ));
        spark::bars(html, &facts.minutes);
        html.add("</section>\n");
    }
    if !retried.is_empty() {
        html.add("<section aria-labelledby=\"tries\">\n<h2 id=\"tries\">Tries</h2>\n<p class=\"soft\">How often the tokens that are still here were handed out.</p>\n<table class=\"tries\">\n<thead><tr><th scope=\"col\" class=\"number\">Tries</th><th scope=\"col\" class=\"number\">Tokens</th><th></th></tr></thead>\n<tbody>\n");
        let most = facts.tries.iter().map(|(_, tokens)| *tokens).max().unwrap_or(1).max(1);
        for (tries, tokens) in facts.tries.iter().take(20) {
            html.add(format_args!(
                "<tr{}><td class=\"number\">{tries}</td><td class=\"number\">{}</td><td class=\"share\"><i style=\"width:{:.1}%\"></i></td></tr>\n",
                if *tries >= SUSPICIOUS { " class=\"suspicious\"" } else { "" },
                grouped(*tokens),
                *tokens as f64 * 100.0 / most as f64
            ));
        }
        html.add("</tbody>\n</table>\n</section>\n");
    }
}

/// `12 a minute`, `3.5 a minute`, `4 an hour`.
fn per(rate: f64) -> String {
    match rate {
        10.0.. => format!("{} a minute", grouped(rate.round() as i64)),
        1.0.. => format!("{rate:.1} a minute"),
        _ => format!("{} an hour", (rate * 60.0).round()),
    }
}

fn holders(html: &mut Html, facts: &Facts) {
    if facts.holders.is_empty() {
        return;
    }
    html.add("<section aria-labelledby=\"holders\">\n<h2 id=\"holders\">Who holds what</h2>\n");
    if facts.locked > facts.holders.len() as i64 {
        html.add(format_args!(
            "<p class=\"soft\">The {} that are held for longest, of {}.</p>\n",
            facts.holders.len(),
            grouped(facts.locked)
        ));
    }
    html.add(
        "<table>\n<thead><tr><th scope=\"col\">Holder</th><th scope=\"col\">Token</th>\
         <th scope=\"col\" class=\"number\">Held</th><th scope=\"col\" class=\"number\">Left</th>\
         <th scope=\"col\" class=\"number wide\">Tries</th></tr></thead>\n<tbody>\n",
    );
    for token in &facts.holders {
        let Some(lock) = &token.lock else { continue };
        let held = time_of(&lock.uuid).map_or_else(|| "?".to_owned(), |since| seconds(facts.now - since));
        html.add(format_args!(
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{held}</td><td class=\"number\">{}</td>\
             <td class=\"number wide\">{}</td></tr>\n",
            who(lock),
            link(token),
            seconds(lock.left),
            tries(token)
        ));
    }
    html.add("</tbody>\n</table>\n</section>\n");
}

/// The holder of a lock.
fn who(lock: &Lock) -> String {
    match holder(&lock.description) {
        ("", None) => "<span class=\"soft\">did not say</span>".to_owned(),
        (name, None) => escape(name),
        (name, Some(vm)) => format!(
            "{}<span class=\"soft\"> slot {}</span><small class=\"wide\">{}</small>",
            escape(name),
            escape(vm.slot),
            escape(vm.uuid)
        ),
    }
}

fn link(token: &Token) -> String {
    let name = token.name.as_ref().map(|name| format!("<small>{}</small>", escape(name))).unwrap_or_default();
    format!("<a href=\"tokens/{0}\">{0}</a>{name}", token.id)
}

fn tries(token: &Token) -> String {
    let tries = token.leases;
    if tries >= SUSPICIOUS { format!("<strong class=\"bad\">{tries}</strong>") } else { tries.to_string() }
}

fn tokens(html: &mut Html, facts: &Facts) {
    if facts.tokens == 0 {
        return;
    }
    html.add("<section aria-labelledby=\"tokens\">\n<h2 id=\"tokens\">Tokens</h2>\n");
    pages(html, facts);
    html.add(
        "<table>\n<thead><tr><th scope=\"col\">Token</th><th scope=\"col\" class=\"number\">Size</th>\
         <th scope=\"col\" class=\"wide\">Type</th><th scope=\"col\" class=\"number wide\">Age</th>\
         <th scope=\"col\" class=\"number\">Tries</th><th scope=\"col\">State</th></tr></thead>\n<tbody>\n",
    );
    for token in &facts.rows {
        let state = token.lock.as_ref().map_or_else(
            || "<span class=\"soft\">waiting</span>".to_owned(),
            |lock| format!("<span class=\"run\">running</span><small>{}</small>", escape(holder(&lock.description).0)),
        );
        html.add(format_args!(
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"wide\">{}</td><td class=\"number wide\">{}</td>\
             <td class=\"number\">{}</td><td>{state}</td></tr>\n",
            link(token),
            bytes(u64::try_from(token.length).unwrap_or(0)),
            escape(&token.kind),
            seconds(facts.now - token.created),
            tries(token)
        ));
    }
    html.add("</tbody>\n</table>\n");
    if facts.rows.is_empty() {
        html.add(format_args!("<p>There is none behind {}.</p>\n", facts.after));
    }
    html.add("</section>\n");
}

/// Links to the pages before and behind.
fn pages(html: &mut Html, facts: &Facts) {
    if facts.after == 0 && !facts.more {
        return;
    }
    html.add(format_args!("<p class=\"pages\"><span class=\"soft\">Oldest first, {ROWS} a page.</span>"));
    if facts.after > 0 {
        html.add(" <a href=\"?#tokens\">from the oldest</a>");
    }
    if let Some(last) = facts.rows.last().filter(|_| facts.more) {
        html.add(format_args!(" <a href=\"?after={}#tokens\">the next {ROWS}</a>", last.id));
    }
    html.add("</p>\n");
}

fn seconds(seconds: i64) -> String {
    duration(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

/// `10,000`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const POISON: &str = "\"><script>alert(1)</script>'\u{202e}\u{1b}";

    fn token(id: i64, lock: Option<&str>) -> Token {
        let uuid = super::super::super::random::timed_uuid(900, [0; 16]);
        Token {
            id,
            name: Some(POISON.to_owned()),
            kind: POISON.to_owned(),
            length: 12,
            created: 400,
            leases: 7,
            lock: lock.map(|text| Lock { uuid, left: 250, description: text.to_owned() }),
        }
    }

    fn facts() -> Facts {
        let locked = || vec![token(3, Some("<i>/v/b/2")), token(4, Some(""))];
        Facts {
            pool: "mc".to_owned(),
            now: 1000,
            tokens: 6000,
            locked: 2,
            done: 4000,
            gone: 12,
            failed: 10,
            results: vec![("mc-results".to_owned(), 4000)],
            tries: vec![(0, 5990), (7, 10)],
            minutes: vec![0, 20, 20, 1],
            machines: 2,
            holders: locked(),
            rows: locked(),
            after: 2,
            more: true,
        }
    }

    #[test]
    fn the_page_tells_how_it_stands() {
        let page = pool(&facts(), "http://h:8080/4.1");
        for part in [
            "<title>39 % — mc</title>",
            "2 machines work on 2 tokens, about 5 h left. 10 failed and are set aside.",
            "<data id=\"done\" value=\"4000\">4,000</data>",
            "<data id=\"waiting\" value=\"5998\">5,998</data>",
            "<data id=\"total\" value=\"10010\">10,010</data>",
            "<a href=\"../mc.failed/\">failed</a>",
            "4,000 results in <a href=\"../mc-results/\">mc-results</a> · 2 taken out undone",
            "41 done, 20 a minute lately",
            "slot 2</span><small class=\"wide\">v</small>",
            "<td class=\"number\">1 min 40 s</td><td class=\"number\">4 min 10 s</td>",
            "<strong class=\"bad\">7</strong>",
            "<a href=\"?after=4#tokens\">the next 100</a>",
            "<td class=\"number wide\">10 min</td>",
            "did not say",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn foreign_text_is_only_text_and_nothing_comes_from_elsewhere() {
        let page = pool(&facts(), POISON);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'));
        assert!(page.matches("default-src 'none'").count() == 1);
        for outside in ["src=", "url(", "@import", "http://", "https://", "javascript:"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_headline_says_what_counts() {
        let say = |change: fn(&mut Facts)| {
            let mut facts = Facts { tokens: 5, done: 5, ..Facts::default() };
            change(&mut facts);
            headline(&facts)
        };
        assert_eq!(say(|_| {}), "5 tokens wait, and nobody works on them.");
        assert_eq!(say(|facts| facts.tokens = 1), "1 token waits, and nobody works on it.");
        assert_eq!(say(|facts| facts.tokens = 0), "No work is left: 5 done.");
        let all_failed = say(|facts| (facts.tokens, facts.done, facts.failed) = (0, 0, 1));
        assert_eq!(all_failed, "No work is left: 0 done. 1 failed and is set aside.");
        assert!(say(|facts| *facts = Facts::default()).contains("mistyped"));
        let one = say(|facts| (facts.locked, facts.machines) = (1, 1));
        assert_eq!(one, "1 machine works on 1 token.");
    }

    #[test]
    fn numbers_are_readable() {
        let told = [0, 999, 1000, 1_234_567, -1000].map(grouped);
        assert_eq!(told, ["0", "999", "1,000", "1,234,567", "-1,000"]);
        assert_eq!([0.05, 1.5, 1234.4].map(per), ["3 an hour", "1.5 a minute", "1,234 a minute"]);
    }

    #[test]
    fn the_list_of_pools_links_to_each() {
        let line = |name: &str| Line { name: name.to_owned(), tokens: 12_000, locked: 2_000, done: 7 };
        let page = pools(&[line("a"), line("b.failed")], "http://h/4.1");
        assert!(page.contains(
            "<tr><td><a href=\"b.failed/\">b.failed</a></td><td class=\"number\">10,000</td><td class=\"number\">2,000</td>"
        ));
        assert!(pools(&[], "b").contains("There is none yet"));
    }
}
