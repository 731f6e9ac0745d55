//! A real server: PouchDB, one for all tests or one of its own, on loopback and on disk.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The conditions of the example views of PiCaS.
const VIEWS: [(&str, &str); 4] = [
    ("todo", "doc.lock == 0 && doc.done == 0"),
    ("locked", "doc.lock > 0 && doc.done == 0"),
    ("done", "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0"),
    ("error", "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0"),
];

pub struct Couch {
    pub url: String,
    port: u16,
    dir: PathBuf,
    process: Mutex<Child>,
}

/// The server of all tests that do not kill theirs.
pub fn couch() -> &'static Couch {
    static COUCH: OnceLock<Couch> = OnceLock::new();
    COUCH.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("picas");
        let _ = std::fs::remove_dir_all(&dir);
        Couch::start(&dir)
    })
}

impl Couch {
    pub fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Mutex::new(spawn(port, dir));
        let couch = Self { url: format!("http://127.0.0.1:{port}"), port, dir: dir.to_owned(), process };
        couch.wait();
        couch
    }

    /// As a machine that loses its power.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn restart(&self) {
        *self.process.lock().unwrap() = spawn(self.port, &self.dir);
        self.wait();
    }

    /// Installing it for the first time takes minutes.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(600);
        while call("GET", &self.url, None).is_none() {
            let ended = self.process.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "scripts/pouchdb does not run: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A database with the example views.
    pub fn database(&self, name: &str) -> Database {
        let database = self.empty(name);
        let map = |condition: &str| json!({"map": format!("function(doc) {{ if (doc.type == \"token\" && {condition}) emit(doc._id, doc._id); }}")});
        let views: serde_json::Map<_, _> = VIEWS.iter().map(|(name, when)| ((*name).to_owned(), map(when))).collect();
        database.put(&json!({"_id": "_design/Monitor", "language": "javascript", "views": views}));
        database
    }

    pub fn empty(&self, name: &str) -> Database {
        let database = Database { server: self.url.clone(), name: name.to_owned() };
        assert_eq!(call("PUT", &database.url(""), None).unwrap().0, 201);
        database
    }
}

impl Drop for Couch {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, dir: &Path) -> Child {
    // Statics are not dropped, so it dies with its parent; which is the thread that starts it, and not this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/pouchdb")]);
    command.arg(port.to_string()).arg(dir).stdout(Stdio::null());
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        say.send(command.spawn().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    });
    hear.recv().unwrap()
}

#[derive(Clone)]
pub struct Database {
    pub server: String,
    pub name: String,
}

impl Database {
    fn url(&self, rest: &str) -> String {
        format!("{}/{}{rest}", self.server, self.name)
    }

    fn document(&self, id: &str) -> String {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        if id.starts_with('_') { self.url(&format!("/{id}")) } else { self.url(&format!("/{encoded}")) }
    }

    pub fn get(&self, id: &str) -> Value {
        let (status, body) = call("GET", &self.document(id), None).unwrap();
        assert_eq!(status, 200, "{id}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub fn attachment(&self, id: &str, name: &str) -> Vec<u8> {
        let (status, body) = call("GET", &format!("{}/{name}", self.document(id)), None).unwrap();
        assert_eq!(status, 200, "{id}: {name}");
        body
    }

    /// Whether nobody wrote it meanwhile.
    pub fn try_put(&self, document: &Value) -> bool {
        let body = serde_json::to_vec(document).unwrap();
        let (status, body) = call("PUT", &self.document(document["_id"].as_str().unwrap()), Some(&body)).unwrap();
        assert!(matches!(status, 201 | 409), "{status}: {}", String::from_utf8_lossy(&body));
        status == 201
    }

    pub fn put(&self, document: &Value) {
        assert!(self.try_put(document), "{document}");
    }

    /// As `put`, whatever others do.
    pub fn edit(&self, id: &str, mut edit: impl FnMut(&mut Value)) {
        loop {
            let mut document = self.get(id);
            edit(&mut document);
            if self.try_put(&document) {
                return;
            }
        }
    }

    /// A free token, as the Python client makes them.
    pub fn token(&self, id: &str, input: Value) {
        self.put(&json!({
            "_id": id, "type": "token", "lock": 0, "done": 0, "hostname": "", "scrub_count": 0, "exit_code": "",
            "input": input, "output": {}, "uploads": {}, "error": [],
        }));
    }

    pub fn view(&self, name: &str) -> Vec<String> {
        let (status, body) = call("GET", &self.url(&format!("/_design/Monitor/_view/{name}")), None).unwrap();
        assert_eq!(status, 200, "{name}");
        let rows: Value = serde_json::from_slice(&body).unwrap();
        rows["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    /// What the Python client prints.
    pub fn python(&self, arguments: &[&str]) -> Command {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = Command::new(format!("{root}/scripts/picas-client"));
        command.arg(format!("{root}/tests/picas/client.py")).args([&self.server, &self.name]).args(arguments);
        command
    }

    pub fn python_says(&self, arguments: &[&str]) -> String {
        let output = self.python(arguments).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn call(method: &str, url: &str, body: Option<&[u8]>) -> Option<(u16, Vec<u8>)> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).max_idle_connections(0);
    let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(60))).build().into();
    let request = ureq::http::Request::builder().method(method).uri(url).header("Content-Type", "application/json");
    let answer = match body {
        Some(body) => agent.run(request.body(body).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let mut answer = answer.ok()?;
    Some((answer.status().as_u16(), answer.body_mut().with_config().limit(64 << 20).read_to_vec().unwrap()))
}
