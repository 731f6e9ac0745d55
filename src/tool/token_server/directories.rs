//! Requests about a pool's tokens or locks as a whole.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName};

use super::http::{Ask, Outcome, whole};
use super::listing::Listing;
use super::pools::Lock;
use super::reply::{PLAIN, iso_date, message, page, refuse, reply, set};
use super::request::{DIRECTORY, Format, PAGE, Params, best, lines, token_list};

/// The original's limit for numbered tokens in one request.
const MAX_NUMBERS: i64 = 1_000_000;

const TOKEN_COUNT: HeaderName = HeaderName::from_static("x-token-count");

pub(super) async fn list_locks(ask: &Ask<'_>, pool: &str) -> Outcome {
    let pool = pool.to_owned();
    let format = best(&ask.accept(), DIRECTORY);
    let listing = ask.server.database.read(move |pools| {
        const COLUMNS: &[&str] = &["Token name", "Timeout", "LockDescription"];
        let mut listing = Listing::new(format, format!("Locks of {pool}"), COLUMNS);
        pools.each_locked(&pool, |token| {
            if let Some(lock) = token.lock {
                listing.row(&lock.uuid, [token.name.unwrap_or_default(), clock(lock.left), lock.description]);
            }
        })?;
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

pub(super) async fn post_tokens(ask: &Ask<'_>, pool: &str, body: Body) -> Outcome {
    let kind = ask.header(header::CONTENT_TYPE).unwrap_or_default();
    let lower = kind.to_ascii_lowercase();
    if lower.starts_with("application/x-www-form-urlencoded") {
        let form = Params::parse(&whole(&ask.headers, body).await?);
        return post_form(ask, pool, &form).await;
    }
    if !lower.starts_with("text/") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Tokens are posted as text/* or as an urlencoded form");
    }
    let text = whole(&ask.headers, body).await?;
    let pool = pool.to_owned();
    ask.server.database.write(move |pools| pools.add(&pool, &kind, lines(&text))).await?;
    Ok(message(StatusCode::ACCEPTED, "Tokens created"))
}

async fn post_form(ask: &Ask<'_>, pool: &str, form: &Params) -> Outcome {
    const KIND: &str = "text/plain";
    let pool = pool.to_owned();
    if let Some(from) = form.text("pool") {
        if from.is_empty() {
            return refuse(StatusCode::BAD_REQUEST, "pool= is empty");
        }
        let ids = form.bytes("tokens").map(token_list).unwrap_or_default();
        let moved = ask.server.database.write(move |pools| pools.move_tokens(&from, &pool, &ids)).await?;
        return Ok(message(StatusCode::OK, &format!("{moved} tokens moved")));
    }
    if let Some(count) = form.number("ntokens") {
        let first = form.number("offset").unwrap_or(0);
        let Some(end) = first.checked_add(count).filter(|_| (1..=MAX_NUMBERS).contains(&count)) else {
            return refuse(StatusCode::BAD_REQUEST, format!("ntokens= is not a number between 1 and {MAX_NUMBERS}"));
        };
        let numbers = (first..end).map(|number| number.to_string());
        ask.server.database.write(move |pools| pools.add(&pool, KIND, numbers)).await?;
    } else if let Some(text) = form.bytes("tokens") {
        let text = text.to_owned();
        ask.server.database.write(move |pools| pools.add(&pool, KIND, lines(&text))).await?;
    } else {
        return refuse(StatusCode::BAD_REQUEST, "The form has none of ntokens=, tokens=, pool=");
    }
    Ok(message(StatusCode::ACCEPTED, "Tokens created"))
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
