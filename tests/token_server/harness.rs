//! The server as a child process, and an HTTP client of a few lines that hides nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Returns when it listens.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// With more arguments.
    pub fn start_with(dir: &Path, arguments: &[&str]) -> Self {
        let mut child = command(dir).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.ends_with(&format!("/4.1 pools in {}\n", dir.display())), "said {line:?}");
        Self::adopt(child, &line)
    }

    /// A server that somebody started, and the line that it said.
    pub fn adopt(child: Child, line: &str) -> Self {
        let rest = line.strip_prefix("token server: http").map(|rest| rest.trim_start_matches('s'));
        let rest = rest.and_then(|rest| rest.strip_prefix("://127.0.0.1:"));
        let port = rest.and_then(|rest| rest.split('/').next()?.parse().ok());
        Self { child, port: port.unwrap_or_else(|| panic!("said {line:?}")) }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Sends a signal and returns how the server ended.
    pub fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }

    /// `GET /4.1/pools/<target>`, `PUT nextToken`, ...
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        ask(self.port, method, target, headers, body).unwrap()
    }

    pub fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, &[("Accept", "text/plain")], b"")
    }

    /// One token a line.
    pub fn fill(&self, pool: &str, text: &str) {
        let reply = self.ask("POST", &format!("{pool}/tokens/"), &[("Content-Type", "text/plain")], text.as_bytes());
        assert_eq!(reply.status, 202);
    }

    /// Claims a token with a lock.
    pub fn claim(&self, pool: &str, seconds: u32) -> Option<(u64, String)> {
        claim(self.port, pool, seconds).unwrap()
    }

    pub fn url(&self, target: &str) -> String {
        format!("http://127.0.0.1:{}/4.1/pools/{target}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
    command.args(["token-server", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
    command
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// What stands in `<pre id="message">`; panics unless the body is such a page.
    pub fn message(&self) -> &str {
        assert_eq!(self.header("Content-Type"), Some("application/xhtml+xml; charset=UTF-8"));
        let (_, rest) = self.body.split_once("<pre id=\"message\">").unwrap();
        rest.split_once("</pre>").unwrap().0
    }
}

/// A target without leading `/` is below `/4.1/pools/`.
pub fn ask(port: u16, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Reply> {
    let length = body.len().to_string();
    let mut all = vec![("Host", format!("127.0.0.1:{port}"))];
    all.extend(headers.iter().map(|(key, value)| (*key, value.to_string())));
    if !matches!(method, "GET" | "HEAD") {
        all.push(("Content-Length", length));
    }
    raw(port, method, target, &all, body)
}

/// With exactly these headers, and `Connection: close`.
pub fn raw(port: u16, method: &str, target: &str, headers: &[(&str, String)], body: &[u8]) -> std::io::Result<Reply> {
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/4.1/pools/{target}") };
    let headers: String = headers.iter().map(|(key, value)| format!("{key}: {value}\r\n")).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut request = format!("{method} {target} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "cut off");
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
}

pub fn claim(port: u16, pool: &str, seconds: u32) -> std::io::Result<Option<(u64, String)>> {
    let target = format!("{pool}/nextToken?timeout={seconds}&description=test");
    let reply = ask(port, "GET", &target, &[("Accept", "text/plain")], b"")?;
    if reply.status == 404 {
        return Ok(None);
    }
    assert_eq!(reply.status, 303, "{reply:?}");
    let last = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let id = last(reply.header("Location").unwrap()).parse().unwrap();
    Ok(Some((id, last(reply.header("X-Topos-LockURL").unwrap()))))
}
