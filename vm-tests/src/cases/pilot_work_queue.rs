//! A real pilot with its real server: Work Queue's worker, as Debian packages it, in a machine, and its manager here.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::PAYLOAD_USERS;
use crate::process::{Process, interrupted};
use crate::site::{HOST, Site, keep_port};
use crate::stage::{Stage, policy_with};

pub const CASE: Case = Case { deadline: 240, ..Case::new("pilot-work-queue", host) };

/// Where scripts/setup has unpacked it.
const PROGRAMS: &str = "target/work-queue/usr/bin";
const WORKER: &str = "usr/bin/work_queue_worker";
const TASKS: usize = 5;
/// So long the worker waits for more, and then ends by itself; longer than any pilot that fizzles here.
const IDLE_SECS: u32 = 5;
const STARTING: Duration = Duration::from_secs(30);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let mut manager = Manager::start(stage)?;
    let command = [format!("/{WORKER}"), "-t".into(), IDLE_SECS.to_string(), HOST.into(), manager.port.to_string()];
    let policy = policy_with(json!({"payload": {"command": command, "wall_secs": 200}}));
    let context = site.context_with(json!({"work": {"exec": {"fizzle_secs": 2}}}));
    let cd = stage.cd(&[("context.json", &context)])?;
    let worker = format!("{PROGRAMS}/work_queue_worker");
    let machine = stage.debian_with(&policy, &[(&worker, WORKER)])?.cd(&cd).boot()?;
    for task in 0..TASKS {
        let numbers: String = (0..2000).map(|line| format!("{}\n", line * (task + 3) % 2003)).collect();
        manager.submit(task, &numbers)?;
    }
    for _ in 0..TASKS {
        let done = manager.next_done(machine.patience())?;
        let uid = done["output"].as_str().unwrap_or_default().trim().parse::<u32>().unwrap_or_default();
        if done["return_status"] != 0 || !PAYLOAD_USERS.contains(&uid) {
            return Err(format!("expected a task that a payload's user has done, got {done}"));
        }
    }
    let verdict = machine.end()?.verdict().unwrap_or_default();
    if !verdict.starts_with("200 the pilot ended well after ") {
        return Err(format!("expected a pilot that ended well, got {verdict:?}"));
    }
    (0..TASKS).try_for_each(|task| manager.expect_result(task))
}

/// Its server, which is told of tasks by JSON-RPC: each message with its length and a line feed before it.
struct Manager {
    _server: Process,
    _ports: [OwnedFd; 2],
    rpc: BufReader<TcpStream>,
    /// Where workers ask.
    port: u16,
    dir: PathBuf,
}

impl Manager {
    fn start(stage: &Stage) -> Result<Self, String> {
        let ports = || keep_port().map_err(|errno| format!("a port for Work Queue: {errno}"));
        let ((port, keeper), (rpc_port, rpc_keeper)) = (ports()?, ports()?);
        let mut server = Process::start(
            Command::new(format!("{PROGRAMS}/work_queue_server"))
                .args(["-p", &port.to_string(), "-s", &rpc_port.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        )?;
        let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, rpc_port)).map_err(|error| error.to_string());
        let stream = server.until(STARTING, connect)?;
        stream.set_read_timeout(Some(STARTING)).map_err(|error| format!("work_queue_server: {error}"))?;
        let rpc = BufReader::new(stream);
        Ok(Self { _server: server, _ports: [keeper, rpc_keeper], rpc, port, dir: stage.dir.clone() })
    }

    /// A task that sorts the lines of a file, and says who it is.
    fn submit(&mut self, task: usize, lines: &str) -> Result<(), String> {
        let (from, to) = (self.dir.join(format!("in-{task}")), self.dir.join(format!("out-{task}")));
        fs::write(&from, lines).map_err(|error| format!("{}: {error}", from.display()))?;
        let flags = json!({"cache": false, "watch": false});
        let task = json!({
            "command_line": "sort -n < lines > sorted && id -u",
            "input_files": [{"local_name": from, "remote_name": "lines", "flags": flags}],
            "output_files": [{"local_name": to, "remote_name": "sorted", "flags": flags}],
        });
        let answer = self.call("submit", &json!(task.to_string()))?;
        if answer.get("result").is_some() { Ok(()) } else { Err(format!("work_queue_server: {answer}")) }
    }

    /// Waits for a task that is done. It talks to its workers only meanwhile.
    fn next_done(&mut self, limit: Duration) -> Result<Value, String> {
        let deadline = Instant::now() + limit;
        loop {
            let answer = self.call("wait", &json!(1))?;
            match answer["result"].as_str() {
                Some(told) => return serde_json::from_str(told).map_err(|error| format!("{told}: {error}")),
                None if interrupted() || Instant::now() > deadline => {
                    return Err(format!("no task was done: {answer}"));
                }
                None => {}
            }
        }
    }

    fn expect_result(&self, task: usize) -> Result<(), String> {
        let read = |name: String| {
            let text = fs::read_to_string(self.dir.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>(text.lines().map(|line| line.parse().unwrap_or(u32::MAX)).collect::<Vec<_>>())
        };
        let (mut expected, found) = (read(format!("in-{task}"))?, read(format!("out-{task}"))?);
        expected.sort_unstable();
        if found == expected { Ok(()) } else { Err(format!("expected the sorted lines of task {task}, got {found:?}")) }
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        let at = |error: std::io::Error| format!("work_queue_server: {method}: {error}");
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).to_string();
        write!(self.rpc.get_mut(), "{}\n{request}", request.len()).map_err(at)?;
        let mut length = String::new();
        self.rpc.read_line(&mut length).map_err(at)?;
        let mut answer = vec![0; length.trim().parse().unwrap_or(0)];
        self.rpc.read_exact(&mut answer).map_err(at)?;
        serde_json::from_slice(&answer).map_err(|error| format!("work_queue_server: {method}: {error}"))
    }
}
