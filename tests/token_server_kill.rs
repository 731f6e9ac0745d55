//! `kill -9` of a token server, ten times, amid forty clients and ten thousand tokens: nothing is lost, nothing is
//! handed out twice while it is locked.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 40;
const TOKENS: usize = 10_000;
const KILLS: usize = 10;

#[test]
fn ten_kills_amid_forty_clients_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Not 127.0.0.1: a client that connects to a free port of its own address may reach itself.
    let address = TcpListener::bind("127.0.0.7:0").unwrap().local_addr().unwrap();
    let mut server = Some(start(dir.path(), address));
    let form = format!("ntokens={TOKENS}&offset=1");
    let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
    let filled = Connection::open(address).unwrap().ask("POST", "p/tokens/", kind, form.as_bytes()).unwrap();
    assert_eq!(filled.status, 202);

    let field = Field::default();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let field = &field;
            scope.spawn(move || {
                let ended = AtExit(&field.over);
                Client { number, claims: 0, address, field }.live();
                std::mem::forget(ended);
            });
        }
        for kill in 1..=KILLS {
            let due = kill * TOKENS / (KILLS + 1);
            while field.completed.load(Ordering::SeqCst) < due && !field.over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            server = None;
            server.get_or_insert_with(|| start(dir.path(), address));
        }
    });

    let mut connection = Connection::open(address).unwrap();
    assert_eq!(connection.list("p/tokens/"), [] as [Row; 0], "every token was completed");
    assert_eq!(connection.list("p/locks/"), [] as [Row; 0]);
    let results = connection.list("out/tokens/");
    let named: BTreeSet<String> = results.iter().map(|row| row["Original Name"].clone()).collect();
    assert_eq!(named, (1..=TOKENS).map(|token| format!("p.{token}")).collect(), "every token has a result");
    // A PUT whose answer the kill took is done again.
    let twice = results.len() - named.len();
    assert!(twice <= KILLS * CLIENTS, "{twice} results too many");
    drop(server);

    let db = rusqlite::Connection::open(dir.path().join("pools.sqlite")).unwrap();
    let one = |sql| db.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(one("PRAGMA integrity_check"), "ok");
    assert_eq!(one("SELECT count(*) || '' FROM contents WHERE token NOT IN (SELECT id FROM tokens)"), "0");
    assert_eq!(one("SELECT count(*) || '' FROM contents"), results.len().to_string());
}

type Row = BTreeMap<String, String>;

/// What all clients know together.
#[derive(Default)]
struct Field {
    /// Token and holder: from the answer to a claim until its DELETE is sent.
    held: Mutex<BTreeMap<u64, usize>>,
    completed: AtomicUsize,
    /// A client failed: no more waiting for its share.
    over: AtomicBool,
}

/// Says that a client failed, also by a panic.
struct AtExit<'a>(&'a AtomicBool);

impl Drop for AtExit<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Client<'a> {
    number: usize,
    claims: usize,
    address: SocketAddr,
    field: &'a Field,
}

impl Client<'_> {
    /// Works on tokens until there is none left, by the rules for a client that may lose any answer.
    fn live(mut self) {
        let mut connection = Connection::patient(self.address);
        while let Some((token, lock)) = self.claim(&mut connection) {
            let other = self.field.held.lock().unwrap().insert(token, self.number);
            assert_eq!(other, None, "token {token} was given to {} too", self.number);
            self.complete(&mut connection, token, &lock);
            self.field.completed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A token and its lock. Where the answer is lost, the lock is found by its description.
    fn claim(&mut self, connection: &mut Connection) -> Option<(u64, String)> {
        self.claims += 1;
        let description = format!("client-{}-{}", self.number, self.claims);
        let target = format!("p/nextToken?timeout=3600&description={description}");
        loop {
            match connection.ask("GET", &target, "Accept: text/plain\r\n", b"") {
                Ok(reply) if reply.status == 404 && self.nothing_left(connection) => return None,
                // What a client that failed holds comes back to nobody.
                Ok(reply) if reply.status == 404 && self.field.over.load(Ordering::SeqCst) => return None,
                // All that is left is locked; a lost claim of another may free it.
                Ok(reply) if reply.status == 404 => thread::sleep(Duration::from_millis(20)),
                Ok(reply) => {
                    assert_eq!(reply.status, 303, "{}", reply.body);
                    let lock = reply.lock.unwrap();
                    return Some((reply.body.rsplit('/').next().unwrap().parse().unwrap(), lock));
                }
                Err(_) => {
                    *connection = Connection::patient(self.address);
                    let locks = connection.list_patiently(self.address, "p/locks/");
                    if let Some(own) = locks.into_iter().find(|row| row["LockDescription"] == description) {
                        let info = connection.insist(self.address, "GET", &format!("p/locks/{}", own["Name"]), "", b"");
                        let id = info.body.lines().next().unwrap().strip_prefix("TokenId: ").unwrap().parse().unwrap();
                        return Some((id, own["Name"].clone()));
                    }
                }
            }
        }
    }

    fn nothing_left(&self, connection: &mut Connection) -> bool {
        connection.list_patiently(self.address, "p/tokens/").is_empty()
    }

    /// Result first, then proof of the lock, then the end of the token.
    fn complete(&self, connection: &mut Connection, token: u64, lock: &str) {
        let at = self.address;
        let name = format!("Content-Disposition: x; filename=\"p.{token}\"\r\n");
        assert_eq!(connection.insist(at, "PUT", "out/nextToken", &name, b"done").status, 201);
        let renewed = connection.insist(at, "GET", &format!("p/locks/{lock}?timeout=3600"), "", b"");
        assert_eq!(renewed.status, 200, "the lock on token {token} is lost");
        assert_eq!(self.field.held.lock().unwrap().remove(&token), Some(self.number));
        let tries = connection.tries;
        let deleted = connection.insist(at, "DELETE", &format!("p/tokens/{token}"), "", b"").status;
        // 404 only where an earlier try may have done it.
        assert!(deleted == 200 || deleted == 404 && connection.tries > tries + 1, "token {token} was gone: {deleted}");
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// Requests that `insist` sent.
    tries: usize,
}

struct Reply {
    status: u16,
    /// From `X-Topos-LockURL`.
    lock: Option<String>,
    body: String,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream: BufReader::new(stream), tries: 0 })
    }

    /// Until the server is back.
    fn patient(address: SocketAddr) -> Self {
        let began = Instant::now();
        loop {
            match Self::open(address) {
                Ok(connection) => return connection,
                Err(error) if began.elapsed() > Duration::from_secs(30) => panic!("the server is not back: {error}"),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Asks until there is an answer.
    fn insist(&mut self, address: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> Reply {
        let plain = format!("Accept: text/plain\r\n{headers}");
        loop {
            self.tries += 1;
            if let Ok(reply) = self.ask(method, target, &plain, body) {
                return reply;
            }
            self.stream = Self::patient(address).stream;
        }
    }

    fn list_patiently(&mut self, address: SocketAddr, target: &str) -> Vec<Row> {
        loop {
            if let Ok(reply) = self.ask("GET", target, "Accept: application/json\r\n", b"") {
                return rows(&reply);
            }
            self.stream = Self::patient(address).stream;
        }
    }

    fn list(&mut self, target: &str) -> Vec<Row> {
        rows(&self.ask("GET", target, "Accept: application/json\r\n", b"").unwrap())
    }

    fn ask(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Reply> {
        let length = body.len();
        let head =
            format!("{method} /4.1/pools/{target} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n");
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut reply = Reply { status: status.ok_or(ErrorKind::InvalidData)?, lock: None, body: String::new() };
        let mut length = 0;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name {
                "content-length" => length = value.parse().unwrap(),
                "x-topos-lockurl" => reply.lock = value.rsplit('/').next().map(str::to_owned),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        reply.body = String::from_utf8(body).unwrap();
        Ok(reply)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        // A line without its end is half an answer.
        match self.stream.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ if !line.ends_with("\r\n") => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

fn rows(reply: &Reply) -> Vec<Row> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    serde_json::from_str::<Option<Vec<Row>>>(&reply.body).unwrap().unwrap_or_default()
}

/// Dropping it is `kill -9`, also when the test fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns when it listens.
fn start(dir: &Path, address: SocketAddr) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
    command.args(["token-server", "--listen", &address.to_string(), "--dir"]).arg(dir);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with(&format!("token server: http://{address}/4.1 ")), "said {line:?}");
    Server(child)
}
