//! The agent's keeping of the logger, with real processes and kill -9.
//!
//! A program of its own with one thread: the agent forks its roles, and `process::fork` refuses to fork a process that
//! has more, as the usual test harness has. It needs root: a logger becomes a user of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy exempts only functions marked as tests"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own children")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ctxinit::agent::events::{Events, Stop};
use ctxinit::agent::logger;
use ctxinit::agent::report::LogReport;
use ctxinit::clock::Deadline;
use ctxinit::ids;
use ctxinit::logging;
use ctxinit::protocol::{Record, ToLogger};
use ctxinit::sys::process::{self, Child};
use ctxinit::syslog::Origin;
use ctxinit::syslog::collect::Sources;
use ctxinit::syslog::lasting::Lasting;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TESTS: &[(&str, fn())] = &[
    ("kill -9 in the middle loses no record and doubles none", killed_in_the_middle),
    ("a logger that is killed while it drops leaves a right count behind", killed_while_dropping),
    ("a fourth death in a minute is the end, and somebody reads why", fourth_death),
    ("loggers that die while they drain leave right numbers behind", killed_while_draining),
    ("the agent knows whether a server is there", reached_and_lost),
];
/// For everything that takes moments on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        if !nix::unistd::geteuid().is_root() {
            println!("test {name} ... left out, as it needs root");
            continue;
        }
        // Each is an agent of its own.
        let child = process::fork(|| {
            apart();
            test();
            0
        });
        let exit = child.unwrap().wait().unwrap();
        println!("test {name} ... {}", if exit.success() { "ok" } else { "FAILED" });
        if !exit.success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A network of its own, and no console: the agent speaks to it.
fn apart() {
    std::panic::set_hook(Box::new(|panic| println!("{panic}")));
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    if Path::new("/dev/console").exists() {
        mount(Some("/dev/null"), "/dev/console", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
}

struct Machine {
    dir: tempfile::TempDir,
    events: Events,
}

impl Machine {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(&dir.path().join("log"), None).unwrap();
        logging::to_console_and_logger();
        let mut events = Events::new().unwrap();
        let origin = Origin { vm: "vm".to_owned(), boot: "0a1b2c3d".to_owned() };
        events.start_log(Lasting::in_memory(sources).unwrap(), origin).unwrap();
        Self { dir, events }
    }

    fn target(&mut self, port: u16) {
        let syslog = serde_json::from_str(&format!("{{\"server\": \"127.0.0.1\", \"port\": {port}}}")).unwrap();
        let target = ToLogger::Target { syslog: Box::new(syslog), nameservers: Vec::new() };
        self.events.log_mut().unwrap().say(target, Vec::new());
    }

    /// Waits until the log is so.
    fn wait(&mut self, what: &str, is_so: impl Fn(&logger::Log) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        let so = self.events.wait_until(&[], deadline, |events| events.log().is_some_and(&is_so));
        assert!(so == Ok(true) || self.events.log().is_some_and(&is_so), "{what}: {so:?}");
    }

    fn drain(&mut self) -> LogReport {
        self.events.ending();
        logger::drain(&mut self.events).unwrap()
    }
}

fn say(text: String) {
    logging::forward(Record::now(6, "agent", text), false);
}

/// The logger of a process, once it is one.
fn logger_of(parent: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().find_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t"))?;
        let logger = uid.starts_with(&ids::LOGGER.to_string()) && !status.contains("State:\tZ");
        logger.then(|| Pid::from_raw(pid.parse().unwrap()))
    })
}

/// Kills so many loggers of this process, one after the other.
fn killer(times: u32, pause: Duration) -> Child {
    let agent = std::process::id();
    process::fork(|| {
        for _ in 0..times {
            sleep(pause);
            let deadline = Instant::now() + PATIENCE;
            let logger = loop {
                match logger_of(agent) {
                    Some(logger) => break logger,
                    None if Instant::now() > deadline => return 1,
                    None => sleep(Duration::from_millis(1)),
                }
            };
            let _ = kill(logger, Signal::SIGKILL);
            // Or the same one would be found again.
            while logger_of(agent) == Some(logger) && Instant::now() < deadline {
                sleep(Duration::from_millis(1));
            }
        }
        0
    })
    .unwrap()
}

/// A server that writes what it gets into a file, a record a line, before it closes.
fn server(listener: TcpListener, out: &Path) -> Child {
    let mut out = File::create(out).unwrap();
    process::fork(|| {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some(record) = frame(&mut stream) {
                out.write_all(&record).unwrap();
            }
        }
        0
    })
    .unwrap()
}

/// The next octet-counted record and a line feed; nothing at the end, be it in the middle of one.
fn frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        match byte {
            [b' '] => break,
            [digit] => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut record = vec![0; length];
    stream.read_exact(&mut record).ok()?;
    record.push(b'\n');
    Some(record)
}

struct Seen {
    id: u64,
    app: String,
    msgid: String,
    text: String,
    /// Of an announcement.
    count: Option<u64>,
}

/// What a server got, without what came again with the same number.
fn read(out: &Path) -> Vec<Seen> {
    let text = fs::read_to_string(out).unwrap();
    let (mut seen, mut known): (Vec<Seen>, _) = (Vec::new(), HashSet::new());
    for line in text.lines() {
        let mut words = line.splitn(7, ' ').skip(3);
        let (app, _, msgid) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (_, rest) = line.split_once("[meta sequenceId=\"").unwrap();
        let (id, text) = rest.split_once("\"] ").unwrap();
        let id = id.parse().unwrap();
        let count = line.split_once(" count=\"").map(|(_, rest)| rest.split('"').next().unwrap().parse().unwrap());
        if known.insert(id) {
            seen.push(Seen { id, app: app.to_owned(), msgid: msgid.to_owned(), text: text.to_owned(), count });
        }
    }
    seen
}

fn killed_in_the_middle() {
    const MANY: u64 = 5000;
    const KILLS: u32 = 3;
    let mut machine = Machine::start();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    machine.target(listener.local_addr().unwrap().port());
    let out = machine.dir.path().join("out");
    let server = server(listener, &out);
    let path = machine.dir.path().join("log");
    let sender = process::fork(|| {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(path).unwrap();
        for n in 0..MANY {
            // Nobody reads between two loggers, and the queue may fill.
            socket.send(format!("<14>sender: {n}").as_bytes()).unwrap();
            if n % 50 == 0 {
                sleep(Duration::from_millis(5));
            }
        }
        0
    })
    .unwrap();
    let killer = killer(KILLS, Duration::from_millis(100));
    for n in 0..MANY {
        say(n.to_string());
        if n % 10 == 0 {
            let pause = Deadline::after(Duration::from_millis(u64::from(n % 50 == 0) * 5));
            assert_eq!(machine.events.wait(&[], pause), Ok(false));
        }
    }
    for helper in [sender, killer] {
        let exit = machine.events.wait_child(&helper, Deadline::after(PATIENCE)).unwrap();
        assert!(exit.unwrap().success());
    }
    machine.wait("the last logger", |log| log.report().restarts == u64::from(KILLS));
    let report = machine.drain();
    server.signal(Signal::SIGKILL).unwrap();

    let seen = read(&out);
    assert!(seen.iter().map(|record| record.id).eq(1..=seen.len() as u64), "numbers have no gap and go up");
    let of = |app: &str| seen.iter().filter(|record| record.app == app).map(|record| record.text.as_str()).collect();
    let agent: Vec<&str> = of("agent");
    assert!(agent.iter().map(|text| text.parse::<u64>().unwrap()).eq(0..MANY), "{} of the agent's", agent.len());
    let theirs: Vec<u64> = Vec::<&str>::into_iter(of("sender")).map(|text| text.parse().unwrap()).collect();
    assert!(theirs.iter().copied().eq(0..MANY), "{} of the sender's", theirs.len());
    let restarts = seen.iter().filter(|record| record.msgid == "log-restart").count();
    let words = seen.iter().filter(|record| record.text.starts_with("the logger was started again")).count();
    assert_eq!((restarts, words), (KILLS as usize, KILLS as usize));
    assert_eq!((report.undelivered, report.dropped, report.restarts), (0, 0, 3));
    assert_eq!(report.delivered, seen.len() as u64);
}

fn killed_while_dropping() {
    const MANY: u64 = 120_000;
    let mut machine = Machine::start();
    let path = machine.dir.path().join("log");
    let sender = process::fork(|| {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(path).unwrap();
        let text = "x".repeat(200);
        (0..MANY).for_each(|n| assert!(socket.send(format!("<15>sender: {n} {text}").as_bytes()).is_ok()));
        0
    })
    .unwrap();
    // Not before it drops something: 8 MiB are some 30,000 of these.
    while machine.events.log().unwrap().report().dropped == 0 {
        assert_eq!(machine.events.wait(&[], Deadline::after(Duration::from_millis(10))), Ok(false));
    }
    let killer = killer(2, Duration::from_millis(50));
    for helper in [sender, killer] {
        let exit = machine.events.wait_child(&helper, Deadline::after(PATIENCE)).unwrap();
        assert!(exit.unwrap().success());
    }
    machine.wait("the last logger", |log| log.report().restarts == 2);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    machine.target(listener.local_addr().unwrap().port());
    let out = machine.dir.path().join("out");
    let server = server(listener, &out);
    let report = machine.drain();
    server.signal(Signal::SIGKILL).unwrap();

    let seen = read(&out);
    let arrived = seen.iter().filter(|record| record.app == "sender").count() as u64;
    let announced: u64 =
        seen.iter().filter(|record| record.msgid == "log-gap").map(|record| record.count.unwrap()).sum();
    let made = seen.last().unwrap().id;
    assert_eq!(seen.len() as u64 + announced, made, "{announced} announced");
    assert_eq!(arrived + announced, MANY, "{arrived} arrived, {announced} announced");
    assert_eq!((report.dropped, report.undelivered), (announced, announced));
}

fn fourth_death() {
    let mut machine = Machine::start();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    machine.target(listener.local_addr().unwrap().port());
    let out = machine.dir.path().join("out");
    let server = server(listener, &out);
    let killer = killer(4, Duration::ZERO);
    let end = machine.events.sleep(Deadline::after(PATIENCE));
    assert_eq!(end, Err(Stop));
    let why = machine.events.log().unwrap().broken().unwrap().to_owned();
    assert_eq!(why, "the logger died 4 times in 60 s, the last: killed by SIGKILL");
    say("last words".to_owned());
    let report = machine.drain();
    assert_eq!((report.undelivered, report.restarts), (0, 3));
    assert!(killer.wait().unwrap().success());
    server.signal(Signal::SIGKILL).unwrap();
    let seen = read(&out);
    for text in ["last words", "the logger died 4 times in 60 s, the last: killed by SIGKILL; no other is started"] {
        assert_eq!(seen.iter().filter(|record| record.text == text).count(), 1, "{text}");
    }
}

fn killed_while_draining() {
    const MANY: u64 = 100;
    let mut machine = Machine::start();
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    machine.target(nobody);
    (0..MANY).for_each(|n| say(n.to_string()));
    let killer = killer(4, Duration::from_millis(100));
    let start = Instant::now();
    let report = machine.drain();
    assert!(start.elapsed() < logger::DRAIN, "it was to be killed before");
    assert!(killer.wait().unwrap().success());
    // Of each logger but the first, one that it was started again. What the agent says meanwhile is for the console.
    assert_eq!((report.delivered, report.undelivered, report.restarts), (0, MANY + 3, 3), "{report:?}");
}

fn reached_and_lost() {
    let mut machine = Machine::start();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert!(!machine.events.log().unwrap().is_reached());
    machine.target(listener.local_addr().unwrap().port());
    machine.wait("a server", logger::Log::is_reached);
    let stream = listener.accept().unwrap().0;
    drop(listener);
    drop(stream);
    machine.wait("no server", |log| !log.is_reached());
    // A new logger is told the target again.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    machine.target(listener.local_addr().unwrap().port());
    machine.wait("a server", logger::Log::is_reached);
    kill(logger_of(std::process::id()).unwrap(), Signal::SIGKILL).unwrap();
    machine.wait("a second logger", |log| log.report().restarts == 1);
    machine.wait("a server", logger::Log::is_reached);
    assert!(machine.events.log().unwrap().report().reached);
}
