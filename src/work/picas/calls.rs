//! The calls of a CouchDB database that a PiCaS client makes, one function each.

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::Body;
use ureq::http::request::Builder;
use ureq::http::{Request, Response, header};

use super::super::Credentials;
use super::super::Pace;
use super::super::call::{Failure, Place, Status, encode, reading};
use super::super::http::{Client, SetupError};
use super::super::login::{self, Login};
use super::super::source::Reply;
use super::answer::{self, Clock, Row};
use super::document::{Document, RESULT};
use crate::context::picas::Picas;
use crate::protocol::channel::MAX_BODY;
use crate::text::printable;

const CA: &str = "work.picas.ca";
const USER: &str = "work.picas.user_file";
const JSON: &str = "application/json";
/// CouchDB takes no document above 8 MB unless it is told to; a token's value must fit into a message, too.
const MAX_ANSWER: usize = MAX_BODY;

/// Why a call brought nothing; each names call and answer.
pub enum Miss {
    /// 404: no such document, view or database.
    Absent(String),
    /// 409: somebody has written the document since.
    Conflict(String),
    /// It will not work.
    Refused {
        /// What was answered.
        why: String,
        /// 401 or 403: this machine is not wanted.
        banned: bool,
    },
    /// It may work later.
    Unsure {
        /// What was answered.
        why: String,
        /// Whether it may have worked all the same.
        sent: bool,
    },
}

impl Miss {
    /// As the worker is told.
    pub fn reply<T>(self) -> Reply<T> {
        match self {
            Self::Absent(why) => Reply::Absent(why),
            Self::Conflict(why) => Reply::Unsure { why, sent: false },
            Self::Refused { why, .. } => Reply::Refused(why),
            Self::Unsure { why, sent } => Reply::Unsure { why, sent },
        }
    }
}

/// A database of tokens.
#[derive(Debug)]
pub struct Database {
    client: Client,
    base: String,
    clock: Clock,
}

impl Database {
    /// Makes no call yet.
    ///
    /// # Errors
    /// When the site's URL, authorities and user do not fit together.
    pub fn new(picas: &Picas, credentials: &Credentials, pace: &Pace) -> Result<Self, SetupError> {
        let base = picas.url.get().trim_end_matches('/');
        let basic = credentials.get(USER).map(login::basic).transpose();
        let basic = basic.map_err(|why| SetupError::BadLogin { key: USER, why })?;
        let login = Login { basic, ..Login::default() };
        Ok(Self {
            client: Client::with_login(CA, base, credentials.get(CA), login, pace.connect, pace.call)?,
            base: format!("{base}/{}", encode(picas.database.get())),
            clock: Clock::default(),
        })
    }

    /// For a `lock` or a `done`: unix seconds.
    pub fn stamp(&self) -> i64 {
        self.clock.stamp(now())
    }

    /// Where a document is, for messages.
    pub fn place(&self, id: &str) -> String {
        format!("{}/{}", self.base, encode(id))
    }

    /// The rows of a view. `query` begins with a `?`.
    ///
    /// # Errors
    /// Those of the call, and an answer that is none of a view.
    pub fn view(&mut self, design: &str, view: &str, query: &str, limit: Duration) -> Result<Vec<Row>, Miss> {
        let url = format!("{}/_design/{}/_view/{}{query}", self.base, encode(design), encode(view));
        let (bytes, place) = self.call(Request::get(url), None, &[200], limit)?;
        answer::rows(&bytes).map_err(|error| nonsense(&place, &error))
    }

    /// A document, as it is now.
    ///
    /// # Errors
    /// Those of the call, and an answer that is no document.
    pub fn get(&mut self, id: &str, limit: Duration) -> Result<Document, Miss> {
        let (bytes, place) = self.call(Request::get(self.place(id)), None, &[200], limit)?;
        let document = Document::parse(&bytes).map_err(|error| nonsense(&place, &error))?;
        match (document.id(), document.rev()) {
            (Some(found), Some(_)) if found == id => Ok(document),
            _ => Err(nonsense(&place, &"not the document that was asked for")),
        }
    }

    /// Writes a document unless somebody has since it was read, and gives it its new revision.
    ///
    /// # Errors
    /// Those of the call.
    pub fn put(&mut self, id: &str, document: &mut Document, limit: Duration) -> Result<(), Miss> {
        let url = self.place(id);
        let body = document.bytes().map_err(|error| nonsense(&Place::of(&Request::put(&*url)), &error))?;
        let request = Request::put(url).header(header::CONTENT_TYPE, JSON);
        document.set_rev(&self.save(request, &body, limit)?);
        Ok(())
    }

    /// Attaches a result to revision `rev` of a document. As a call of its own, so that it is neither encoded nor bound to
    /// the size of documents.
    ///
    /// # Errors
    /// Those of the call.
    pub fn attach(&mut self, id: &str, rev: &str, result: &[u8], limit: Duration) -> Result<(), Miss> {
        let url = format!("{}/{RESULT}?rev={}", self.place(id), encode(rev));
        let request = Request::put(url).header(header::CONTENT_TYPE, "application/octet-stream");
        self.save(request, result, limit).map(|_| ())
    }

    /// 201 alone is on a majority of disks. 202 of a cluster is not: it may be forgotten, so it is not believed.
    fn save(&mut self, request: Builder, body: &[u8], limit: Duration) -> Result<String, Miss> {
        let (bytes, place) = self.call(request, Some(body), &[201], limit)?;
        answer::rev(&bytes).map_err(|error| Miss::Unsure { why: place.with(&error), sent: true })
    }

    fn call(
        &mut self,
        request: Builder,
        body: Option<&[u8]>,
        done: &[u16],
        limit: Duration,
    ) -> Result<(Vec<u8>, Place), Miss> {
        let place = Place::of(&request);
        let answer = self.client.answer(request.header(header::ACCEPT, JSON), body, limit);
        let answer = answer.map_err(|Failure { why, sent }| Miss::Unsure { why, sent })?;
        self.look_at_clock(&answer);
        let status = answer.status().as_u16();
        let worked = match (status, reading(status, done)) {
            (202, _) => Status::Unsure,
            (_, reading) => reading,
        };
        if worked == Status::Done {
            let mut bytes = Vec::new();
            return match answer.into_body().into_reader().take(MAX_ANSWER as u64 + 1).read_to_end(&mut bytes) {
                Err(error) => Err(Miss::Unsure { why: place.with(&error), sent: true }),
                Ok(size) if size > MAX_ANSWER => Err(nonsense(&place, &format!("more than {MAX_ANSWER} bytes"))),
                Ok(_) => Ok((bytes, place)),
            };
        }
        let why = place.with(&format!("{status}{}", reason(answer)));
        Err(match worked {
            Status::Absent => Miss::Absent(why),
            Status::Unsure => Miss::Unsure { why, sent: true },
            _ if status == 409 => Miss::Conflict(why),
            _ => Miss::Refused { why, banned: matches!(status, 401 | 403) },
        })
    }

    fn look_at_clock(&mut self, answer: &Response<Body>) {
        let date = answer.headers().get(header::DATE).and_then(|date| answer::http_date(date.to_str().ok()?));
        if let Some(warning) = date.and_then(|date| self.clock.compare(date, now())) {
            log::warn!("worker: {}: {warning}", self.base);
        }
    }
}

/// The calls that this machine made are right, so it is the server that is not.
fn nonsense(place: &Place, what: &impl std::fmt::Display) -> Miss {
    Miss::Refused { why: place.with(what), banned: false }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// What CouchDB says of an error, for a message.
fn reason(answer: Response<Body>) -> String {
    #[derive(serde::Deserialize)]
    struct Error {
        reason: String,
    }
    let mut bytes = Vec::new();
    let read = answer.into_body().into_reader().take(4096).read_to_end(&mut bytes);
    let error = read.ok().and_then(|_| serde_json::from_slice::<Error>(&bytes).ok());
    error.map_or(String::new(), |error| format!(": {}", printable(&error.reason).chars().take(100).collect::<String>()))
}
