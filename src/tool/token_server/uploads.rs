//! POST on a pool's tokens: lines, forms, files; and tokens moved from another pool.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header;

use super::http::{Ask, Outcome, whole};
use super::pools::New;
use super::reply::{Refusal, message, refuse};
use super::request::{Params, lines, token_list};

/// The original's limit for numbered tokens in one request. It is ours for lines too: everybody else's claims and
/// renewals wait until the last one is stored, and a body has room for sixteen times as many blank ones.
const MAX_NUMBERS: i64 = 1_000_000;

pub(super) async fn post_tokens(ask: &Ask<'_>, pool: &str, body: Body) -> Outcome {
    let kind = ask.header(header::CONTENT_TYPE).unwrap_or_default();
    let lower = kind.to_ascii_lowercase();
    if lower.starts_with("application/x-www-form-urlencoded") {
        let form = Params::parse(&whole(&ask.headers, body).await?);
        return post_form(ask, pool, &form).await;
    }
    if lower.starts_with("multipart/form-data") {
        return post_files(ask, pool, body).await;
    }
    if !lower.starts_with("text/") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Tokens are posted as text/* or as a form");
    }
    let text = whole(&ask.headers, body).await?;
    not_too_many(&text)?;
    let pool = pool.to_owned();
    ask.server.database.write(move |pools| pools.add(&pool, &kind, lines(&text))).await?;
    Ok(message(StatusCode::ACCEPTED, "Tokens created"))
}

fn not_too_many(text: &[u8]) -> Result<(), Refusal> {
    if lines(text).count() as i64 <= MAX_NUMBERS {
        return Ok(());
    }
    refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("More than {MAX_NUMBERS} lines"))
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
        not_too_many(text)?;
        let text = text.to_owned();
        ask.server.database.write(move |pools| pools.add(&pool, KIND, lines(&text))).await?;
    } else {
        return refuse(StatusCode::BAD_REQUEST, "The form has none of ntokens=, tokens=, pool=");
    }
    Ok(message(StatusCode::ACCEPTED, "Tokens created"))
}

/// A part of a form that is a file.
struct File {
    name: Option<String>,
    kind: String,
    value: Bytes,
}

/// Each file a token; parts without a file name are fields, which mean nothing here.
async fn post_files(ask: &Ask<'_>, pool: &str, body: Body) -> Outcome {
    let files = files(ask, body).await?;
    if files.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "The form has no file");
    }
    let pool = pool.to_owned();
    let add = ask.server.database.write(move |pools| {
        for File { name, kind, value } in &files {
            pools.put(&pool, &New { name: name.as_deref(), kind, value }, None)?;
        }
        Ok(())
    });
    add.await?;
    Ok(message(StatusCode::ACCEPTED, "Tokens created"))
}

async fn files(ask: &Ask<'_>, body: Body) -> Result<Vec<File>, Refusal> {
    // Whole first: limits and deadline are those of any body.
    let mut request = Request::new(Body::from(whole(&ask.headers, body).await?));
    *request.headers_mut() = ask.headers.clone();
    let bad = |why: String| Refusal(StatusCode::BAD_REQUEST, format!("The form cannot be read: {why}"));
    let mut form = Multipart::from_request(request, &()).await.map_err(|rejection| bad(rejection.body_text()))?;
    let mut files = Vec::new();
    while let Some(part) = form.next_field().await.map_err(|error| bad(error.body_text()))? {
        let Some(name) = part.file_name().map(str::to_owned) else { continue };
        let kind = part.content_type().unwrap_or("application/octet-stream").to_owned();
        let value = part.bytes().await.map_err(|error| bad(error.body_text()))?;
        files.push(File { name: Some(name).filter(|name| !name.is_empty()), kind, value });
    }
    Ok(files)
}
