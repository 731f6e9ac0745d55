//! Where results go: a pool of the same server, a URL, or a directory.

use std::path::Path;
use std::time::Duration;

use ureq::http::{Request, Uri, header};

use super::answer::{self, Row};
use super::directory::Directory;
use super::{JSON, TEXT};
use crate::context::topos;
use crate::work::call::Place;
use crate::work::http::{Client, SetupError};
use crate::work::login::Login;
use crate::work::source::Reply;
use crate::work::{Identity, Pace};

const BYTES: &str = "application/octet-stream";
/// What an HTTP server says of a PUT that is done: 202 would mean "not yet", and the token is deleted next.
const PUT: [u16; 3] = [200, 201, 204];

/// An open place of results.
#[derive(Debug)]
pub enum Results {
    /// The pool's URL, with a `/` behind it.
    Pool(String),
    /// Another server; its base, without a `/` behind it.
    Url(Client, String),
    /// A mounted file system.
    Directory(Directory),
}

impl Results {
    /// Makes no call yet. `server` is the token server, `login` what it is shown.
    ///
    /// # Errors
    /// A URL and authorities that do not fit together.
    pub fn new(
        results: &topos::Results,
        server: &str,
        ca: Option<&[u8]>,
        login: &Login,
        identity: &Identity,
        pace: &Pace,
    ) -> Result<Self, SetupError> {
        Ok(match results {
            topos::Results::Pool(pool) => Self::Pool(format!("{server}/pools/{pool}/")),
            topos::Results::Url(url) => {
                let base = url.get().trim_end_matches('/').to_owned();
                // A certificate tells nothing that could be used again; a password is for its own server alone.
                let login = Login {
                    basic: login.basic.clone().filter(|_| origin(&base) == origin(server)),
                    certificate: login.certificate.clone().filter(|_| base.starts_with("https:")),
                };
                Self::Url(Client::with_login("work.topos.ca", &base, ca, login, pace.connect, pace.call)?, base)
            }
            topos::Results::Directory(path) => {
                let who = format!("{}-{}", identity.vm_uuid, identity.slot);
                Self::Directory(Directory::new(Path::new(path.get()), &who))
            }
        })
    }

    /// Where a result of this name lies, for a message.
    pub fn place(&self, name: &str) -> String {
        match self {
            Self::Pool(_) => name.to_owned(),
            Self::Url(_, base) => format!("{base}/{name}"),
            Self::Directory(directory) => directory.place(name),
        }
    }

    /// Whether a result could be stored now, as far as that is known without a call.
    pub fn ready(&self) -> Reply {
        match self {
            Self::Directory(directory) => directory.ready(),
            Self::Pool(_) | Self::Url(..) => Reply::Done(()),
        }
    }

    /// Stores a result under this name. `client` is that of the token server.
    pub fn store(&self, client: &Client, name: &str, result: &[u8], limit: Duration) -> Reply {
        match self {
            Self::Pool(pool) => {
                let request = Request::put(format!("{pool}nextToken"))
                    .header(header::ACCEPT, TEXT)
                    .header(header::CONTENT_TYPE, BYTES)
                    .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""));
                client.plain(request, Some(result), &[201], limit)
            }
            Self::Url(client, base) => {
                let request = Request::put(format!("{base}/{name}")).header(header::CONTENT_TYPE, BYTES);
                client.plain(request, Some(result), &PUT, limit)
            }
            Self::Directory(directory) => directory.store(name, result),
        }
    }

    /// Whether it is there.
    pub fn stored(&self, client: &Client, name: &str, result: &[u8], limit: Duration) -> Reply<bool> {
        match self {
            Self::Pool(pool) => {
                let mut found = false;
                let each = |row: Row| found |= row.name.as_deref() == Some(name);
                listing(client, &format!("{pool}tokens/"), each, limit).map(|()| found)
            }
            Self::Url(client, base) => {
                let request = Request::head(format!("{base}/{name}"));
                let (answer, _) = match client.expect(request, None, &[200], limit) {
                    Ok(done) => done,
                    Err(Reply::Absent(_)) => return Reply::Done(false),
                    Err(reply) => return reply,
                };
                // A server may keep what it got of a PUT that broke off.
                let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
                Reply::Done(length.and_then(|length| length.parse().ok()) == Some(result.len()))
            }
            Self::Directory(directory) => directory.has(name, result),
        }
    }
}

/// Goes through a JSON listing.
pub fn listing<T: serde::de::DeserializeOwned>(
    client: &Client,
    url: &str,
    each: impl FnMut(T),
    limit: Duration,
) -> Reply {
    let request = Request::get(url).header(header::ACCEPT, JSON);
    let (answer, failed): (_, Place) = match client.expect(request, None, &[200], limit) {
        Ok(done) => done,
        Err(reply) => return reply,
    };
    match answer::listing(answer.into_body().into_reader(), each) {
        Ok(()) => Reply::Done(()),
        Err(error) if error.is_io() => Reply::Unsure { why: failed.with(&error), sent: true },
        Err(error) => Reply::Refused(failed.with(&format!("not a listing in JSON: {error}"))),
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_for_its_own_server() {
        let same = ["https://h/4.1", "https://H:443/dav", "https://h"];
        assert!(same.iter().all(|url| origin(url) == origin("https://h/4.1")));
        let others = ["http://h/4.1", "https://h:8443/4.1", "https://h2/4.1", "https://h.example/4.1"];
        assert!(others.iter().all(|url| origin(url) != origin("https://h/4.1")));
    }
}
