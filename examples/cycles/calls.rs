//! The calls of a worker for one token, each as fast as plain code makes it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Time spent in each call, in the worker's order.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    claim: Duration,
    read: Duration,
    store: Duration,
    renew: Duration,
    delete: Duration,
}

impl Spent {
    /// Each with its name.
    pub fn rows(&self) -> [(&'static str, Duration); 5] {
        [
            ("claim", self.claim),
            ("read", self.read),
            ("store", self.store),
            ("renew", self.renew),
            ("delete", self.delete),
        ]
    }

    /// What the worker does.
    pub fn all(&self) -> Duration {
        self.rows().iter().map(|(_, span)| *span).sum()
    }

    /// What nobody can do without who stores a result before the token is gone; the value would have to come with the
    /// claim, and the lock would be trusted unseen.
    pub fn least(&self) -> Duration {
        self.claim + self.store + self.delete
    }
}

/// A client of a pool.
pub struct Calls {
    host: String,
    pool: String,
    /// None between calls where each has its own.
    connection: Option<BufReader<TcpStream>>,
    keeps: bool,
    /// So far.
    pub spent: Spent,
}

struct Reply {
    status: u16,
    /// The ends of `Location` and `X-Topos-LockURL`.
    token: String,
    lock: String,
}

impl Calls {
    /// For `http://HOST/PATH` alone.
    pub fn new(url: &str, pool: &str, keeps: bool) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let (host, path) = rest.ok_or_else(|| format!("{url}: not http://HOST/PATH"))?;
        let pool = format!("/{path}/pools/{pool}");
        Ok(Self { host: host.to_owned(), pool, connection: None, keeps, spent: Spent::default() })
    }

    /// Adds tokens.
    pub fn fill(&mut self, count: u32) -> Result<(), String> {
        let form = format!("ntokens={count}&offset=1");
        let target = format!("{}/tokens/", self.pool);
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        self.expect("POST", &target, kind, form.as_bytes(), 202).map(drop)
    }

    /// One token from claim to delete.
    pub fn cycle(&mut self) -> Result<(), String> {
        let text = "Accept: text/plain\r\n";
        let pool = self.pool.clone();
        let mut last = Instant::now();
        let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
        let next = format!("{pool}/nextToken?timeout=300&description=bench");
        let Reply { token, lock, .. } = self.expect("GET", &next, text, b"", 303)?;
        self.spent.claim += lap();
        self.expect("GET", &format!("{pool}/tokens/{token}"), "", b"", 200)?;
        self.spent.read += lap();
        let kind = "Content-Type: application/octet-stream\r\n";
        self.expect("PUT", &format!("{pool}-results/nextToken"), kind, b"", 201)?;
        self.spent.store += lap();
        self.expect("GET", &format!("{pool}/locks/{lock}?timeout=300"), text, b"", 200)?;
        self.spent.renew += lap();
        self.expect("DELETE", &format!("{pool}/tokens/{token}"), "", b"", 200)?;
        self.spent.delete += lap();
        Ok(())
    }

    fn expect(&mut self, method: &str, target: &str, head: &str, body: &[u8], status: u16) -> Result<Reply, String> {
        let reply = self.ask(method, target, head, body).map_err(|error| format!("{method} {target}: {error}"))?;
        if reply.status == status { Ok(reply) } else { Err(format!("{method} {target}: {}", reply.status)) }
    }

    fn ask(&mut self, method: &str, target: &str, head: &str, body: &[u8]) -> io::Result<Reply> {
        let host = &self.host;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(host)?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let length = body.len();
        let close = if self.keeps { "" } else { "Connection: close\r\n" };
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{close}{head}Content-Length: {length}\r\n\r\n");
        connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let reply = answer(&mut connection)?;
        self.connection = self.keeps.then_some(connection);
        Ok(reply)
    }
}

fn answer(connection: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the reply is not HTTP/1.1 with a length");
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(nonsense)?;
    let mut reply = Reply { status, token: String::new(), lock: String::new() };
    let mut length = None;
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let last = || value.rsplit('/').next().unwrap_or_default().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok(),
            "location" => reply.token = last(),
            "x-topos-lockurl" => reply.lock = last(),
            _ => {}
        }
    }
    let length = length.ok_or_else(nonsense)?;
    io::copy(&mut connection.by_ref().take(length), &mut io::sink())?;
    Ok(reply)
}
