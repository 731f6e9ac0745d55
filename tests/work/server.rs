//! A small token pool that can be told to misbehave: one token, one lock, a pool of results.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a ToPoS says in every error, whatever was accepted.
pub const XHTML: &str = "<?xml version=\"1.0\"?><html><body><pre id=\"message\">no</pre></body></html>";

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What the call is for.
    pub fn kind(&self) -> &'static str {
        let path = self.path.split('?').next().unwrap();
        let bases = ["/4.1/", "/4/", "/3/realms/r/"];
        let Some(path) = bases.iter().find_map(|base| path.strip_prefix(base)) else {
            return match (self.method.as_str(), path) {
                ("PUT", "/dav/mc.17") => "put",
                ("HEAD", "/dav/mc.17") => "head",
                _ => "nonsense",
            };
        };
        // In version 3 locks are the realm's.
        let locks = if self.is_version_3() { "locks/" } else { "pools/mc/locks/" };
        match (self.method.as_str(), path) {
            ("GET", "pools/mc/nextToken") => "next",
            ("GET", "pools/mc/locks/") => "locks",
            ("GET", "pools/mc.out/tokens/") => "results",
            ("PUT", "pools/mc.out/nextToken") => "store",
            ("GET", path) if path.starts_with("pools/mc/tokens/") => "token",
            ("DELETE", path) if path.starts_with("pools/mc/tokens/") => "delete",
            ("GET", path) if path.starts_with(locks) => "renew",
            ("DELETE", path) if path.starts_with(locks) => "release",
            ("POST", "pools/mc.failed/tokens/") => "move",
            ("GET", "pools/mc.failed/tokens/17") => "moved",
            _ => "nonsense",
        }
    }

    fn is_version_3(&self) -> bool {
        self.path.starts_with("/3/")
    }
}

/// How a call goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// It does not.
    Honest,
    /// Not done; this status and these headers, with XHTML.
    Says(u16, &'static str),
    /// Not done; the connection is closed.
    Drops,
    /// Done; the connection is closed before the answer.
    DoesThenDrops,
    /// Done; answered 500 all the same.
    DoesThenSays500,
    /// Done; no answer for this long.
    DoesThenStalls(Duration),
    /// Not done; these bytes.
    Raw(Vec<u8>),
    /// Not done; the first bytes, then the second again and again with this pause, until the client has gone.
    Endless(Vec<u8>, Vec<u8>, Duration),
    /// Done; the answer is put into bytes by this, and the connection stays open for that long.
    Renders(Render, Duration),
}

/// Status, header lines, body.
pub type Render = fn(u16, &str, &[u8]) -> Vec<u8>;

/// Told the request and how many of its kind came before.
pub type Script = Box<dyn FnMut(&Request, usize) -> Fault + Send>;

#[derive(Default)]
pub struct Pool {
    pub token: Option<Vec<u8>>,
    pub lock: Option<String>,
    pub renewed_since_store: bool,
    pub results: Vec<(String, Vec<u8>)>,
    pub wants_results: bool,
    /// Tokens that were moved to the pool of failed ones.
    pub failed: Vec<Vec<u8>>,
    /// More rows for the listing of locks, as JSON.
    pub other_locks: String,
    pub released: Vec<String>,
    pub journal: Vec<String>,
    pub requests: Vec<Request>,
    pub offences: Vec<String>,
}

pub const UUID: &str = "6ccd780c-baba-1026-9564-5b8c656024db";

pub struct Server {
    pub address: SocketAddr,
    pub pool: Arc<Mutex<Pool>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(pool: Pool, script: Script, tls: bool) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), pool, script, tls)
    }

    pub fn start_at(address: SocketAddr, pool: Pool, script: Script, tls: bool) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (pool, script) = (Arc::new(Mutex::new(pool)), Arc::new(Mutex::new(script)));
        let stop = Arc::new(AtomicBool::new(false));
        let tls = tls.then(tls_config);
        let (shared, ended) = (pool.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, pool, script, tls) = (stream.unwrap(), shared.clone(), script.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &pool, &script),
                    Some(config) => {
                        serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &pool, &script)
                    }
                });
            }
        });
        Self { address, pool, stop }
    }

    /// From now on connections are refused.
    pub fn shut(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        while TcpStream::connect(self.address).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut();
    }
}

fn tls_config() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("../fixtures/tls/server.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../fixtures/tls/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn serve(stream: impl Read + Write, pool: &Mutex<Pool>, script: &Mutex<Script>) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream) else { return };
    let kind = request.kind();
    let fault = {
        let seen = pool.lock().unwrap().requests.iter().filter(|request| request.kind() == kind).count();
        (script.lock().unwrap())(&request, seen)
    };
    let (status, headers, body) = {
        let mut pool = pool.lock().unwrap();
        pool.requests.push(request.clone());
        let does = !matches!(fault, Fault::Says(..) | Fault::Drops | Fault::Raw(_) | Fault::Endless(..));
        let honest = if does { pool.act(&request) } else { (0, String::new(), Vec::new()) };
        let answer = match &fault {
            Fault::Says(status, headers) => (*status, (*headers).to_owned(), XHTML.into()),
            Fault::DoesThenSays500 => (500, String::new(), XHTML.into()),
            _ => honest,
        };
        let word = match &fault {
            Fault::Drops | Fault::DoesThenDrops => "dropped".to_owned(),
            Fault::DoesThenStalls(_) => "stalled".to_owned(),
            Fault::Raw(_) | Fault::Endless(..) => "raw".to_owned(),
            _ => answer.0.to_string(),
        };
        pool.journal.push(format!("{kind} {word}"));
        answer
    };
    let stream = stream.get_mut();
    match fault {
        Fault::Drops | Fault::DoesThenDrops => {}
        Fault::Raw(bytes) => drop(stream.write_all(&bytes)),
        Fault::Endless(first, again, pause) => {
            let mut whole = stream.write_all(&first);
            while whole.is_ok() {
                std::thread::sleep(pause);
                whole = stream.write_all(&again);
            }
        }
        Fault::Renders(render, open) => {
            let _ = stream.write_all(&render(status, &headers, &body));
            let _ = stream.flush();
            std::thread::sleep(open);
        }
        fault => {
            if let Fault::DoesThenStalls(time) = fault {
                std::thread::sleep(time);
            }
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
            if request.method != "HEAD" {
                let _ = stream.write_all(&body);
            }
        }
    }
    let _ = stream.flush();
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request =
        Request { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

type Answer = (u16, String, Vec<u8>);

impl Pool {
    pub fn with_token(body: &[u8]) -> Self {
        Self { token: Some(body.to_owned()), wants_results: true, ..Self::default() }
    }

    /// What an honest server does.
    fn act(&mut self, request: &Request) -> Answer {
        let say = |status: u16| (status, "Content-Type: application/xhtml+xml\r\n".to_owned(), XHTML.into());
        let path = request.path.split('?').next().unwrap();
        let locked = path.ends_with(UUID) && self.lock.is_some();
        match request.kind() {
            "next" if self.token.is_some() && self.lock.is_none() => {
                self.lock = Some(decode(request.path.split("description=").nth(1).unwrap_or_default()));
                let name = if request.is_version_3() { "Topos-LockURL" } else { "X-Topos-LockURL" };
                let lock = format!("{name}: http://elsewhere.example/4.1/pools/mc/locks/{UUID}\r\n");
                let location = "Location: http://elsewhere.example/4.1/pools/mc/tokens/17\r\n";
                (303, format!("{lock}{location}"), b"http://elsewhere.example/4.1/pools/mc/tokens/17".into())
            }
            "token" => match &self.token {
                Some(body) => {
                    let headers = "Content-Type: text/x-seed\r\nX-Number-Of-Leases: 3\r\n";
                    (200, headers.to_owned(), body.clone())
                }
                None => say(404),
            },
            "renew" if locked => {
                self.renewed_since_store = true;
                say(200)
            }
            "release" => {
                self.released.push(path.rsplit('/').next().unwrap().to_owned());
                if locked {
                    self.lock = None;
                }
                say(if locked || !path.ends_with(UUID) { 200 } else { 404 })
            }
            "store" => {
                let disposition = request.header("content-disposition").unwrap();
                let name = disposition.split('"').nth(1).unwrap().to_owned();
                self.results.push((name, request.body.clone()));
                self.renewed_since_store = false;
                (201, String::new(), Vec::new())
            }
            "put" => {
                self.results.push(("mc.17".to_owned(), request.body.clone()));
                self.renewed_since_store = false;
                (201, String::new(), Vec::new())
            }
            "head" => match self.results.last() {
                Some((_, body)) => (200, String::new(), body.clone()),
                None => say(404),
            },
            "results" if self.results.is_empty() => (200, String::new(), b"null".into()),
            "results" => {
                let row = |(name, _): &(String, Vec<u8>)| format!("{{\"Name\": \"9\", \"Original Name\": \"{name}\"}}");
                let rows: Vec<_> = self.results.iter().map(row).collect();
                (200, String::new(), format!("[{}]", rows.join(",")).into())
            }
            "locks" => {
                let own =
                    self.lock.as_ref().map(|own| format!("{{\"Name\": \"{UUID}\", \"LockDescription\": \"{own}\"}}"));
                let rows: Vec<_> =
                    own.into_iter().chain((!self.other_locks.is_empty()).then(|| self.other_locks.clone())).collect();
                (
                    200,
                    String::new(),
                    if rows.is_empty() { "null".into() } else { format!("[{}]", rows.join(",")).into() },
                )
            }
            "move" => {
                // "If `tokens` is absent or holds no digit, the whole source pool moves".
                if request.body != b"pool=mc&tokens=17" {
                    self.offences.push(format!("moved {:?}", String::from_utf8_lossy(&request.body)));
                }
                if self.token.is_some() && self.lock.is_none() {
                    self.offences.push("moved without a lock".to_owned());
                }
                self.failed.extend(self.token.take());
                say(200)
            }
            "moved" => say(if self.failed.is_empty() { 404 } else { 200 }),
            "delete" => {
                // The rules of a completion, checked where it counts.
                if self.wants_results && self.results.is_empty() {
                    self.offences.push("deleted before its result was stored".to_owned());
                }
                if self.lock.is_none() && self.token.is_some() {
                    self.offences.push("deleted without a lock".to_owned());
                }
                if !self.renewed_since_store {
                    self.offences.push("deleted without proof of the lock".to_owned());
                }
                let there = self.token.take().is_some();
                self.lock = None;
                say(if there { 200 } else { 404 })
            }
            _ => say(404),
        }
    }
}

fn decode(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        out.push(char::from(u8::from_str_radix(&after[..2], 16).unwrap()));
        rest = &after[2..];
    }
    out + rest
}
