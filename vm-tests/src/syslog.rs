//! A syslog receiver: RFC 5424 records with their length in front (RFC 6587, 3.4.1), over TCP.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lines::Lines;

/// For threads of ours that have nothing to wait for but the processor.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Takes records from anybody for as long as this process lives.
pub struct Receiver {
    /// Where it listens.
    pub port: u16,
    records: Arc<Lines>,
    /// Connections whose end was not read yet.
    open: Arc<AtomicUsize>,
}

/// As far as cases look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub host: String,
    pub app: String,
    /// Empty if there is none.
    pub msgid: String,
    /// Name and value of all elements of its structured data.
    pub data: Vec<(String, String)>,
    pub text: String,
}

impl Record {
    /// A value of its structured data, empty if there is none.
    pub fn value(&self, name: &str) -> &str {
        self.data.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl Receiver {
    pub fn start() -> io::Result<Self> {
        Self::start_at(0)
    }

    /// At a port that somebody keeps.
    pub fn start_at(port: u16) -> io::Result<Self> {
        Self::start_with(port, |stream| Box::new(stream))
    }

    /// One that takes records by TLS and has this certificate, in PEM files.
    #[cfg(feature = "host")]
    pub fn start_tls(certificate: &Path, key: &Path) -> Result<Self, String> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
        let chain: Vec<_> = chain.map_err(|error| format!("{}: {error}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        let config = Arc::new(config.map_err(|error| format!("TLS: {error}"))?);
        let receiver = Self::start_with(0, move |stream| match rustls::ServerConnection::new(Arc::clone(&config)) {
            Ok(session) => Box::new(rustls::StreamOwned::new(session, stream)),
            Err(_) => Box::new(io::empty()),
        });
        receiver.map_err(|error| format!("syslog receiver: {error}"))
    }

    /// There is no receiver inside a machine.
    #[cfg(not(feature = "host"))]
    pub fn start_tls(_: &Path, _: &Path) -> Result<Self, String> {
        Err("not inside a machine".to_owned())
    }

    fn start_with(port: u16, open: impl Fn(TcpStream) -> Box<dyn Read + Send> + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        let records = Arc::new(Lines::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let (shared, counted) = (Arc::clone(&records), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (records, count) = (Arc::clone(&shared), Arc::clone(&counted));
                count.fetch_add(1, Ordering::SeqCst);
                let stream = open(stream);
                thread::spawn(move || {
                    take(stream, &records);
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { port, records, open: connections })
    }

    /// Raw records, to be waited for.
    pub fn lines(&self) -> &Lines {
        &self.records
    }

    /// Every record of machines that are off: what they sent may still be on its way through this process.
    pub fn records(&self) -> Vec<Record> {
        // Connections are accepted in their order, so when ours was, those of machines were.
        if let Ok(mut last) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
            let _ = last.set_read_timeout(Some(LIMIT));
            let _ = last.shutdown(Shutdown::Write).and_then(|()| last.read(&mut [0]));
        }
        let deadline = Instant::now() + LIMIT;
        while self.open.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        self.records.all().iter().filter_map(|line| parse(line)).collect()
    }
}

/// A stream that is no sequence of counted records ends here, and the case misses its lines.
fn take(stream: impl Read, records: &Lines) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = Vec::new();
        let _ = stream.read_until(b' ', &mut length);
        let Ok(length) = String::from_utf8_lossy(&length).trim_end().parse::<usize>() else { return };
        let mut record = vec![0; length];
        if stream.read_exact(&mut record).is_err() {
            return;
        }
        records.push(String::from_utf8_lossy(&record).into_owned());
    }
}

/// `<PRI>1 TIME HOST APP PROCID MSGID STRUCTURED-DATA TEXT`
fn parse(record: &str) -> Option<Record> {
    let mut words = record.splitn(7, ' ');
    let version = words.next()?;
    let (_, host, app) = (words.next()?, words.next()?.to_owned(), words.next()?.to_owned());
    let (_, msgid, rest) = (words.next()?, words.next()?.trim_start_matches('-').to_owned(), words.next()?);
    let (data, text) = match rest.strip_prefix("- ") {
        Some(text) => (Vec::new(), text),
        None => structured(rest)?,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
    version.ends_with(">1").then_some(Record { host: host.to_owned(), app, msgid, data, text })
}

/// RFC 5424, 6.3: elements `[id name="value" ...]` one behind the other, then a blank and the text.
fn structured(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut data = Vec::new();
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        rest = element.get(end..)?;
        while let Some(parameter) = rest.strip_prefix(' ') {
            let (name, quoted) = parameter.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = quoted.chars();
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => value.push(chars.next()?),
                    other => value.push(other),
                }
            }
            data.push((name.to_owned(), value));
            rest = chars.as_str();
        }
        rest = rest.strip_prefix(']')?;
    }
    Some((data, rest.strip_prefix(' ')?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn records_are_waited_for_until_their_sender_is_gone() {
        let receiver = Receiver::start().unwrap();
        let mut sender = TcpStream::connect((Ipv4Addr::LOCALHOST, receiver.port)).unwrap();
        let records = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(200));
                sender.write_all(b"19 <14>1 - - - - - - x").unwrap();
            });
            receiver.records()
        });
        assert_eq!(records.len(), 1, "{records:?}");
    }

    #[test]
    fn counted_records_are_taken_apart() {
        let one = "<14>1 2026-01-01T00:00:00Z vm payload 7 job [a x=\"a b\" y=\"\\] \\\"\"][meta z=\"1\"] hello there";
        let two = "<14>1 - vm prolog - - - \u{feff}x";
        let records = Lines::default();
        let stream = format!("{} {one}{} {two}12", one.len(), two.len());
        take(stream.as_bytes(), &records);
        let got: Vec<_> = records.all().iter().map(|line| parse(line).unwrap()).collect();
        let summary = |record: &Record| [&record.host, &record.app, &record.msgid, &record.text].map(String::clone);
        assert_eq!(summary(&got[0]), ["vm", "payload", "job", "hello there"]);
        assert_eq!(["x", "y", "z", "w"].map(|name| got[0].value(name)), ["a b", "] \"", "1", ""]);
        assert_eq!(summary(&got[1]), ["vm", "prolog", "", "x"]);
        assert_eq!(parse("<14>Jan 1 00:00:00 vm old: style of record, with words enough"), None);
    }
}
