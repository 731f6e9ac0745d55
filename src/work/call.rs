//! One call of a server, and what its status means: the same for every protocol on HTTP.

use std::time::Duration;

use thiserror::Error;
use ureq::Body;
use ureq::http::request::Builder;
use ureq::http::{HeaderValue, Method, Response, Version, header};

use super::http::Client;
use super::source::Reply;

/// What a status means for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The call's own success.
    Done,
    /// 404.
    Absent,
    /// It may work later; it may even have worked now.
    Unsure,
    /// It will not work.
    Refused,
}

/// Reads the status of a call that succeeds with one of `done`.
pub fn reading(status: u16, done: &[u16]) -> Status {
    match status {
        _ if done.contains(&status) => Status::Done,
        404 => Status::Absent,
        // Request timeout and too many requests: statuses of proxies in front of the server.
        408 | 429 | 500.. => Status::Unsure,
        _ => Status::Refused,
    }
}

/// A call without an answer.
pub struct Failure {
    /// Names call and error.
    pub why: String,
    /// Whether the server may have seen it.
    pub sent: bool,
}

impl Client {
    /// A call whose body is of no interest.
    pub fn plain(&self, request: Builder, body: Option<&[u8]>, done: &[u16], limit: Duration) -> Reply {
        match self.expect(request, body, done, limit) {
            Ok(_) => Reply::Done(()),
            Err(reply) => reply,
        }
    }

    /// The answer, if its status is one of `done`.
    ///
    /// # Errors
    /// What else came of the call.
    pub fn expect<T>(
        &self,
        request: Builder,
        body: Option<&[u8]>,
        done: &[u16],
        limit: Duration,
    ) -> Result<(Response<Body>, Place), Reply<T>> {
        let place = Place::of(&request);
        let answer = self.answer(request, body, limit).map_err(|Failure { why, sent }| Reply::Unsure { why, sent })?;
        let status = answer.status().as_u16();
        match reading(status, done) {
            Status::Done => Ok((answer, place)),
            Status::Absent => Err(Reply::Absent(place.with(&status))),
            Status::Unsure => Err(Reply::Unsure { why: place.with(&status), sent: true }),
            Status::Refused => Err(Reply::Refused(place.with(&status))),
        }
    }

    /// The answer, whatever its status.
    ///
    /// # Errors
    /// There is none.
    pub fn answer(&self, request: Builder, body: Option<&[u8]>, limit: Duration) -> Result<Response<Body>, Failure> {
        let place = Place::of(&request);
        let request = request.body(body).map_err(|error| Failure { why: place.with(&error), sent: false })?;
        let answer = self.call(request, limit);
        answer.map_err(|error| Failure { why: place.with(&error), sent: error.sent() })
    }
}

/// Method and URL of a call, without the query, for error messages.
pub struct Place(String);

impl Place {
    /// Before the request is made.
    pub fn of(request: &Builder) -> Self {
        let method = request.method_ref().unwrap_or(&Method::GET);
        let url = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        Self(format!("{method} {}", url.split('?').next().unwrap_or_default()))
    }

    /// With what went wrong there.
    pub fn with(&self, what: &impl std::fmt::Display) -> String {
        format!("{}: {what}", self.0)
    }
}

/// Why a body is not what the server has, although it can be read to its end.
#[derive(Debug, Error)]
pub enum Garbled {
    /// `Accept-Encoding: identity` was sent; the bytes of a proxy that packs all the same are not the server's.
    #[error("Content-Encoding {0:?}, which nobody asked for")]
    Packed(String),
    /// What only the connection's end ends may have lost its last bytes, and still look whole.
    #[error("the answer does not say how long it is; it may be cut off")]
    Unmeasured,
}

/// Whether the body can be believed, once it is read to its end.
///
/// # Errors
/// It cannot.
pub fn believable(answer: &Response<Body>) -> Result<(), Garbled> {
    let coding = answer.headers().get(header::CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(coding) = coding.filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Garbled::Packed(coding.into_owned()));
    }
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    let chunked =
        answer.version() == Version::HTTP_11 && answer.headers().get_all(header::TRANSFER_ENCODING).iter().any(chunked);
    if chunked || answer.headers().contains_key(header::CONTENT_LENGTH) { Ok(()) } else { Err(Garbled::Unmeasured) }
}

/// Percent-encodes all but RFC 3986's unreserved characters, for one value of a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_calls() {
        let cases: [(u16, &[u16], Status); 10] = [
            (200, &[200], Status::Done),
            (200, &[201], Status::Refused),
            (201, &[201], Status::Done),
            (204, &[200, 201, 204], Status::Done),
            (404, &[200], Status::Absent),
            (500, &[200], Status::Unsure),
            (503, &[200], Status::Unsure),
            (429, &[200], Status::Unsure),
            (301, &[200], Status::Refused),
            (403, &[200], Status::Refused),
        ];
        for (status, done, expected) in cases {
            assert_eq!(reading(status, done), expected, "{status} for {done:?}");
        }
    }

    #[test]
    fn descriptions_travel_encoded() {
        assert_eq!(encode("wn-1.example.org/a b&c=d/\u{e9}"), "wn-1.example.org%2Fa%20b%26c%3Dd%2F%C3%A9");
    }
}
