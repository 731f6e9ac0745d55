//! Requests about a pool's tokens or locks as a whole.

use axum::http::StatusCode;
use axum::http::header::{self, HeaderName};

use super::http::{Ask, Outcome};
use super::listing::Listing;
use super::pools::{Lock, Token};
use super::reply::{PLAIN, iso_date, message, page, refuse, reply, set};
use super::request::{DIRECTORY, Format, PAGE, best};

const TOKEN_COUNT: HeaderName = HeaderName::from_static("x-token-count");

pub(super) async fn list_locks(ask: &Ask<'_>, pool: &str) -> Outcome {
    let pool = pool.to_owned();
    let format = best(&ask.accept(), DIRECTORY);
    // Beyond the original, which lists all whatever is asked: a machine that looks for its own need not read those of a
    // hundred thousand others.
    let prefix = ask.params.text("description");
    let listing = ask.server.database.read(move |pools| {
        const COLUMNS: &[&str] = &["Token name", "Timeout", "LockDescription"];
        let mut listing = Listing::new(format, format!("Locks of {pool}"), COLUMNS);
        let each = |token: Token| {
            if let Some(lock) = token.lock {
                listing.row(&lock.uuid, [token.name.unwrap_or_default(), clock(lock.left), lock.description]);
            }
        };
        match prefix {
            Some(prefix) => pools.each_locked_as(&pool, &prefix, each)?,
            None => pools.each_locked(&pool, each)?,
        }
        Ok(listing)
    });
    let (kind, text) = listing.await?.end();
    Ok(reply(StatusCode::OK, kind, text))
}

pub(super) async fn delete_locks(ask: &Ask<'_>, pool: &str) -> Outcome {
    let pool = pool.to_owned();
    ask.server.database.write(move |pools| pools.unlock_all(&pool)).await?;
    Ok(message(StatusCode::OK, "Locks destroyed"))
}

pub(super) async fn list_tokens(ask: &Ask<'_>, pool: &str) -> Outcome {
    let pool = pool.to_owned();
    let format = best(&ask.accept(), DIRECTORY);
    let listing = ask.server.database.read(move |pools| {
        const COLUMNS: &[&str] = &[
            "Size",
            "Content-Type",
            "Original Name",
            "LockTokenHTML",
            "Timeout",
            "Created",
            "Leases",
            "LockDescription",
        ];
        let mut listing = Listing::new(format, format!("Tokens of {pool}"), COLUMNS);
        pools.each_token(&pool, |token| {
            let (link, left, description) = match token.lock {
                None => Default::default(),
                Some(Lock { uuid, left, description }) => {
                    (format!("<a href=\"../locks/{uuid}\">{uuid}</a>"), clock(left), description)
                }
            };
            listing.row(
                &token.id.to_string(),
                [
                    format!("{} B", token.length),
                    token.kind,
                    token.name.unwrap_or_default(),
                    link,
                    left,
                    iso_date(token.created),
                    token.leases.to_string(),
                    description,
                ],
            );
        })?;
        Ok(listing)
    });
    let listing = listing.await?;
    let count = listing.rows();
    let (kind, text) = listing.end();
    let mut response = reply(StatusCode::OK, kind, text);
    set(&mut response, TOKEN_COUNT, &count.to_string());
    Ok(response)
}

/// `H:MM:SS`.
fn clock(seconds: i64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

pub(super) async fn delete_tokens(ask: &Ask<'_>, pool: &str) -> Outcome {
    let pool = pool.to_owned();
    ask.server.database.write(move |pools| pools.clear(&pool)).await?;
    Ok(message(StatusCode::OK, "Pool emptied"))
}

pub(super) async fn list_pool(ask: &Ask<'_>, pool: &str) -> Outcome {
    let name = pool.to_owned();
    let (tokens, locks) = ask.server.database.read(move |pools| pools.counts(&name)).await?;
    let mut listing = Listing::new(best(&ask.accept(), DIRECTORY), format!("Pool {pool}"), &["Content"]);
    listing.row("tokens/", [format!("{tokens} tokens")]);
    listing.row("locks/", [format!("{locks} locks")]);
    listing.row("nextToken", [String::new()]);
    listing.row("progress", [String::new()]);
    let (kind, text) = listing.end();
    Ok(reply(StatusCode::OK, kind, text))
}

pub(super) async fn progress(ask: &Ask<'_>, pool: &str) -> Outcome {
    let Some(total) = ask.params.number("total").filter(|total| *total > 0) else {
        return refuse(StatusCode::BAD_REQUEST, "Say how many tokens there were with total=");
    };
    let pool = pool.to_owned();
    let (tokens, _) = ask.server.database.read(move |pools| pools.counts(&pool)).await?;
    if tokens > total {
        return refuse(StatusCode::BAD_REQUEST, format!("There are {tokens} tokens, more than total={total}"));
    }
    let share = tokens as f64 / total as f64;
    let mut response = match best(&ask.accept(), PAGE) {
        Format::Plain => reply(StatusCode::OK, PLAIN, share.to_string()),
        _ => page(StatusCode::OK, "Progress", &format!("<p>{tokens} of {total} tokens, {:.1}%</p>", share * 100.0)),
    };
    set(&mut response, header::REFRESH, &format!("60; {}", ask.uri));
    Ok(response)
}
