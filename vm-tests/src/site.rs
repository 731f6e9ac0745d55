//! What a site has: a token pool, a syslog receiver, and a context CD that names both.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt::ReuseAddr,
};
use serde_json::{Value, json};

use crate::guest::{ARGUMENT, IN_IMAGE};
use crate::process::Process;
use crate::stage::{CTXTOOL, Stage};
use crate::syslog::Receiver;
use crate::{http, log_check, services};

/// The host's loopback, as a guest on QEMU's user network sees it.
pub const HOST: &str = "10.0.2.2";
/// Pools of every case; each case has a server of its own.
pub const WORK: &str = "work";
pub const RESULTS: &str = "results";

/// A token pool server and a syslog receiver.
pub struct Site {
    /// Where everything of the case is kept.
    dir: PathBuf,
    server: Option<Process>,
    /// Of the token server, also while it is down.
    pub port: u16,
    /// Bound to that port and never listening, so that nobody else is given it while the server is down.
    _keeper: OwnedFd,
    pub syslog: Receiver,
}

/// A token, as a listing of its pool has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub locked: bool,
    pub leases: u64,
}

impl Site {
    /// Starts both.
    pub fn start(stage: &Stage) -> Result<Self, String> {
        let syslog = Receiver::start().map_err(|error| format!("syslog receiver: {error}"))?;
        let (port, keeper) = keep_port().map_err(|errno| format!("a port for the token server: {errno}"))?;
        let mut site = Self { dir: stage.dir.clone(), server: None, port, _keeper: keeper, syslog };
        site.start_server()?;
        Ok(site)
    }

    /// Ends the token server.
    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// Starts the token server, always at the same port.
    pub fn start_server(&mut self) -> Result<(), String> {
        let mut command = Command::new(CTXTOOL);
        command
            .arg("token-server")
            .arg("--dir")
            .arg(self.dir.join("pools"))
            .arg("--listen")
            .arg(format!("127.0.0.1:{}", self.port));
        let mut server = Process::start(command.stdout(Stdio::piped()))?;
        let output = server.child().stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| format!("token server: {error}"))?;
        if !line.contains(&format!("http://127.0.0.1:{}/", self.port)) {
            return Err(format!("the token server says {line:?} and not its port {}", self.port));
        }
        self.server = Some(server);
        Ok(())
    }

    /// `context.json`.
    pub fn context(&self) -> String {
        self.context_with(json!({}))
    }

    /// The same with more in it, a top-level key each.
    pub fn context_with(&self, more: Value) -> String {
        let mut context = json!({
            "syslog": {"server": HOST, "port": self.syslog.port},
            "work": {"topos": {
                "url": format!("http://{HOST}:{}/4.1", self.port),
                "pool": WORK,
                "results": RESULTS,
                "lock_secs": 60,
            }},
            // The pools are filled before the machine boots: once there is nothing, there will be nothing.
            "limits": {"idle_secs": 1, "fault_secs": 90},
        });
        if let (Some(context), Value::Object(more)) = (context.as_object_mut(), more) {
            context.extend(more);
        }
        context.to_string()
    }

    /// Puts tokens into the pool.
    pub fn fill(&self, tokens: &[&str]) -> Result<(), String> {
        self.fill_as("text/plain", tokens)
    }

    /// The same with this media type, in which the tokens' owner may stand.
    pub fn fill_as(&self, media_type: &str, tokens: &[&str]) -> Result<(), String> {
        let path = format!("/4.1/pools/{WORK}/tokens/");
        let header = format!("Content-Type: {media_type}\r\n");
        http::ask(self.port, "POST", &path, &header, &tokens.join("\n")).map(drop)
    }

    /// What a pool holds.
    pub fn tokens(&self, pool: &str) -> Result<Vec<Token>, String> {
        let path = format!("/4.1/pools/{pool}/tokens/");
        let listing = http::ask(self.port, "GET", &path, "Accept: application/json\r\n", "")?;
        let rows: Value = serde_json::from_str(&listing).map_err(|error| format!("GET {path}: {error}"))?;
        let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let token = |row: &Value| Token {
            id: field(row, "Name"),
            locked: !field(row, "Timeout").is_empty(),
            leases: field(row, "Leases").parse().unwrap_or(0),
        };
        // An empty pool is null.
        Ok(rows.as_array().map(|rows| rows.iter().map(token).collect()).unwrap_or_default())
    }

    /// The values of a pool's tokens.
    pub fn values(&self, pool: &str) -> Result<Vec<String>, String> {
        let value =
            |token: &Token| http::ask(self.port, "GET", &format!("/4.1/pools/{pool}/tokens/{}", token.id), "", "");
        self.tokens(pool)?.iter().map(value).collect()
    }

    /// Takes a token away, whoever works on it.
    pub fn delete(&self, id: &str) -> Result<(), String> {
        http::ask(self.port, "DELETE", &format!("/4.1/pools/{WORK}/tokens/{id}"), "", "").map(drop)
    }

    /// Checks that the pool still holds these many tokens, none of them locked.
    pub fn expect_free(&self, count: usize) -> Result<(), String> {
        let tokens = self.tokens(WORK)?;
        let right = tokens.len() == count && tokens.iter().all(|token| !token.locked);
        if right { Ok(()) } else { Err(format!("expected {count} free tokens in the pool, found {tokens:?}")) }
    }

    /// Checks that a program's record came, word for word.
    pub fn expect_record(&self, app: &str, text: &str) -> Result<(), String> {
        let records = self.syslog.records();
        if records.iter().any(|record| record.app == app && record.text == text) {
            return Ok(());
        }
        let same: Vec<_> = records.into_iter().filter(|record| record.app == app).map(|record| record.text).collect();
        Err(format!("expected the record {app}: {text:?} at the syslog receiver, of {app} it got {same:?}"))
    }

    /// Checks that a machine that is off has logged a whole life of its own, by the site's own tool: every number, every
    /// start with its end.
    pub fn expect_complete_log(&self) -> Result<(), String> {
        match self.checked_log()? {
            (0, _) => Ok(()),
            (code, found) => Err(format!("expected a complete log, ctxtool log check ends with {code}: {found:#}")),
        }
    }

    /// What that tool says of the log, and its exit code.
    pub fn checked_log(&self) -> Result<(i32, Value), String> {
        // Waits until all has come.
        self.syslog.records();
        log_check::check(&self.dir, &self.syslog.lines().all())
    }

    /// Waits for a record of a program.
    pub fn wait_record(&self, limit: Duration, text: &str) -> Result<(), String> {
        self.syslog.lines().wait_for(limit, &format!("the record {text:?}"), |line| line.ends_with(text))
    }
}

impl Drop for Site {
    /// Keeps the log, for whoever looks into a failure.
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("syslog.log"), self.syslog.lines().all().join("\n") + "\n");
    }
}

/// A port of this host, and what keeps it. Who binds it with SO_REUSEADDR, as the token server does, may listen there:
/// the kernel lets one of two such sockets.
pub fn keep_port() -> nix::Result<(u16, OwnedFd)> {
    let keeper = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&keeper, ReuseAddr, &true)?;
    bind(keeper.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    Ok((getsockname::<SockaddrIn>(keeper.as_raw_fd())?.port(), keeper))
}

/// What a machine's script waits at until the host half has seen enough.
pub struct Gate(TcpListener);

impl Gate {
    pub fn shut() -> Result<Self, String> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(Self).map_err(|error| format!("gate: {error}"))
    }

    /// The words of a shell for the wait; needs a network.
    pub fn wait(&self) -> String {
        format!("until /{IN_IMAGE} {ARGUMENT} fetch {}; do sleep 0.2; done", self.place())
    }

    /// Where a payload finds it.
    pub fn place(&self) -> String {
        let port = self.0.local_addr().map_or(0, |address| address.port());
        format!("{HOST}:{port}")
    }

    /// Lets everybody through, also those who come later.
    pub fn open(self) {
        thread::spawn(move || while services::greet(&self.0).is_ok() {});
    }
}
