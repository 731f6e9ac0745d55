//! The machines, the server, and what is measured of them.

use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ctxinit::agent::patience::Patience;
use ctxinit::clock::Deadline;
use ctxinit::context::site::Work;
use ctxinit::protocol::channel::Channel;
use ctxinit::protocol::{Fate, FromWorker, ToWorker};
use ctxinit::work::{Config, Credentials, Identity, Pace, run_at};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

/// Errors are for a person.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Two threads a machine; default stacks would be 4 GB of addresses for a thousand of them.
const STACK: usize = 512 << 10;
/// The pauses of a real machine between claims that fail.
const FAULT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(600);

/// What is to be done.
pub struct Plan {
    pub ctxtool: PathBuf,
    pub machines: u64,
    /// Tokens that each machine takes.
    pub tasks: u64,
    /// The server starts this much after the machines.
    pub late: Duration,
    /// Length of a task.
    pub task: Duration,
}

/// What came of it.
#[derive(Default)]
pub struct Figures {
    machines: u64,
    tokens: u64,
    /// From `Claim` to the token in hand: two or three calls.
    claims: Vec<Duration>,
    /// From the start of all machines, or of the server if that is later, to each machine's first token.
    first: Vec<Duration>,
    took: Duration,
    pub completed: u64,
    /// Tokens that came twice.
    pub duplicates: u64,
    /// Results in the pool of results; one a token.
    pub results: u64,
    /// Claims that failed and were tried again.
    pub faults: u64,
    /// Claims that found the pool empty, which it is not.
    pub empty: u64,
    /// Whatever else a worker said.
    problems: Vec<String>,
    /// User and system time of the server.
    server_cpu: Duration,
    /// Requests of the server, and commits.
    requests: f64,
    commits: f64,
}

impl Figures {
    /// Every token was done once, and every machine had work.
    pub fn right(&self) -> bool {
        self.duplicates == 0
            && self.completed == self.tokens
            && self.results == self.tokens
            && self.first.len() as u64 == self.machines
            && self.problems.is_empty()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |sorted: &[Duration], share: f64| {
            let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
            sorted.get(place).map(|span| (span.as_secs_f64() * 10_000.0).round() / 10.0)
        };
        let of = |spans: &[Duration]| {
            let mut sorted = spans.to_vec();
            sorted.sort();
            json!({"p50_ms": at(&sorted, 0.5), "p99_ms": at(&sorted, 0.99), "max_ms": at(&sorted, 1.0)})
        };
        let per = |number: f64, of: f64| (of > 0.0).then(|| (number / of * 10.0).round() / 10.0);
        let line = json!({
            "machines": self.machines,
            "tokens": self.tokens,
            "cycles_per_second": per(self.completed as f64, self.took.as_secs_f64()),
            "claim": of(&self.claims),
            "first_token": of(&self.first),
            "completed": self.completed,
            "duplicates": self.duplicates,
            "results": self.results,
            "faults": self.faults,
            "empty": self.empty,
            "problems": self.problems.iter().take(3).collect::<Vec<_>>(),
            "server_cpu_ms_per_cycle": per(self.server_cpu.as_secs_f64() * 1000.0, self.completed as f64),
            "server_requests_per_second": per(self.requests, self.took.as_secs_f64()),
            "server_requests_per_commit": per(self.requests, self.commits),
        });
        write!(f, "{line}")
    }
}

/// Starts everything, waits for its end, and counts.
pub fn run(plan: &Plan) -> Outcome<Figures> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let dir = tempfile::tempdir()?;
    // A server that is late is needed by its address all the same.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut server = if plan.late.is_zero() { Some(Server::start(plan, dir.path(), port)?) } else { None };
    let figures =
        Mutex::new(Figures { machines: plan.machines, tokens: plan.machines * plan.tasks, ..Figures::default() });
    let seen = Mutex::new(HashSet::new());
    let barrier = Barrier::new(usize::try_from(plan.machines)? + 1);
    thread::scope(|scope| -> Outcome<()> {
        for number in 0..plan.machines {
            let (figures, seen, barrier) = (&figures, &seen, &barrier);
            let machine = move || {
                barrier.wait();
                if let Err(why) = machine(plan, number, port, seen, figures) {
                    lock(figures).problems.push(why.to_string());
                }
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, machine)?;
        }
        barrier.wait();
        if server.is_none() {
            thread::sleep(plan.late);
            server = Some(Server::start(plan, dir.path(), port)?);
        }
        Ok(())
    })?;
    let server = server.ok_or("no server")?;
    let mut figures = figures.into_inner().map_err(|_| "a machine panicked")?;
    figures.took = server.ready.elapsed();
    figures.first = figures.first.iter().map(|span| span.saturating_sub(plan.late)).collect();
    server.measure(&mut figures)?;
    Ok(figures)
}

/// One machine's life: the agent's part of it, with the worker in a thread where a machine has a process.
fn machine(
    plan: &Plan,
    number: u64,
    port: u16,
    seen: &Mutex<HashSet<String>>,
    figures: &Mutex<Figures>,
) -> Outcome<()> {
    let topos =
        format!(r#"{{"topos": {{"url": "http://127.0.0.1:{port}/4.1", "pool": "mc", "results": "mc-results"}}}}"#);
    let work: Work = serde_json::from_str(&topos)?;
    let config = Config {
        work: work.clone(),
        credentials: Credentials::default(),
        identity: Identity {
            hostname: format!("wn-{number}.example.org"),
            vm_uuid: format!("00000000-0000-4000-8000-{number:012}"),
            boot_id: "0a1b2c3d-0000-4000-8000-000000000000".to_owned(),
            slot: 0,
        },
        ban_list: None,
    };
    let (mut agent, channel) = Channel::pair()?;
    let pace = Pace::of(&work);
    let worker = thread::Builder::new().stack_size(STACK).spawn(move || run_at(pace, config, channel))?;
    let (began, mut done, mut first) = (Instant::now(), 0, true);
    let mut patience = Patience::new(FAULT);
    while done < plan.tasks {
        let asked = Instant::now();
        agent.send(&ToWorker::Claim, b"")?;
        match hear(&mut agent)? {
            FromWorker::Claimed(token) => {
                let now = Instant::now();
                let again = !lock(seen).insert(token.id.clone());
                {
                    let mut figures = lock(figures);
                    figures.claims.push(now - asked);
                    figures.duplicates += u64::from(again);
                    if std::mem::take(&mut first) {
                        figures.first.push(now - began);
                    }
                }
                patience.reset();
                thread::sleep(plan.task);
                agent.send(&ToWorker::Finished, token.id.as_bytes())?;
                match hear(&mut agent)? {
                    FromWorker::Settled { fate: Fate::Completed, .. } => lock(figures).completed += 1,
                    other => return Err(format!("token {}: {other:?}", token.id).into()),
                }
                done += 1;
            }
            FromWorker::Fault { .. } => {
                lock(figures).faults += 1;
                rest(&mut patience, began, "no server for ten minutes")?;
            }
            FromWorker::NoWork => {
                lock(figures).empty += 1;
                rest(&mut patience, began, "no work for ten minutes")?;
            }
            other => return Err(format!("{other:?}").into()),
        }
    }
    agent.send(&ToWorker::Stop, b"")?;
    worker.join().map_err(|_| "the worker panicked")?;
    Ok(())
}

/// As an agent rests after a try that was in vain, unless its time is over.
fn rest(patience: &mut Patience, began: Instant, over: &'static str) -> Outcome<()> {
    if began.elapsed() > LIMIT {
        return Err(over.into());
    }
    thread::sleep(patience.pause());
    Ok(())
}

fn hear(agent: &mut Channel) -> Outcome<FromWorker> {
    let heard = agent.recv::<FromWorker>(Deadline::after(LIMIT))?;
    Ok(heard.ok_or("the worker says nothing")?.0)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Server {
    child: Child,
    port: u16,
    ready: Instant,
}

impl Server {
    /// Returns when it has all tokens.
    fn start(plan: &Plan, dir: &Path, port: u16) -> Outcome<Self> {
        // Loaded under another address: what comes late is a server with work.
        let load = Self::listen(plan, dir, 0)?;
        let tokens = plan.machines * plan.tasks;
        let form = format!("ntokens={tokens}&offset=1");
        load.ask("POST", "/4.1/pools/mc/tokens/", "application/x-www-form-urlencoded", &form)?;
        drop(load);
        Self::listen(plan, dir, port)
    }

    fn listen(plan: &Plan, dir: &Path, port: u16) -> Outcome<Self> {
        let address = format!("127.0.0.1:{port}");
        let mut child = Command::new(&plan.ctxtool)
            .args(["token-server", "--listen", &address, "--dir"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let rest = line.split_once("127.0.0.1:").map(|(_, rest)| rest).ok_or(format!("the server said {line:?}"))?;
        let port = rest.split('/').next().unwrap_or_default().parse()?;
        Ok(Self { child, port, ready: Instant::now() })
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAccept: text/plain\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        if !reply.starts_with("HTTP/1.1 20") {
            return Err(format!("{method} {path}: {}", reply.lines().next().unwrap_or_default()).into());
        }
        Ok(reply)
    }

    /// What only the server knows.
    fn measure(&self, figures: &mut Figures) -> Outcome<()> {
        let total = figures.tokens.max(1);
        let share = |pool: &str| -> Outcome<f64> {
            let reply = self.ask("GET", &format!("/4.1/pools/{pool}/progress?total={total}"), "text/plain", "")?;
            Ok(reply.lines().last().unwrap_or_default().trim().parse()?)
        };
        figures.results = (share("mc-results")? * total as f64).round() as u64;
        if share("mc")? > 0.0 {
            figures.problems.push("tokens are left".to_owned());
        }
        // proc(5): utime and stime are the 14th and 15th, behind a name that may have blanks; 100 ticks a second.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        figures.server_cpu = Duration::from_millis(ticks * 10);
        let metrics = self.ask("GET", "/metrics", "text/plain", "")?;
        let sum = |name: &str| -> f64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        figures.requests = sum("topos_requests_total{");
        figures.commits = sum("topos_commit_requests_count");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
