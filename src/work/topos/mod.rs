//! A ToPoS token pool as a source of work: its calls, one function each.
//!
//! Every URL is built from the configured base; what a server says about its own name is not used. Versions 4 and 4.1
//! are the same here. In version 3 the locks are the realm's, and have no description: what a claim locked whose answer
//! was lost stays locked until it runs out.

mod answer;
mod directory;
mod results;

use std::io::Read;
use std::time::Duration;

use ureq::http::request::Builder;
use ureq::http::{Request, header};

use self::answer::Lock;
use self::results::Results;
use super::call::{self, Failure, Garbled, Place};
use super::http::{Client, SetupError};
use super::login::{self, Login};
use super::source::{Claim, Fetched, Held, Reply, Source, Value};
use super::{Credentials, Identity, Pace};
use crate::ban::owner::Owner;
use crate::clock::Deadline;
use crate::context::topos::{Topos, Version};
use crate::protocol::channel::MAX_BODY;

const CA: &str = "work.topos.ca";
const USER: &str = "work.topos.user_file";
const CERTIFICATE: &str = "work.topos.certificate";
const KEY: &str = "work.topos.key";
const PROXY: &str = "work.topos.proxy";

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";
/// More locks than this machine can ever have left; a server may list as many as it likes.
const MAX_LEFT: usize = 1000;
const FORM: &str = "application/x-www-form-urlencoded";

/// A pool, and where its results go.
#[derive(Debug)]
pub struct Pool {
    client: Client,
    version: Version,
    base: String,
    pool: String,
    results: Option<Results>,
    lock_secs: u64,
    lease_limit: u32,
    identity: Identity,
    /// As long as a claim whose answer was lost may hold a token: its lock, counted from when it may have arrived.
    stray: Duration,
    /// Until then one does.
    astray: Option<Deadline>,
}

impl Pool {
    /// Makes no call yet. The lock is rounded down to seconds.
    ///
    /// # Errors
    /// When the site's URL, authorities and login do not fit together.
    pub fn new(topos: &Topos, credentials: &Credentials, identity: Identity, pace: &Pace) -> Result<Self, SetupError> {
        let version = topos.version().map_err(|why| SetupError::BadUrl { key: "work.topos.url", why })?;
        let base = topos.url.get().trim_end_matches('/').to_owned();
        let ca = credentials.get(CA);
        let login = login(credentials)?;
        let results = topos.results.as_ref();
        let results = results.map(|results| Results::new(results, &base, ca, &login, &identity, pace)).transpose()?;
        Ok(Self {
            client: Client::with_login(CA, &base, ca, login, pace.connect, pace.call)?,
            version,
            base,
            pool: topos.pool.to_string(),
            results,
            lock_secs: pace.lock.as_secs(),
            lease_limit: *topos.lease_limit.get(),
            identity,
            stray: pace.lock + pace.call,
            astray: None,
        })
    }

    /// The name that a token's result is stored under; unique, as ids are one counter over all pools.
    fn result_name(&self, id: &str) -> String {
        format!("{}.{id}", self.pool)
    }

    fn failed_pool(&self) -> String {
        format!("{}.failed", self.pool)
    }

    fn url(&self, pool: &str, rest: &str) -> String {
        format!("{}/pools/{pool}/{rest}", self.base)
    }

    fn lock(&self, lock: &str) -> String {
        match self.version {
            Version::Three => format!("{}/locks/{lock}", self.base),
            Version::Four => self.url(&self.pool, &format!("locks/{lock}")),
        }
    }

    fn token(&self, pool: &str, id: &str) -> String {
        self.url(pool, &format!("tokens/{id}"))
    }

    /// The locks of the pool that `ours` takes, all of whose descriptions begin with `prefix`. A server that does not know
    /// the parameter lists all there are.
    fn locks(&self, prefix: &str, ours: fn(Lock, &Identity) -> Option<Held>, limit: Duration) -> Reply<Vec<Held>> {
        if self.version == Version::Three {
            return Reply::Refused("version 3 of the protocol does not tell whose a lock is".to_owned());
        }
        let url = self.url(&self.pool, &format!("locks/?description={}", call::encode(prefix)));
        let mut all = Vec::new();
        let each = |lock: Lock| all.extend(ours(lock, &self.identity).filter(|_| all.len() < MAX_LEFT));
        results::listing(&self.client, &url, each, limit).map(|()| all)
    }
}

/// From the files that the site names.
fn login(credentials: &Credentials) -> Result<Login, SetupError> {
    let bad = |key: &'static str| move |why| SetupError::BadLogin { key, why };
    let basic = credentials.get(USER).map(|file| login::basic(file).map_err(bad(USER))).transpose()?;
    let certificate = match (credentials.get(PROXY), credentials.get(CERTIFICATE), credentials.get(KEY)) {
        (Some(proxy), _, _) => Some(login::certificate(proxy, proxy).map_err(bad(PROXY))?),
        (None, Some(chain), Some(key)) => Some(login::certificate(chain, key).map_err(bad(CERTIFICATE))?),
        _ => None,
    };
    Ok(Login { basic, certificate })
}

impl Source for Pool {
    fn recover(&mut self, limit: Duration) -> Reply<Vec<Held>> {
        self.locks(&self.identity.machine(), answer::left, limit)
    }

    fn astray(&self) -> bool {
        self.astray.is_some_and(|until| !until.passed())
    }

    fn strays(&mut self, limit: Duration) -> Reply<Vec<Held>> {
        let found = self.locks(&self.identity.owner(), answer::own, limit);
        if matches!(found, Reply::Absent(_) | Reply::Refused(_)) {
            self.astray = None;
        }
        found
    }

    fn claim(&mut self, limit: Duration) -> Claim {
        match self.results.as_ref().map_or(Reply::Done(()), Results::ready) {
            Reply::Done(()) => {}
            Reply::Unsure { why, .. } => return Claim::Unsure { why: format!("results: {why}") },
            Reply::Refused(why) | Reply::Absent(why) => {
                return Claim::Refused { why: format!("results: {why}"), broken: true };
            }
        }
        let mut query = format!("timeout={}", self.lock_secs);
        if self.version != Version::Three {
            query.push_str(&format!("&description={}", call::encode(&self.identity.owner())));
        }
        let url = self.url(&self.pool, "nextToken");
        let request = get(&format!("{url}?{query}"), TEXT);
        let place = Place::of(&request);
        let answer = match self.client.answer(request, None, limit) {
            Ok(answer) => answer,
            Err(Failure { why, sent }) => {
                if sent {
                    self.astray = Some(Deadline::after(self.stray));
                }
                return Claim::Unsure { why };
            }
        };
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let lock = match self.version {
            Version::Three => "topos-lockurl",
            Version::Four => "x-topos-lockurl",
        };
        match answer::claim(answer.status().as_u16(), header("location"), header(lock)) {
            Claim::Refused { why, broken } => Claim::Refused { why: place.with(&why), broken },
            Claim::Unsure { why } => {
                self.astray = Some(Deadline::after(self.stray));
                Claim::Unsure { why: place.with(&why) }
            }
            other => other,
        }
    }

    fn fetch(&mut self, held: &Held, limit: Duration) -> Reply<Fetched> {
        let request = get(&self.token(&self.pool, &held.id), "*/*");
        let (answer, failed) = match self.client.expect(request, None, &[200], limit) {
            Ok(done) => done,
            Err(reply) => return reply,
        };
        let too_large = |size: String| {
            let what = format!("{size} bytes, more than {MAX_BODY}");
            Reply::Done(Fetched::Unfit(failed.with(&what)))
        };
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let media_type = header("content-type").map(str::to_owned);
        // As bytes: what is no text is not the same as nothing.
        let owner = answer.headers().get("content-type");
        let owner = owner.map_or(Owner::Unknown, |value| Owner::of_media_type(value.as_bytes()));
        // Servers before 2012 do not send it.
        let leases = header("x-number-of-leases").and_then(|value| value.parse().ok());
        if let Some(size) = answer.body().content_length().filter(|size| *size > MAX_BODY as u64) {
            return too_large(size.to_string());
        }
        match call::believable(&answer) {
            Ok(()) => {}
            Err(error @ Garbled::Packed(_)) => return Reply::Refused(failed.with(&error)),
            Err(error @ Garbled::Unmeasured) => return Reply::Unsure { why: failed.with(&error), sent: true },
        }
        let mut body = Vec::new();
        match answer.into_body().into_reader().take(MAX_BODY as u64 + 1).read_to_end(&mut body) {
            Err(error) => Reply::Unsure { why: failed.with(&error), sent: true },
            Ok(size) if size > MAX_BODY => too_large(format!("at least {size}")),
            Ok(_) => Reply::Done(Fetched::Value(Value { body, media_type, owner, leases, pilot: false })),
        }
    }

    fn renew(&mut self, held: &Held, limit: Duration) -> Reply {
        let url = format!("{}?timeout={}", self.lock(&held.lock), self.lock_secs);
        self.client.plain(get(&url, TEXT), None, &[200], limit)
    }

    fn look(&mut self, held: &Held, limit: Duration) -> Reply {
        // GET, as HEAD is where this server's clients have hung; its body is left unread.
        self.client.plain(get(&self.token(&self.pool, &held.id), "*/*"), None, &[200], limit)
    }

    fn store(&mut self, held: &Held, result: &[u8], limit: Duration) -> Reply {
        let name = self.result_name(&held.id);
        let store = |results: &Results| results.store(&self.client, &name, result, limit);
        self.results.as_ref().map_or(Reply::Done(()), store)
    }

    fn stored(&mut self, held: &Held, result: &[u8], limit: Duration) -> Reply<bool> {
        let name = self.result_name(&held.id);
        let stored = |results: &Results| results.stored(&self.client, &name, result, limit);
        self.results.as_ref().map_or(Reply::Done(false), stored)
    }

    fn finish(&mut self, held: &Held, limit: Duration) -> Reply {
        // The server checks no lock here.
        self.client.plain(Request::delete(self.token(&self.pool, &held.id)), None, &[200], limit)
    }

    fn release(&mut self, held: &Held, _: &str, limit: Duration) -> Reply {
        self.client.plain(Request::delete(self.lock(&held.lock)), None, &[200], limit)
    }

    fn fail(&mut self, held: &Held, _: &str, limit: Duration) -> Reply {
        let Held { id, .. } = held;
        let failed = self.failed_pool();
        // Without an id in it, this form would move the whole pool.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Reply::Refused(format!("token {id:?} cannot be moved to {failed}: not a number"));
        }
        let form = format!("pool={}&tokens={id}", self.pool);
        let request = Request::post(self.url(&failed, "tokens/")).header(header::CONTENT_TYPE, FORM);
        let deadline = Deadline::after(limit);
        let moved = self.client.plain(request, Some(form.as_bytes()), &[200], limit);
        if !matches!(moved, Reply::Done(())) {
            return moved;
        }
        // It says 200 also where it moved none.
        match self.client.plain(get(&self.token(&failed, id), "*/*"), None, &[200], rest(deadline)) {
            Reply::Absent(why) => return Reply::Refused(why),
            Reply::Done(()) => {}
            unclear => return unclear,
        }
        // A lock goes with its token; who takes it from there need not wait for that to run out.
        let _ = self.client.plain(Request::delete(self.lock(&held.lock)), None, &[200], rest(deadline));
        Reply::Done(())
    }

    fn result_place(&self, held: &Held) -> Option<String> {
        self.results.as_ref().map(|results| results.place(&self.result_name(&held.id)))
    }

    fn failed_place(&self) -> String {
        format!("pool {}", self.failed_pool())
    }

    fn lease_limit(&self) -> u32 {
        self.lease_limit
    }
}

/// Never 0, which ureq takes for a second.
fn rest(deadline: Deadline) -> Duration {
    deadline.left().max(Duration::from_millis(1))
}

fn get(url: &str, accept: &str) -> Builder {
    Request::get(url).header(header::ACCEPT, accept)
}
