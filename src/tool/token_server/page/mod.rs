//! What a browser gets: a page a pool that shows how far the work is, who holds what, and for how long.
//!
//! Plain HTML and CSS that loads itself again every ten seconds; no script, nothing from elsewhere. Clients of the
//! original protocol never see it: it is for those that like `text/html` best.

mod draw;
mod facts;
mod spark;
mod tally;

use axum::http::StatusCode;

pub(super) use self::tally::prepare;
use super::http::{Ask, Outcome};
use super::listing::Listing;
use super::reply::reply;
use super::request::{DIRECTORY, best};

const HTML: &str = "text/html; charset=UTF-8";

/// Whether a client is a browser: it names `text/html`, and nothing else of ours before it or above it.
///
/// The original has no such type; its clients send none, `*/*` or what they want by name.
pub(super) fn wanted(accept: &str) -> bool {
    let quality = |range: &str| {
        let q = range.split(';').skip(1).find_map(|part| part.trim().strip_prefix("q=")?.parse::<f32>().ok());
        q.unwrap_or(1.0)
    };
    let mut ranges = accept.split(',').map(str::trim);
    let names =
        |range: &str, kind: &str| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(kind));
    let Some(ours) = ranges.clone().position(|range| names(range, "text/html")) else { return false };
    let liked = accept.split(',').nth(ours).map_or(0.0, quality);
    let better = |(at, range): (usize, &str)| {
        DIRECTORY.iter().any(|(kind, _)| names(range, kind))
            && (quality(range) > liked || (at < ours && quality(range) >= liked))
    };
    liked > 0.0 && !ranges.by_ref().enumerate().any(better)
}

/// The page of a pool, which is the same for one that is empty and for one that nobody ever wrote to.
pub(super) async fn pool(ask: &Ask<'_>, pool: &str) -> Outcome {
    let name = pool.to_owned();
    let after = ask.params.number("after").unwrap_or(0).max(0);
    let facts = ask.server.database.read(move |pools| pools.facts(&name, after)).await?;
    Ok(reply(StatusCode::OK, HTML, draw::pool(&facts, &ask.base)))
}

/// All pools by name, where the site has switched that on.
pub(super) async fn pools(ask: &Ask<'_>) -> Outcome {
    let lines = ask.server.database.read(|pools| pools.lines()).await?;
    let accept = ask.accept();
    if wanted(&accept) {
        return Ok(reply(StatusCode::OK, HTML, draw::pools(&lines, &ask.base)));
    }
    let mut listing = Listing::new(best(&accept, DIRECTORY), "Pools".to_owned(), &["Content"]);
    for line in lines {
        listing.row(&format!("{}/", line.name), [format!("{} tokens, {} locks", line.tokens, line.locked)]);
    }
    let (kind, text) = listing.end();
    Ok(reply(StatusCode::OK, kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_browsers_get_the_page() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8";
        let cases = [
            (firefox, true),
            ("text/html", true),
            ("Text/HTML;charset=utf-8 , */*", true),
            ("application/json;q=0.5, text/html;q=0.6", true),
            ("", false),
            ("*/*", false),
            ("text/*", false),
            ("text/plain", false),
            ("application/xhtml+xml", false),
            ("application/xhtml+xml, text/html", false),
            ("text/html, application/json;q=1, text/plain", true),
            ("text/html;q=0.8, application/json", false),
            ("text/html;q=0", false),
        ];
        for (accept, expected) in cases {
            assert_eq!(wanted(accept), expected, "{accept}");
        }
    }
}
