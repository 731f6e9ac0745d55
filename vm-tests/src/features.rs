//! A stand-in for a site's Machine/Job Features by http, as Vac's: files that come and go, and outputs that are put.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http;
use crate::site::HOST;

/// Only a machine that swaps is this slow.
const LIMIT: Duration = Duration::from_secs(20);

/// A server, for as long as this process lives.
pub struct Features {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By path, without the first `/`.
    files: BTreeMap<String, String>,
    /// Each GET and PUT, in order.
    gets: Vec<String>,
    puts: Vec<Put>,
    /// The answer to each PUT instead of 201, so many times.
    refusals: Vec<u16>,
}

/// A file that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub path: String,
    pub text: String,
    pub status: u16,
}

impl Features {
    pub fn serve() -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("features: {error}"))?;
        let port = listener.local_addr().map_err(|error| format!("features: {error}"))?.port();
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = theirs.answer(&stream);
            }
        });
        Ok(Self { port, shared })
    }

    /// As the machine reaches it.
    pub fn url(&self, place: &str) -> String {
        format!("http://{HOST}:{}/{place}", self.port)
    }

    /// From now on a file is this, or is not there.
    pub fn set(&self, path: &str, text: Option<&str>) {
        let mut state = self.shared.state();
        match text {
            Some(text) => state.files.insert(path.to_owned(), text.to_owned()),
            None => state.files.remove(path),
        };
    }

    /// The next PUTs are answered so.
    pub fn refuse(&self, statuses: &[u16]) {
        self.shared.state().refusals = statuses.to_vec();
    }

    /// All that was put so far.
    pub fn puts(&self) -> Vec<Put> {
        self.shared.state().puts.clone()
    }

    /// Waits for so many PUTs of a path.
    pub fn wait_puts(&self, path: &str, count: usize, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        let mut state = self.shared.state();
        while state.puts.iter().filter(|put| put.path == path).count() < count {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("expected {count} PUTs of {path}, got {:?}", state.puts));
            }
            state = match self.shared.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Ok(())
    }

    /// How often a file was asked for.
    pub fn gets(&self, path: &str) -> usize {
        self.shared.state().gets.iter().filter(|got| *got == path).count()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(LIMIT))?;
        let mut request = BufReader::new(stream);
        let (head, length) = http::head(&mut request)?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = path.trim_start_matches('/').to_owned();
        let (status, text) = match (method, length) {
            ("GET", _) => {
                let mut state = self.state();
                state.gets.push(path.clone());
                match state.files.get(&path) {
                    Some(text) => (200, text.clone()),
                    None => (404, "<html>nothing here</html>".to_owned()),
                }
            }
            // One level below a directory, and a length, as Vac's has it.
            ("PUT", Some(length)) if path.matches('/').count() == 1 => {
                let mut text = vec![0; length];
                request.read_exact(&mut text)?;
                let mut state = self.state();
                let status = if state.refusals.is_empty() { 201 } else { state.refusals.remove(0) };
                state.puts.push(Put { path, text: String::from_utf8_lossy(&text).into_owned(), status });
                (status, String::new())
            }
            _ => (403, String::new()),
        };
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())?;
        self.changed.notify_all();
        Ok(())
    }
}

/// Unix seconds, so many from now.
pub fn in_secs(secs: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (now + secs).to_string()
}
