//! A CouchDB that misbehaves as it is told. Its documents and revisions are honest where a fault does not say otherwise.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What becomes of a request.
#[derive(Clone)]
pub enum Fault {
    Honest,
    /// Says this and does nothing.
    Says(u16, Vec<u8>),
    /// These very bytes.
    Raw(Vec<u8>),
    DoesThenDrops,
    /// Does it, and says this status.
    DoesThenSays(u16),
    DoesThenStalls(Duration),
    /// As if somebody else had just written the document: this into these fields.
    After(Value),
}

#[derive(Default)]
pub struct State {
    pub documents: BTreeMap<String, Value>,
    pub results: BTreeMap<String, Vec<u8>>,
    /// `KIND STATUS`.
    pub journal: Vec<String>,
    pub authorization: Option<String>,
    /// What its clock is ahead by.
    pub ahead: i64,
}

pub type Script = Box<dyn FnMut(&Request, usize) -> Fault + Send>;

pub struct Fake {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `todo`, `locked`, `get`, `claim`, `attach`, `done`, `scrub`, `fail`.
    pub fn kind(&self) -> &'static str {
        let sets = |field: &str, value: &Value| {
            serde_json::from_slice::<Value>(&self.body).is_ok_and(|document| document[field] == *value)
        };
        match self.method.as_str() {
            "GET" if self.path.contains("/todo") => "todo",
            "GET" if self.path.contains("/locked") => "locked",
            "GET" => "get",
            "PUT" if self.path.contains("/result?rev=") => "attach",
            "PUT" if sets("lock", &json!(0)) => "scrub",
            "PUT" if sets("lock", &json!(99)) => "fail",
            "PUT" if sets("done", &json!(0)) => "claim",
            "PUT" => "done",
            _ => "nonsense",
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

impl Fake {
    /// With these documents, all free tokens where they say nothing else.
    pub fn start(documents: &[Value], ahead: i64, tls: bool, script: Script) -> Self {
        let mut state = State { ahead, ..State::default() };
        for document in documents {
            let mut document = document.clone();
            document["_rev"] = json!("1-x");
            state.documents.insert(document["_id"].as_str().unwrap().to_owned(), document);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, script) = (Arc::new(Mutex::new(state)), Arc::new(Mutex::new((script, BTreeMap::new()))));
        let tls = tls.then(tls_config);
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state, script, tls) = (stream.unwrap(), shared.clone(), script.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &state, &script),
                    Some(config) => {
                        serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &state, &script);
                    }
                });
            }
        });
        Self { address, state }
    }

    pub fn journal(&self) -> Vec<String> {
        self.state.lock().unwrap().journal.clone()
    }

    pub fn document(&self, id: &str) -> Value {
        self.state.lock().unwrap().documents[id].clone()
    }
}

fn tls_config() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("../fixtures/tls/server.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../fixtures/tls/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key).unwrap())
}

type Told = Mutex<(Script, BTreeMap<&'static str, usize>)>;

fn serve(stream: impl Read + Write, state: &Mutex<State>, script: &Told) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream) else { return };
    let kind = request.kind();
    let fault = {
        let mut script = script.lock().unwrap();
        let seen = script.1.entry(kind).or_default();
        *seen += 1;
        let seen = *seen - 1;
        (script.0)(&request, seen)
    };
    let (status, body, date) = {
        let mut state = state.lock().unwrap();
        state.authorization = request.header("authorization").map(str::to_owned);
        if let Fault::After(fields) = &fault {
            state.overwrite(&request, fields);
        }
        let (status, body) = match &fault {
            Fault::Says(status, body) => (*status, body.clone()),
            Fault::Raw(_) => (0, Vec::new()),
            _ => state.act(&request),
        };
        let status = if let Fault::DoesThenSays(status) = fault { status } else { status };
        let word = if matches!(fault, Fault::DoesThenDrops) { "dropped".to_owned() } else { status.to_string() };
        state.journal.push(format!("{kind} {word}"));
        (status, body, state.date())
    };
    let stream = stream.get_mut();
    match fault {
        Fault::DoesThenDrops => return,
        Fault::Raw(bytes) => drop(stream.write_all(&bytes)),
        fault => {
            if let Fault::DoesThenStalls(time) = fault {
                std::thread::sleep(time);
            }
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    }
    let _ = stream.flush();
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut request = Request { method, path, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_lowercase(), value.to_owned()));
    }
    request.body.resize(request.header("content-length").map_or(0, |length| length.parse().unwrap()), 0);
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

impl State {
    /// What an honest server does.
    fn act(&mut self, request: &Request) -> (u16, Vec<u8>) {
        let error = |status: u16, reason: &str| (status, json!({"error": "x", "reason": reason}).to_string().into());
        let id = request.path.split(['/', '?']).nth(2).unwrap().to_owned();
        match request.kind() {
            view @ ("todo" | "locked") => {
                let free = view == "todo";
                // JavaScript's ==, which also takes "0" for 0, and what was never written for a number.
                let zero = |value: &Value| matches!(value, Value::Null) || *value == json!(0) || *value == json!("0");
                let listed = |document: &&Value| zero(&document["done"]) && zero(&document["lock"]) == free;
                let row =
                    |document: &Value| json!({"id": document["_id"], "key": null, "value": null, "doc": document});
                let rows: Vec<_> = self.documents.values().filter(listed).map(row).collect();
                (200, json!({"total_rows": rows.len(), "rows": rows}).to_string().into())
            }
            "get" => match self.documents.get(&id) {
                Some(document) => (200, document.to_string().into()),
                None => error(404, "missing"),
            },
            "attach" => {
                let rev = request.path.split("?rev=").nth(1).unwrap();
                if self.documents[&id]["_rev"] != rev {
                    return error(409, "Document update conflict.");
                }
                self.results.insert(id.clone(), request.body.clone());
                let mut document = self.documents[&id].clone();
                let stub = json!({"revpos": generation(rev) + 1, "length": request.body.len(), "stub": true});
                document["_attachments"]["result"] = stub;
                self.save(&id, document)
            }
            "nonsense" => error(405, "Only that."),
            _ => {
                let document: Value = serde_json::from_slice(&request.body).unwrap();
                if self.documents[&id]["_rev"] != document["_rev"] {
                    return error(409, "Document update conflict.");
                }
                self.save(&id, document)
            }
        }
    }

    fn save(&mut self, id: &str, mut document: Value) -> (u16, Vec<u8>) {
        let rev = format!("{}-x", generation(document["_rev"].as_str().unwrap()) + 1);
        document["_rev"] = json!(rev);
        self.documents.insert(id.to_owned(), document);
        (201, json!({"ok": true, "id": id, "rev": rev}).to_string().into())
    }

    fn overwrite(&mut self, request: &Request, fields: &Value) {
        let id = request.path.split(['/', '?']).nth(2).unwrap();
        let mut document = self.documents[id].clone();
        for (name, value) in fields.as_object().unwrap() {
            document[name] = value.clone();
        }
        self.save(id, document);
    }

    fn date(&self) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let time = std::time::UNIX_EPOCH + Duration::from_secs((now + self.ahead) as u64);
        let text = humantime::format_rfc3339_seconds(time).to_string();
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = months[text[5..7].parse::<usize>().unwrap() - 1];
        format!("Day, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
    }
}

fn generation(rev: &str) -> u64 {
    rev.split('-').next().unwrap().parse().unwrap()
}
