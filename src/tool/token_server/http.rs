//! HTTP: who answers which request. The answers are in `single.rs` and `directories.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::database::Database;
use super::directories::{delete_locks, delete_tokens, list_locks, list_pool, list_tokens, progress};
use super::log_line;
use super::metrics::{self, Metrics};
use super::page as web;
use super::pools::StoreError;
use super::random::{hex, random};
use super::reply::{Refusal, page, pointer, refuse, reply, set};
use super::request::{Format, PAGE, Params, Resource, best, resource, version};
use super::single::{delete_lock, delete_token, get_lock, get_token, next_token, put_token};
use super::uploads::post_tokens;
use super::users::Users;

/// The original called tokens of 10 MB critical; a body is held in memory whole.
const MAX_BODY: usize = 16 << 20;

/// For all of a body: the largest over a line of half a megabit a second.
const BODY_TIME: Duration = Duration::from_secs(300);

const LOCK_URL: HeaderName = HeaderName::from_static("x-topos-lockurl");
const LOCK_TOKEN: HeaderName = HeaderName::from_static("x-topos-opaquelocktoken");

pub(super) type Outcome = Result<Response, Refusal>;

pub(super) struct Server {
    pub(super) database: Database,
    pub(super) metrics: Metrics,
    /// Who may ask; anybody if there are none.
    pub(super) users: Option<Users>,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// For clients that say no `Host`.
    pub(super) address: SocketAddr,
    /// Whether each request is logged, not only those that failed through the server's fault.
    pub(super) verbose: bool,
    /// Whether anybody may know which pools there are.
    pub(super) list_pools: bool,
}

/// One request's life.
pub(super) async fn serve(server: &Server, peer: SocketAddr, request: Request) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let uri = request.uri().clone();
    let resource = resource(uri.path());
    let route = resource.as_ref().map_or("other", Resource::route);
    let outcome = match &server.users {
        Some(users) if !admitted(users, request.headers()).await => refuse(StatusCode::UNAUTHORIZED, "Who are you?"),
        _ if is_foreign(&request, resource.as_ref()) => refuse(
            StatusCode::FORBIDDEN,
            "A browser may only look here, lest another site's page acts in its user's name",
        ),
        _ => answer(server, peer, resource, request).await,
    };
    let mut response = outcome.unwrap_or_else(|refusal| {
        if refusal.0.is_server_error() {
            log_line(&format!("{peer} {method} {uri}: {}", refusal.1));
        }
        refusal.into_response()
    });
    if response.status() == StatusCode::UNAUTHORIZED {
        set(&mut response, header::WWW_AUTHENTICATE, "Basic realm=\"ToPoS\", charset=\"UTF-8\"");
    }
    // A squid between a site and this server must never answer for it.
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    server.metrics.count(route, method.as_str(), response.status().as_u16(), began.elapsed());
    if server.verbose {
        let millis = began.elapsed().as_millis();
        log_line(&format!("{peer} {method} {uri} {} {millis} ms", response.status().as_u16()));
    }
    response
}

async fn admitted(users: &Users, headers: &HeaderMap) -> bool {
    match headers.get(header::AUTHORIZATION) {
        Some(header) => users.admit(header.as_bytes()).await,
        None => false,
    }
}

/// Whether a browser may ask on behalf of another site's page, for more than a page to look at: the browser's user may
/// be inside a network that its page is not in, or logged in, and a mere GET takes a token here.
///
/// `Sec-Fetch-Site` tells, but comes over https and on the user's own machine alone; `Origin` comes with forms, from
/// anywhere. An image has neither over plain http, and looks as if its address had been typed.
fn is_foreign(request: &Request, resource: Option<&Resource>) -> bool {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_get = request.method() == Method::GET;
    if is_get && matches!(resource, Some(Resource::Root | Resource::Pools | Resource::Pool(_) | Resource::Unslashed)) {
        return false;
    }
    let host = header(header::HOST).unwrap_or_default();
    let is_own =
        |origin: &[u8]| origin.strip_prefix(b"http").is_some_and(|rest| rest.ends_with(&[b"://", host].concat()));
    if header(header::ORIGIN).is_some_and(|origin| !is_own(origin)) {
        return true;
    }
    match header(HeaderName::from_static("sec-fetch-site")) {
        Some(site) => !matches!(site, b"none" | b"same-origin"),
        None => {
            let changes = matches!(resource, Some(Resource::NextToken(_) | Resource::Lock(_)));
            changes && header(header::USER_AGENT).is_some_and(|agent| agent.starts_with(b"Mozilla/"))
        }
    }
}

/// A request, read.
pub(super) struct Ask<'a> {
    pub(super) server: &'a Server,
    /// Who asks.
    pub(super) peer: SocketAddr,
    pub(super) params: Params,
    pub(super) headers: HeaderMap,
    /// Path and query as they came.
    pub(super) uri: String,
    /// `http://host:port/4.1`.
    pub(super) base: String,
}

impl Ask<'_> {
    pub(super) fn header(&self, name: HeaderName) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    pub(super) fn accept(&self) -> String {
        self.header(header::ACCEPT).unwrap_or_default()
    }

    pub(super) fn token_url(&self, pool: &str, id: i64) -> String {
        format!("{}/pools/{pool}/tokens/{id}", self.base)
    }

    pub(super) fn set_lock(&self, response: &mut Response, pool: &str, uuid: &str) {
        set(response, LOCK_URL, &format!("{}/pools/{pool}/locks/{uuid}", self.base));
        set(response, LOCK_TOKEN, &format!("opaquelocktoken:{uuid}"));
    }
}

async fn answer(server: &Server, peer: SocketAddr, resource: Option<Resource>, request: Request) -> Outcome {
    let (parts, body) = request.into_parts();
    let Some(resource) = resource else {
        return refuse(StatusCode::NOT_FOUND, format!("There is no {}", parts.uri.path()));
    };
    let params = Params::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let host = host.unwrap_or_else(|| server.address.to_string());
    let ask = Ask {
        server,
        peer,
        base: format!("{}://{host}{}", server.scheme, version(parts.uri.path())),
        uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers,
        params,
    };
    let override_by = (parts.method == Method::POST).then(|| ask.params.text("http_method")).flatten();
    let method = override_by.unwrap_or_else(|| parts.method.to_string());
    // A HEAD does whatever the GET does, claims and renewals too; hyper leaves the body out.
    let verb = if method == "HEAD" { "GET" } else { method.as_str() };
    let mut outcome = match (verb, resource) {
        (_, Resource::Unslashed) => unslashed(&ask),
        ("GET", Resource::Pools) if server.list_pools => web::pools(&ask).await,
        (_, Resource::Pools) => refuse(StatusCode::FORBIDDEN, "The names of pools are not told"),
        ("GET", Resource::Metrics) => count(&ask).await,
        ("GET", Resource::Root) => root(),
        ("GET", Resource::NewPool) => new_pool(&ask),
        ("GET", Resource::NextToken(pool)) => next_token(&ask, pool.get()).await,
        ("PUT", Resource::NextToken(pool)) => put_token(&ask, pool.get(), body).await,
        ("GET", Resource::Token(pool, id)) => get_token(&ask, pool.get(), id).await,
        ("DELETE", Resource::Token(pool, id)) => delete_token(&ask, pool.get(), id).await,
        ("GET", Resource::Lock(uuid)) => get_lock(&ask, uuid).await,
        ("DELETE", Resource::Lock(uuid)) => delete_lock(&ask, uuid).await,
        ("GET", Resource::Locks(pool)) => list_locks(&ask, pool.get()).await,
        ("DELETE", Resource::Locks(pool)) => delete_locks(&ask, pool.get()).await,
        ("GET", Resource::Tokens(pool)) => list_tokens(&ask, pool.get()).await,
        ("POST", Resource::Tokens(pool)) => post_tokens(&ask, pool.get(), body).await,
        ("DELETE", Resource::Tokens(pool) | Resource::Pool(pool)) => delete_tokens(&ask, pool.get()).await,
        ("GET", Resource::Pool(pool)) if web::wanted(&ask.accept()) => web::pool(&ask, pool.get()).await,
        ("GET", Resource::Pool(pool)) => list_pool(&ask, pool.get()).await,
        ("GET", Resource::Progress(pool)) => progress(&ask, pool.get()).await,
        _ => refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {}", ask.uri)),
    };
    if let (true, Ok(response)) = (method == "HEAD" && parts.method == Method::POST, &mut outcome) {
        *response.body_mut() = Body::empty();
    }
    outcome
}

fn unslashed(ask: &Ask<'_>) -> Outcome {
    let (path, query) = ask.uri.split_once('?').map_or((ask.uri.as_str(), None), |(p, q)| (p, Some(q)));
    let root = ask.base.trim_end_matches(version(&ask.uri));
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{root}{path}/{query}");
    Ok(pointer(StatusCode::MOVED_PERMANENTLY, Format::Xhtml, "Moved permanently", &url))
}

fn root() -> Outcome {
    Ok(page(StatusCode::OK, "ToPoS 4.1", "<p>A token pool server. <a href=\"newPool\">New pool</a></p>"))
}

fn new_pool(ask: &Ask<'_>) -> Outcome {
    let name = hex(&random::<12>().map_err(StoreError::from)?);
    let url = format!("{}/pools/{name}/", ask.base);
    Ok(pointer(StatusCode::SEE_OTHER, best(&ask.accept(), PAGE), "New pool", &url))
}

/// Prometheus' page. A pool's name is all the protection that it has, so without users only this machine is told.
async fn count(ask: &Ask<'_>) -> Outcome {
    let told = ask.server.users.is_some() || ask.peer.ip().to_canonical().is_loopback();
    let limit = if told { metrics::MAX_POOLS } else { 0 };
    let census = ask.server.database.read(move |pools| pools.census(limit)).await?;
    let page = ask.server.metrics.page(&ask.server.database.commits, &census);
    Ok(reply(StatusCode::OK, metrics::KIND, page))
}

/// The whole body, unless it is too large or too slow.
pub(super) async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("More than {MAX_BODY} bytes"));
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Before any of it is read, so that the client is told while it can still hear.
    if said.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    let mut request = Request::new(body);
    DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
    let read = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, &())).await;
    let slow = || Refusal(StatusCode::REQUEST_TIMEOUT, format!("No whole body in {} s", BODY_TIME.as_secs()));
    read.map_err(|_| slow())?.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => Refusal(status, rejection.body_text()),
    })
}
