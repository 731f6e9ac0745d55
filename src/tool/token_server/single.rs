//! Requests about one token or one lock.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName};

use super::http::{Ask, Outcome, whole};
use super::names::Search;
use super::pools::{Claim, New, Wish};
use super::reply::{PLAIN, Refusal, escape, http_date, message, page, pointer, refuse, reply, set};
use super::request::{Format, PAGE, best, file_name, trailing_token};

const LEASES: HeaderName = HeaderName::from_static("x-number-of-leases");

/// Free tokens that a search by name looks at before it claims one of them: the original's number.
const CANDIDATES: usize = 100;

/// Searches, when all candidates of the one before were taken by others.
const SEARCHES: usize = 10;

pub(super) async fn next_token(ask: &Ask<'_>, pool: &str) -> Outcome {
    let seconds = ask.params.number("timeout").filter(|seconds| *seconds > 0);
    let description = ask.params.text("description").unwrap_or_default();
    let wish = seconds.map(|seconds| Wish { seconds, description });
    let claim = match search(ask) {
        Some(search) => claim_named(ask, pool, search, wish).await?,
        None => {
            let name = pool.to_owned();
            ask.server.database.write(move |pools| pools.claim(&name, wish.as_ref())).await?
        }
    };
    let Some(claim) = claim else { return refuse(StatusCode::NOT_FOUND, "No token available") };
    let url = ask.token_url(pool, claim.token);
    let mut response = pointer(StatusCode::SEE_OTHER, best(&ask.accept(), PAGE), "Leased token", &url);
    if let Some(uuid) = claim.lock {
        ask.set_lock(&mut response, pool, &uuid);
    }
    Ok(response)
}

/// 4.1 searches words by `name=`, 4 a pattern by `token=`.
fn search(ask: &Ask<'_>) -> Option<Search> {
    let of = |name| ask.params.text(name).filter(|text| !text.is_empty());
    if ask.base.ends_with("/4") {
        return of("token").map(|text| Search::pattern(&text));
    }
    of("name").map(|text| Search::words(&text))
}

/// Searches beside the writer, since a search may look at every token, and claims with it. The original searched on
/// and on where nothing fitted.
async fn claim_named(ask: &Ask<'_>, pool: &str, search: Search, wish: Option<Wish>) -> Result<Option<Claim>, Refusal> {
    let (search, wish) = (Arc::new(search), Arc::new(wish));
    for _ in 0..SEARCHES {
        let (name, searched) = (pool.to_owned(), search.clone());
        let found = ask.server.database.read(move |pools| pools.free_named(&name, &searched, CANDIDATES)).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let (name, wish) = (pool.to_owned(), wish.clone());
        let claim = ask.server.database.write(move |pools| pools.claim_one(&name, &found, (*wish).as_ref())).await?;
        if claim.is_some() {
            return Ok(claim);
        }
    }
    Ok(None)
}

pub(super) async fn put_token(ask: &Ask<'_>, pool: &str, body: Body) -> Outcome {
    if !ask.headers.contains_key(header::CONTENT_LENGTH) && !ask.headers.contains_key(header::TRANSFER_ENCODING) {
        return refuse(StatusCode::LENGTH_REQUIRED, "Say Content-Length");
    }
    let delete = match ask.params.bytes("delete") {
        None => None,
        Some(text) => match trailing_token(text) {
            None => return refuse(StatusCode::BAD_REQUEST, "delete= does not end in a token's number"),
            id => id,
        },
    };
    let value = whole(&ask.headers, body).await?;
    let kind = ask.header(header::CONTENT_TYPE).unwrap_or_else(|| "application/octet-stream".to_owned());
    let file = ask.header(header::CONTENT_DISPOSITION).and_then(|header| file_name(&header));
    let name = pool.to_owned();
    let put = ask
        .server
        .database
        .write(move |pools| pools.put(&name, &New { name: file.as_deref(), kind: &kind, value: &value }, delete));
    let Some(id) = put.await? else { return refuse(StatusCode::NOT_FOUND, "The token to delete is not in this pool") };
    Ok(pointer(StatusCode::CREATED, best(&ask.accept(), PAGE), "New token", &ask.token_url(pool, id)))
}

pub(super) async fn get_token(ask: &Ask<'_>, pool: &str, id: i64) -> Outcome {
    let name = pool.to_owned();
    let found = ask.server.database.read(move |pools| pools.token(&name, id)).await?;
    let Some((token, value)) = found else { return no_token(pool, id) };
    let mut response = reply(StatusCode::OK, &token.kind, value);
    set(&mut response, header::LAST_MODIFIED, &http_date(token.created));
    // The page links here: what anybody stored as HTML must not run as if it were the server's.
    set(&mut response, header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'");
    set(&mut response, LEASES, &token.leases.to_string());
    if let Some(name) = token.name {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        set(&mut response, header::CONTENT_DISPOSITION, &format!("inline; filename=\"{quoted}\""));
    }
    if let Some(lock) = token.lock {
        ask.set_lock(&mut response, pool, &lock.uuid);
    }
    Ok(response)
}

pub(super) async fn delete_token(ask: &Ask<'_>, pool: &str, id: i64) -> Outcome {
    let name = pool.to_owned();
    if !ask.server.database.write(move |pools| pools.delete(&name, id)).await? {
        return no_token(pool, id);
    }
    Ok(message(StatusCode::OK, "Token destroyed"))
}

fn no_token(pool: &str, id: i64) -> Outcome {
    refuse(StatusCode::NOT_FOUND, format!("There is no token {id} in pool {pool}"))
}

pub(super) async fn get_lock(ask: &Ask<'_>, uuid: String) -> Outcome {
    let seconds = ask.params.number("timeout");
    if seconds.is_some_and(|seconds| seconds < 1) {
        return refuse(StatusCode::BAD_REQUEST, "timeout= is not a number of seconds above 0");
    }
    let description = ask.params.text("description");
    let found = match seconds {
        None => ask.server.database.read(move |pools| pools.locked(&uuid)).await?,
        Some(seconds) => {
            let renew = ask.server.database.write(move |pools| {
                pools.renew(&uuid, seconds, description.as_deref())?;
                pools.locked(&uuid)
            });
            renew.await?
        }
    };
    let Some((pool, token)) = found else { return no_lock() };
    let Some(lock) = token.lock else { return no_lock() };
    let lines = [
        ("TokenId", token.id.to_string()),
        ("TokenName", token.name.unwrap_or_default()),
        ("TokenURL", ask.token_url(&pool, token.id)),
        ("Timeout", lock.left.to_string()),
        ("Description", lock.description),
    ];
    // One line a field: a line end in a description must not begin another.
    let lines = lines.map(|(key, value)| (key, value.replace(char::is_control, " ")));
    if best(&ask.accept(), PAGE) == Format::Plain {
        let text = lines.map(|(key, value)| format!("{key}: {value}")).join("\n");
        return Ok(reply(StatusCode::OK, PLAIN, text));
    }
    let rows = lines.map(|(key, value)| format!("<tr><th>{key}:</th><td>{}</td></tr>", escape(&value))).concat();
    Ok(page(StatusCode::OK, "Lock info", &format!("<table>{rows}</table>")))
}

pub(super) async fn delete_lock(ask: &Ask<'_>, uuid: String) -> Outcome {
    if !ask.server.database.write(move |pools| pools.unlock(&uuid)).await? {
        return no_lock();
    }
    Ok(message(StatusCode::OK, "Lock destroyed"))
}

fn no_lock() -> Outcome {
    refuse(StatusCode::NOT_FOUND, "There is no such lock")
}
