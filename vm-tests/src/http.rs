//! As much HTTP as it takes to look into a token pool on this machine, and to give it a page.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The server is ours and on loopback; only a machine that swaps is this slow.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends a request and returns the body of a 2xx answer or a redirection. HTTP/1.0, so that the body ends with the connection.
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
    if status.starts_with(['2', '3']) { Ok(body.to_owned()) } else { Err(format!("{method} {path}: {status}: {body}")) }
}

/// One page that anybody gets whatever they ask for, for as long as this process lives. Nothing but a 500 while it is
/// empty.
pub struct Page {
    /// Where it is.
    pub port: u16,
    text: Arc<Mutex<String>>,
}

impl Page {
    pub fn serve(text: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let page = Self { port, text: Arc::new(Mutex::new(text.to_owned())) };
        let text = Arc::clone(&page.text);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let text = text.lock().map(|text| text.clone()).unwrap_or_default();
                let _ = answer(&stream, &text);
            }
        });
        Ok(page)
    }

    /// From now on it is this.
    pub fn change(&self, text: &str) {
        if let Ok(mut page) = self.text.lock() {
            *page = text.to_owned();
        }
    }
}

fn answer(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut request = BufReader::new(stream);
    let (_, length) = head(&mut request)?;
    // Closed with a body unread, the connection would be reset.
    std::io::copy(&mut request.take(length.unwrap_or(0) as u64), &mut std::io::sink())?;
    let status = if text.is_empty() { "500 Broken" } else { "200 OK" };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

/// The first line of a request, and how long the body is that follows its head, if it says so.
pub fn head(request: &mut impl BufRead) -> std::io::Result<(String, Option<usize>)> {
    let (mut first, mut length) = (String::new(), None);
    request.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if request.read_line(&mut line)? <= 2 {
            return Ok((first, length));
        }
        if let Some(("content-length", value)) = line.to_lowercase().trim().split_once(": ") {
            length = value.parse().ok();
        }
    }
}
