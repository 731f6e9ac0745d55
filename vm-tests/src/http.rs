//! As much HTTP as it takes to look into a token pool on this machine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The server is ours and on loopback; only a machine that swaps is this slow.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends a request and returns the body of a 2xx answer. HTTP/1.0, so that the body ends with the connection.
pub fn ask(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Result<String, String> {
    let at = |error: std::io::Error| format!("{method} {path}: {error}");
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT).map_err(at)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(at)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(at)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(at)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{method} {path}: no whole answer"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') { Ok(body.to_owned()) } else { Err(format!("{method} {path}: {status}: {body}")) }
}
