//! The calls of a ToPoS 4.1 token pool, one function each.
//!
//! Every URL is built from the configured base; what a server says about its own name is not used.

use std::io::Read;
use std::time::Duration;

use ureq::Body;
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response, header};

use super::answer::{self, Claim, Lock, Row, Status};
use super::http::{Client, SetupError};
use crate::agent::channel::MAX_BODY;
use crate::ban::owner::Owner;
use crate::context::site::Topos;

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

/// What came of a call.
#[derive(Debug)]
pub enum Reply<T = ()> {
    /// It did what it is for.
    Done(T),
    /// 404: the thing is not there; names URL and answer.
    Absent(String),
    /// It will not work; names URL and answer.
    Refused(String),
    /// It may work later.
    Unsure {
        /// Names URL and error.
        why: String,
        /// Whether it may have worked all the same.
        sent: bool,
    },
}

/// A token's value.
#[derive(Debug, PartialEq, Eq)]
pub struct Value {
    /// As it was put in.
    pub body: Vec<u8>,
    /// `Content-Type`.
    pub media_type: Option<String>,
    /// The same read for whose the token is.
    pub owner: Owner,
    /// `X-Number-Of-Leases`; servers before 2012 do not send it.
    pub leases: Option<u32>,
}

/// A pool, and the pool of its results.
#[derive(Debug)]
pub struct Pool {
    client: Client,
    base: String,
    pool: String,
    results: Option<String>,
    lock_secs: u64,
}

impl Pool {
    /// Makes no call yet. `lock` is rounded down to seconds.
    ///
    /// # Errors
    /// When the site's URL and authorities do not fit together.
    pub fn new(topos: &Topos, ca: Option<&[u8]>, pace: &super::Pace) -> Result<Self, SetupError> {
        let base = topos.url.get().trim_end_matches('/').to_owned();
        Ok(Self {
            client: Client::new("work.topos.ca", &base, ca, pace.connect, pace.call)?,
            base,
            pool: topos.pool.to_string(),
            results: topos.results.as_ref().map(ToString::to_string),
            lock_secs: pace.lock.as_secs(),
        })
    }

    /// Whether results are put anywhere.
    pub fn keeps_results(&self) -> bool {
        self.results.is_some()
    }

    /// The name that a token's result is stored under; unique, as ids are one counter over all pools.
    pub fn result_name(&self, id: &str) -> String {
        format!("{}.{id}", self.pool)
    }

    /// Asks for a token and a lock on it; `owner` is the lock's description.
    pub fn claim(&self, owner: &str, limit: Duration) -> Claim {
        let query = format!("timeout={}&description={}", self.lock_secs, answer::encode(owner));
        let url = self.url(&self.pool, "nextToken");
        let call = self.call(get(&format!("{url}?{query}"), TEXT), None, limit);
        let named = |why: String| format!("GET {url}: {why}");
        match call {
            Err(Failure { why, sent }) => Claim::Unsure { why, sent },
            Ok(answer) => {
                let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
                let claim = answer::claim(answer.status().as_u16(), header("location"), header("x-topos-lockurl"));
                match claim {
                    Claim::Refused { why, broken } => Claim::Refused { why: named(why), broken },
                    Claim::Unsure { why, sent } => Claim::Unsure { why: named(why), sent },
                    other => other,
                }
            }
        }
    }

    /// Makes a lock last its whole time again, from the server's now.
    pub fn renew(&self, lock: &str, limit: Duration) -> Reply {
        let url = self.url(&self.pool, &format!("locks/{lock}?timeout={}", self.lock_secs));
        self.plain(get(&url, TEXT), None, 200, limit)
    }

    /// Fetches a token.
    pub fn token(&self, id: &str, limit: Duration) -> Reply<Value> {
        let (url, request) = self.get_token(id);
        let (answer, failed) = match self.expect(request, None, 200, limit) {
            Ok(done) => done,
            Err(reply) => return reply,
        };
        let too_large = |size: String| Reply::Refused(format!("GET {url}: {size} bytes, more than {MAX_BODY}"));
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let media_type = header("content-type").map(str::to_owned);
        // As bytes: what is no text is not the same as nothing.
        let owner = answer.headers().get("content-type");
        let owner = owner.map_or(Owner::Unknown, |value| Owner::of_media_type(value.as_bytes()));
        let leases = header("x-number-of-leases").and_then(|value| value.parse().ok());
        if let Some(size) = answer.body().content_length().filter(|size| *size > MAX_BODY as u64) {
            return too_large(size.to_string());
        }
        let mut body = Vec::new();
        match answer.into_body().into_reader().take(MAX_BODY as u64 + 1).read_to_end(&mut body) {
            Err(error) => Reply::Unsure { why: failed.with(&error), sent: true },
            Ok(size) if size > MAX_BODY => too_large(format!("at least {size}")),
            Ok(_) => Reply::Done(Value { body, media_type, owner, leases }),
        }
    }

    /// Whether a token is there at all.
    pub fn look(&self, id: &str, limit: Duration) -> Reply {
        // GET, as HEAD is where this server's clients have hung; its body is left unread.
        self.plain(self.get_token(id).1, None, 200, limit)
    }

    /// Removes a token for good. The server checks no lock.
    pub fn delete(&self, id: &str, limit: Duration) -> Reply {
        let url = self.url(&self.pool, &format!("tokens/{id}"));
        self.plain(Request::delete(url), None, 200, limit)
    }

    /// Gives a token back at once.
    pub fn release(&self, lock: &str, limit: Duration) -> Reply {
        let url = self.url(&self.pool, &format!("locks/{lock}"));
        self.plain(Request::delete(url), None, 200, limit)
    }

    /// All live locks of the pool.
    pub fn locks(&self, limit: Duration) -> Reply<Vec<Lock>> {
        self.listing(&self.url(&self.pool, "locks/"), limit)
    }

    /// Puts a token's result into the pool of results.
    pub fn store(&self, id: &str, result: &[u8], limit: Duration) -> Reply {
        let Some(results) = &self.results else { return Reply::Done(()) };
        let request = Request::put(self.url(results, "nextToken"))
            .header(header::ACCEPT, TEXT)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", self.result_name(id)));
        self.plain(request, Some(result), 201, limit)
    }

    /// Whether a token's result is in the pool of results.
    pub fn stored(&self, id: &str, limit: Duration) -> Reply<bool> {
        let Some(results) = &self.results else { return Reply::Done(false) };
        let name = self.result_name(id);
        match self.listing::<Row>(&self.url(results, "tokens/"), limit) {
            Reply::Done(rows) => Reply::Done(rows.iter().any(|row| row.name.as_ref() == Some(&name))),
            Reply::Absent(why) => Reply::Absent(why),
            Reply::Refused(why) => Reply::Refused(why),
            Reply::Unsure { why, sent } => Reply::Unsure { why, sent },
        }
    }

    fn url(&self, pool: &str, rest: &str) -> String {
        format!("{}/pools/{pool}/{rest}", self.base)
    }

    fn get_token(&self, id: &str) -> (String, Builder) {
        let url = self.url(&self.pool, &format!("tokens/{id}"));
        let request = get(&url, "*/*");
        (url, request)
    }

    fn listing<T: serde::de::DeserializeOwned>(&self, url: &str, limit: Duration) -> Reply<Vec<T>> {
        let (answer, failed) = match self.expect(get(url, JSON), None, 200, limit) {
            Ok(done) => done,
            Err(reply) => return reply,
        };
        match answer::listing(answer.into_body().into_reader()) {
            Ok(rows) => Reply::Done(rows),
            Err(error) if error.is_io() => Reply::Unsure { why: failed.with(&error), sent: true },
            Err(error) => Reply::Refused(failed.with(&error)),
        }
    }

    /// A call whose body is of no interest.
    fn plain(&self, request: Builder, body: Option<&[u8]>, done: u16, limit: Duration) -> Reply {
        match self.expect(request, body, done, limit) {
            Ok(_) => Reply::Done(()),
            Err(reply) => reply,
        }
    }

    /// The answer, if its status is `done`.
    fn expect<T>(
        &self,
        request: Builder,
        body: Option<&[u8]>,
        done: u16,
        limit: Duration,
    ) -> Result<(Response<Body>, Place), Reply<T>> {
        let place = Place::of(&request);
        let answer = self.call(request, body, limit).map_err(|Failure { why, sent }| Reply::Unsure { why, sent })?;
        let status = answer.status().as_u16();
        match answer::reading(status, done) {
            Status::Done => Ok((answer, place)),
            Status::Absent => Err(Reply::Absent(place.with(&status))),
            Status::Unsure => Err(Reply::Unsure { why: place.with(&status), sent: true }),
            Status::Refused => Err(Reply::Refused(place.with(&status))),
        }
    }

    fn call(&self, request: Builder, body: Option<&[u8]>, limit: Duration) -> Result<Response<Body>, Failure> {
        let place = Place::of(&request);
        let request = request.body(body).map_err(|error| Failure { why: place.with(&error), sent: false })?;
        let answer = self.client.call(request, limit);
        answer.map_err(|error| Failure { why: place.with(&error), sent: error.sent() })
    }
}

struct Failure {
    why: String,
    sent: bool,
}

/// Method and URL of a call, without the query, for error messages.
struct Place(String);

impl Place {
    fn of(request: &Builder) -> Self {
        let method = request.method_ref().unwrap_or(&Method::GET);
        let url = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        Self(format!("{method} {}", url.split('?').next().unwrap_or_default()))
    }

    fn with(&self, what: &impl std::fmt::Display) -> String {
        format!("{}: {what}", self.0)
    }
}

fn get(url: &str, accept: &str) -> Builder {
    Request::get(url).header(header::ACCEPT, accept)
}
