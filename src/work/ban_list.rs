//! The site's ban list by network: fetched, read, and handed to the agent as typed values.

use std::io::Read;
use std::time::Duration;

use ureq::http::{Request, header};

use super::http::{Client, SetupError};
use super::{Pace, call};
use crate::ban::Version;
use crate::ban::parse::{self, LONGEST};
use crate::clock::Deadline;
use crate::protocol::FromWorker;

/// After a fetch that failed; a longer interval would use up the grace with a few of them.
const RETRY: Duration = Duration::from_secs(30);

/// What a worker is told about the site's list.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub url: String,
    /// PEM, for `https`.
    pub ca: Option<Vec<u8>>,
    /// Between two fetches.
    pub interval: Duration,
}

/// The list's server.
#[derive(Debug)]
pub struct Source {
    client: Client,
    url: String,
    interval: Duration,
    due: Deadline,
}

impl Source {
    /// Makes no call yet; the first one is due at once.
    ///
    /// # Errors
    /// When URL and authorities do not fit together.
    pub fn new(config: &Config, pace: &Pace) -> Result<Self, SetupError> {
        let Config { url, ca, interval } = config;
        let client = Client::new("bans.ca", url, ca.as_deref(), pace.connect, pace.call)?;
        Ok(Self { client, url: url.clone(), interval: *interval, due: Deadline::after(Duration::ZERO) })
    }

    /// When it is to be fetched again.
    pub fn due(&self) -> Deadline {
        self.due
    }

    /// What to tell the agent, message and body.
    pub fn fetch(&mut self, limit: Duration) -> (FromWorker, Vec<u8>) {
        let fetched = self.get(limit).and_then(|bytes| {
            // The error names the URL as it names a file, and the line.
            let list = parse::parse(&self.url, &bytes).map_err(|error| error.to_string())?;
            let json = serde_json::to_vec(&list).map_err(|error| format!("{}: {error}", self.url))?;
            Ok((FromWorker::BanList { sha256: Version::of(&self.url, &bytes).sha256 }, json))
        });
        self.due = Deadline::after(if fetched.is_ok() { self.interval } else { RETRY.min(self.interval) });
        fetched.unwrap_or_else(|why| (FromWorker::BanListFault { why }, Vec::new()))
    }

    fn get(&self, limit: Duration) -> Result<Vec<u8>, String> {
        let failed = |why: &dyn std::fmt::Display| format!("GET {}: {why}", self.url);
        let request = Request::get(&self.url).header(header::ACCEPT, "text/plain, */*").body(None);
        let request = request.map_err(|error| failed(&error))?;
        let answer = self.client.call(request, limit).map_err(|error| failed(&error))?;
        if answer.status().as_u16() != 200 {
            return Err(failed(&answer.status().as_u16()));
        }
        call::believable(&answer).map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        // One byte more than the reader takes, so that it says what is wrong.
        let body = answer.into_body().into_reader().take(LONGEST as u64 + 1).read_to_end(&mut bytes);
        body.map(|_| bytes).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is made of this answer.
    fn fetched(answer: &str) -> Result<String, String> {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/ban.list", server.local_addr().unwrap());
        let answer = answer.to_owned();
        let served = thread::spawn(move || {
            let (stream, _) = server.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            (&stream).write_all(answer.as_bytes()).unwrap();
        });
        let config = Config { url: url.clone(), ca: None, interval: Duration::from_secs(60) };
        let limit = Duration::from_secs(10);
        let pace = Pace { lock: limit, connect: limit, call: limit, farewell: limit };
        let mut source = Source::new(&config, &pace).unwrap();
        let (message, body) = source.fetch(limit);
        served.join().unwrap();
        match message {
            FromWorker::BanList { .. } => Ok(String::from_utf8(body).unwrap()),
            FromWorker::BanListFault { why } => Err(why.replace(&url, "URL")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_list() {
        let whole = fetched("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n/atlas\n/cms\n").unwrap();
        assert!(whole.contains("/cms"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n/atlas\n\r\n5\r\n/cms\n\r\n0\r\n\r\n";
        assert_eq!(fetched(chunked), Ok(whole));
        // Each ends behind a whole line.
        for cut in [
            "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n/atlas\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n/atlas\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n/atlas\n\r\n5\r\n",
        ] {
            let why = fetched(cut).unwrap_err();
            assert!(why.starts_with("GET URL: "), "{why}");
        }
        for endless in [
            "HTTP/1.1 200 OK\r\n\r\n/atlas\n",
            "HTTP/1.0 200 OK\r\n\r\n/atlas\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n/atlas\n",
        ] {
            let why = "GET URL: the answer does not say how long it is; it may be cut off";
            assert_eq!(fetched(endless), Err(why.to_owned()), "{endless}");
        }
    }
}
