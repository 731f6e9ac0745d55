//! The calls of the protocol, one function each. URLs are built from the base that was given, never from an answer.

use std::io::{self, Read};

use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::http::request::Builder;
use ureq::http::{Request, Response, header};
use ureq::{Agent, Body};

use super::DRAIN;
use super::answer::{self, LockRow, Row};
use super::server::{Server, SetupError};
use crate::context::site::PoolName;
use crate::text::printable;
use crate::work::http;

/// A million tokens of 500 bytes of listing each. What is longer is no listing.
const MAX_LISTING: u64 = 512 << 20;
/// Of answers of which only the status counts: read, so that the connection can be used again.
const MAX_IDLE_BODY: u64 = 64 << 10;
/// Seconds that a token is locked for its deletion.
const DRAIN_SECS: u32 = 60;
/// So that a share of it can be turned back into a number of tokens: 14 digits are what PHP prints.
const LARGE_TOTAL: u64 = 1_000_000_000;

/// A call that did not do what it is for.
#[derive(Debug, Error)]
#[error("{place}: {why}")]
pub struct CallError {
    /// Method and URL.
    place: String,
    why: String,
    /// Whether the server may have done it all the same.
    pub(super) unsure: bool,
    /// Whether another try may go better.
    pub(super) transient: bool,
}

type Result<T> = std::result::Result<T, CallError>;

/// One server.
pub struct Client {
    agent: Agent,
    base: String,
    /// The header's value.
    authorization: Option<String>,
}

impl Client {
    pub(super) fn new(server: &Server) -> std::result::Result<Self, SetupError> {
        let base = server.base()?;
        let (agent, authorization) = (server.agent(&base)?, server.authorization(&base)?);
        Ok(Self { agent, base, authorization })
    }

    /// For messages.
    pub(super) fn pool_url(&self, pool: &PoolName) -> String {
        self.url(pool, "")
    }

    fn url(&self, pool: &PoolName, rest: &str) -> String {
        format!("{}/pools/{pool}/{rest}", self.base)
    }

    /// The name of a new pool.
    pub(super) fn new_pool(&self) -> Result<PoolName> {
        let call = Call::new(Request::get(format!("{}/newPool", self.base)).header(header::ACCEPT, "text/plain"));
        let (call, answer) = self.expect(call, None, &[303])?;
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let name = location.and_then(|url| url.trim_end_matches('/').rsplit_once("/pools/"));
        name.and_then(|(_, name)| PoolName::try_from(name.to_owned()).ok())
            .ok_or_else(|| call.refused(format!("303 to no pool ({:?})", printable(location.unwrap_or_default()))))
    }

    /// How many tokens there are, without listing them.
    pub(super) fn size(&self, pool: &PoolName) -> Result<u64> {
        let url = self.url(pool, &format!("progress?total={LARGE_TOTAL}"));
        let call = Call::new(Request::get(url).header(header::ACCEPT, "text/plain"));
        let (call, answer) = self.expect(call, None, &[200])?;
        let text = call.text(answer)?;
        let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        let share =
            share.ok_or_else(|| call.refused(format!("{} where a share was expected", answer::shown(&text))))?;
        Ok((share * LARGE_TOTAL as f64).round() as u64)
    }

    /// All tokens.
    pub(super) fn tokens(&self, pool: &PoolName) -> Result<Vec<Row>> {
        let rows: Vec<Row> = self.listing(&self.url(pool, "tokens/"))?;
        match rows.iter().find(|row| !answer::is_id(&row.id)) {
            None => Ok(rows),
            Some(row) => {
                let call = Call::new(Request::get(self.url(pool, "tokens/")));
                Err(call.refused(format!("a token that is called {}, and not by a number", answer::shown(&row.id))))
            }
        }
    }

    /// How many tokens are locked.
    pub(super) fn locked(&self, pool: &PoolName) -> Result<u64> {
        Ok(self.listing::<LockRow>(&self.url(pool, "locks/"))?.len() as u64)
    }

    /// Stores each line as a token.
    pub(super) fn post_lines(&self, pool: &PoolName, kind: &str, lines: &[u8]) -> Result<()> {
        let call = Request::post(self.url(pool, "tokens/")).header(header::CONTENT_TYPE, kind);
        self.plain(Call::new(call), Some(lines), &[202])
    }

    /// Stores a token that has a name; `name` has no quote in it.
    pub(super) fn put(&self, pool: &PoolName, name: &str, kind: &str, value: &[u8]) -> Result<()> {
        let call = Request::put(self.url(pool, "nextToken"))
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, "text/plain")
            .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""));
        self.plain(Call::new(call), Some(value), &[201])
    }

    /// A token's value; none if it is gone. A value of more than `limit` bytes is an error.
    pub(super) fn fetch(&self, pool: &PoolName, id: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let call = Call::new(Request::get(self.url(pool, &format!("tokens/{id}"))).header(header::ACCEPT, "*/*"));
        let (call, answer) = self.expect(call, None, &[200, 404])?;
        if answer.status() == 404 {
            drain(answer);
            return Ok(None);
        }
        let mut value = Vec::new();
        let read = answer.into_body().into_reader().take(limit + 1).read_to_end(&mut value);
        read.map_err(|error| call.failed(&error))?;
        if value.len() as u64 > limit {
            return Err(call.refused(format!("more than the {limit} bytes that the listing says")));
        }
        Ok(Some(value))
    }

    /// Whether it was there.
    pub(super) fn delete(&self, pool: &PoolName, id: &str) -> Result<bool> {
        let (_, answer) =
            self.expect(Call::new(Request::delete(self.url(pool, &format!("tokens/{id}")))), None, &[200, 404])?;
        let was_there = answer.status() == 200;
        drain(answer);
        Ok(was_there)
    }

    /// Takes a token that nobody holds, for as long as its deletion needs. None if there is none.
    pub(super) fn take(&self, pool: &PoolName) -> Result<Option<String>> {
        let description = DRAIN.replace(' ', "%20");
        let url = self.url(pool, &format!("nextToken?timeout={DRAIN_SECS}&description={description}"));
        let (call, answer) =
            self.expect(Call::new(Request::get(url).header(header::ACCEPT, "text/plain")), None, &[303, 404])?;
        if answer.status() == 404 {
            drain(answer);
            return Ok(None);
        }
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let id = header("location").and_then(|url| url.rsplit_once("/tokens/")).map(|(_, id)| id.to_owned());
        let locked = header("x-topos-lockurl").is_some_and(|url| !url.ends_with("/locks/"));
        match id.filter(|id| answer::is_id(id)) {
            Some(id) if locked => {
                drain(answer);
                Ok(Some(id))
            }
            Some(_) => Err(call.refused("303 without a lock".to_owned())),
            None => Err(call.refused("303 to no token".to_owned())),
        }
    }

    /// Frees every token of a pool.
    pub(super) fn free_all(&self, pool: &PoolName) -> Result<()> {
        self.plain(Call::new(Request::delete(self.url(pool, "locks/"))), None, &[200])
    }

    fn listing<T: DeserializeOwned>(&self, url: &str) -> Result<Vec<T>> {
        let (call, answer) =
            self.expect(Call::new(Request::get(url).header(header::ACCEPT, "application/json")), None, &[200])?;
        answer::listing(answer.into_body().into_reader(), MAX_LISTING).map_err(|error| match error {
            answer::ListingError::Read(error) => call.failed(&error),
            other => call.refused(other.to_string()),
        })
    }

    /// A call whose body is of no interest.
    fn plain(&self, call: Call, body: Option<&[u8]>, wanted: &[u16]) -> Result<()> {
        drain(self.expect(call, body, wanted)?.1);
        Ok(())
    }

    fn expect(&self, call: Call, body: Option<&[u8]>, wanted: &[u16]) -> Result<(Call, Response<Body>)> {
        let Call { place, request } = call;
        let call = Call { place, request: Builder::new() };
        let mut request = request.header(header::CACHE_CONTROL, "no-cache");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let bad = |error: ureq::http::Error| call.refused(error.to_string());
        let answer = match body {
            Some(body) => self.agent.run(request.body(body).map_err(bad)?),
            None => self.agent.run(request.body(()).map_err(bad)?),
        };
        let answer = answer.map_err(|error| call.failed(&error))?;
        let status = answer.status().as_u16();
        if wanted.contains(&status) {
            return Ok((call, answer));
        }
        if status == 401 && self.authorization.is_some() {
            return Err(call.refused("401: the server does not take this user and password".to_owned()));
        }
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        Err(call.unwanted(status, location))
    }
}

/// One call, for what may be said of it.
struct Call {
    /// Method and URL, without the query.
    place: String,
    request: Builder,
}

impl Call {
    fn new(request: Builder) -> Self {
        let method = request.method_ref().map_or("GET", |method| method.as_str());
        let url = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        Self { place: format!("{method} {}", url.split('?').next().unwrap_or_default()), request }
    }

    fn refused(&self, why: String) -> CallError {
        CallError { place: self.place.clone(), why, unsure: false, transient: false }
    }

    /// Without an answer, or with half of one.
    fn failed(&self, error: &(impl std::fmt::Display + ?Sized)) -> CallError {
        let why = http::in_words(error.to_string());
        // Where nobody listens, or whoever does is not trusted, nobody has acted.
        let unheard = ["refused", "not found", "unreachable", "resolve", "certificate", "no TLS"];
        let unsure = !unheard.iter().any(|word| why.contains(word));
        CallError { place: self.place.clone(), why, unsure, transient: true }
    }

    fn unwanted(&self, status: u16, location: Option<&str>) -> CallError {
        let why = match status {
            300..=399 => {
                let location = printable(location.unwrap_or("nowhere"));
                format!("{status}, redirected to {location}, where nothing is sent; is --url right?")
            }
            401 => "401: the server asks for a password (--user-file)".to_owned(),
            403 => "403: the server does not allow that".to_owned(),
            404 => "404: there is no such thing; is --url right, up to its version such as /4.1?".to_owned(),
            413 => "413: too large for the server".to_owned(),
            _ => status.to_string(),
        };
        let transient = status >= 500 || [408, 429].contains(&status);
        CallError { place: self.place.clone(), why, unsure: status >= 500, transient }
    }

    fn text(&self, answer: Response<Body>) -> Result<String> {
        let mut bytes = Vec::new();
        let read = answer.into_body().into_reader().take(MAX_IDLE_BODY).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Reads an answer to its end, within bounds: its connection then serves the next call.
fn drain(answer: Response<Body>) {
    let _ = io::copy(&mut answer.into_body().into_reader().take(MAX_IDLE_BODY), &mut io::sink());
}
