//! The logger against servers of all tempers. As root each test has a network of its own, otherwise loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by them and skips with a word"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own children")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use ctxinit::agent::channel::Channel;
use ctxinit::agent::protocol::{FromLogger, Record, ToLogger};
use ctxinit::clock::Deadline;
use ctxinit::syslog::Origin;
use ctxinit::syslog::collect::Sources;
use ctxinit::syslog::lasting::Lasting;
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

/// Longer than any pause between the tries that a test provokes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the machine's records say of it.
const ORIGIN: &str = "vm=\"11111111-2222-3333-4444-555555555555\" boot=\"0a1b2c3d\"";

struct Machine {
    dir: tempfile::TempDir,
    control: Channel,
    /// Gives the exit code and the processor time used.
    role: JoinHandle<(i32, Duration)>,
}

impl Machine {
    fn start(kmsg: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(&dir.path().join("log"), kmsg).unwrap();
        let (mut control, theirs) = Channel::pair().unwrap();
        let role = thread::spawn(move || {
            let origin =
                Origin { vm: "11111111-2222-3333-4444-555555555555".to_owned(), boot: "0a1b2c3d-e4f5".to_owned() };
            let mut lasting = Lasting::in_memory(sources).unwrap();
            let code = ctxinit::syslog::run(&mut lasting, &origin, theirs);
            (code, clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into())
        });
        control.send(&ToLogger::Hostname("vm7.site".to_owned()), b"").unwrap();
        Self { dir, control, role }
    }

    fn target(&mut self, port: u16, protocol: &str) {
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"protocol\": \"{protocol}\"}}");
        let syslog = serde_json::from_str(&syslog).unwrap();
        self.control.send(&ToLogger::Target { syslog: Box::new(syslog), nameservers: Vec::new() }, b"").unwrap();
    }

    fn sender(&self) -> UnixDatagram {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(self.dir.path().join("log")).unwrap();
        socket
    }

    /// Drains; (delivered, undelivered) and the exit code.
    fn drain(mut self, millis: u32) -> ((u64, u64), i32) {
        self.control.send(&ToLogger::Drain { millis }, b"").unwrap();
        let answer = self.control.recv(Deadline::after(PATIENCE)).unwrap();
        let Some((FromLogger::Drained { delivered, undelivered }, _)) = answer else { panic!("no answer") };
        ((delivered, undelivered), self.role.join().unwrap().0)
    }
}

/// A record as an independent reader of RFC 5424 sees it.
#[derive(Debug, PartialEq)]
struct Seen {
    pri: u8,
    stamp: SystemTime,
    host: String,
    app: String,
    procid: String,
    msgid: String,
    data: String,
    text: String,
}

fn parse(line: &str) -> Seen {
    let mut words = line.splitn(7, ' ');
    let mut next = || words.next().unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let (pri, stamp, host, app, procid, msgid, rest) = (next(), next(), next(), next(), next(), next(), next());
    let (data, text) = rest.split_once("] ").unwrap();
    Seen {
        pri: pri.strip_prefix('<').unwrap().strip_suffix(">1").unwrap().parse().unwrap(),
        stamp: humantime::parse_rfc3339(&stamp).unwrap(),
        host,
        app,
        procid,
        msgid,
        data: format!("{data}]"),
        text: text.to_owned(),
    }
}

/// The next octet-counted frame; `None` at the end of the connection, be it in the middle of a frame.
fn frame(stream: &mut impl Read) -> Option<Seen> {
    let mut length = 0;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        match byte[0] {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit.checked_sub(b'0').filter(|d| *d < 10).unwrap()),
        }
    }
    let mut record = vec![0; length];
    stream.read_exact(&mut record).ok()?;
    Some(parse(&String::from_utf8(record).unwrap()))
}

fn frames(stream: impl Read, count: usize) -> Vec<Seen> {
    let mut stream = BufReader::new(stream);
    (0..count).map_while(|_| frame(&mut stream)).collect()
}

/// A network with nothing but loopback, for this thread and those that it starts.
fn private_network() {
    if nix::unistd::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("no connection: {error}"),
        }
    }
}

fn texts(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|record| record.text.as_str()).collect()
}

#[test]
fn what_was_logged_before_the_server_was_there_arrives() {
    private_network();
    let port = free_port();
    let mut machine = Machine::start(None);
    let sender = machine.sender();
    for n in 0..300 {
        sender.send(format!("<30>app[1]: {n}").as_bytes()).unwrap();
    }
    machine.target(port, "tcp");
    for n in 300..500 {
        sender.send(format!("<30>app[1]: {n}").as_bytes()).unwrap();
    }
    // The time that a record was made is kept, the name is the one of today.
    thread::sleep(Duration::from_millis(300));
    let before = SystemTime::now();
    machine.control.send(&ToLogger::Hostname("vm8".to_owned()), b"").unwrap();
    let stream = accept(&listen(port));
    let seen = frames(stream, 500);
    let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(texts(&seen), expected);
    let uid = nix::unistd::geteuid();
    let pid = std::process::id();
    for (n, record) in seen.iter().enumerate() {
        assert!(record.stamp < before && before.duration_since(record.stamp).unwrap() < PATIENCE, "{record:?}");
        assert_eq!((record.pri, record.host.as_str(), record.app.as_str()), (30, "vm8", "app"));
        assert_eq!(record.procid, pid.to_string());
        let data = format!("[ctxinit@32473 {ORIGIN} uid=\"{uid}\" pid=\"{pid}\"][meta sequenceId=\"{}\"]", n + 1);
        assert_eq!(record.data, data);
    }
    // The server is gone by now (its end was dropped): that is no reason not to leave.
    let ((delivered, undelivered), code) = machine.drain(2000);
    assert_eq!((delivered, undelivered, code), (500, 0, 0));
}

#[test]
fn three_restarts_lose_nothing() {
    private_network();
    let listener = listen(0);
    let port = listener.local_addr().unwrap().port();
    let mut machine = Machine::start(None);
    machine.target(port, "tcp");
    let sender = machine.sender();
    let writer = thread::spawn(move || {
        for n in 0..5000 {
            let padding = "x".repeat(n % 7 * 300);
            sender.send(format!("<14>app: {n} {padding}").as_bytes()).unwrap();
            if n % 50 == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let mut seen = Vec::new();
    let mut listener = Some(listener);
    for round in 0..3 {
        let mut stream = BufReader::new(accept(listener.as_ref().unwrap()));
        seen.extend((0..900).map(|_| frame(&mut stream).unwrap()));
        // Until the buffers are full and a record is cut in the middle.
        thread::sleep(Duration::from_millis(300));
        drop(listener.take());
        stream.get_ref().shutdown(Shutdown::Write).unwrap();
        seen.extend(std::iter::from_fn(|| frame(&mut stream)));
        drop(stream);
        thread::sleep(Duration::from_millis(50 * round));
        listener = Some(listen(port));
    }
    assert!(seen.len() < 5000, "the restarts were to be in the middle");
    let mut stream = BufReader::new(accept(listener.as_ref().unwrap()));
    while seen.last().is_some_and(|record| !record.text.starts_with("4999 ")) {
        seen.push(frame(&mut stream).unwrap());
    }
    writer.join().unwrap();
    let mut numbers: Vec<usize> =
        seen.iter().map(|record| record.text.split(' ').next().unwrap().parse().unwrap()).collect();
    // None is missing, and none comes before it was due.
    numbers.dedup_by_key(|number| *number);
    let mut next = 0;
    for number in numbers {
        assert!(number <= next, "{next} is missing before {number}");
        next = next.max(number + 1);
    }
    assert_eq!(next, 5000);
    let closer = thread::spawn(move || frames(&mut stream, 1));
    assert_eq!(machine.drain(5000), ((5000, 0), 0));
    assert_eq!(closer.join().unwrap(), []);
}

#[test]
fn udp_carries_one_record_a_datagram() {
    private_network();
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut machine = Machine::start(None);
    machine.target(server.local_addr().unwrap().port(), "udp");
    let sender = machine.sender();
    for n in 0..200 {
        sender.send(format!("<14>app: {n} a\nb").as_bytes()).unwrap();
        let mut buffer = [0; 9000];
        let length = server.recv(&mut buffer).unwrap();
        let record = parse(std::str::from_utf8(&buffer[..length]).unwrap());
        assert_eq!((record.pri, record.text), (14, format!("{n} a#012b")));
    }
    assert_eq!(machine.drain(2000), ((200, 0), 0));
}

#[test]
fn a_flood_blocks_nobody_and_its_losses_are_announced() {
    private_network();
    const SENDERS: usize = 2;
    const EACH: usize = 60_000;
    let port = free_port();
    let mut machine = Machine::start(None);
    machine.target(port, "tcp");
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let sender = machine.sender();
            thread::spawn(move || {
                let mut longest = Duration::ZERO;
                for n in 0..EACH {
                    let pri = if n % 100 == 0 { 11 } else { 14 };
                    let start = Instant::now();
                    sender.send(format!("<{pri}>app: {n} {}", "x".repeat(200)).as_bytes()).unwrap();
                    longest = longest.max(start.elapsed());
                }
                longest
            })
        })
        .collect();
    let start = Instant::now();
    for sender in senders {
        let longest = sender.join().unwrap();
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
    println!("{} records collected in {:?}", SENDERS * EACH, start.elapsed());

    let listener = listen(port);
    let server = thread::spawn(move || frames(accept(&listener), usize::MAX));
    let ((delivered, undelivered), code) = machine.drain(30_000);
    let seen = server.join().unwrap();
    let (own, theirs): (Vec<_>, Vec<_>) = seen.iter().partition(|record| record.app == "ctxinit");
    let announced: usize = own
        .iter()
        .map(|record| {
            let count = record.text.strip_prefix("dropped ").unwrap().split(' ').next().unwrap();
            count.parse::<usize>().unwrap()
        })
        .sum();
    assert!(announced > 0 && own.iter().all(|record| record.pri == 13 * 8 + 4 && record.msgid == "log-gap"), "{own:?}");
    assert_eq!(theirs.len() + announced, SENDERS * EACH);
    let severe = theirs.iter().filter(|record| record.pri == 11).count();
    assert_eq!(severe, SENDERS * EACH / 100, "the severe ones were to outlive the rest");
    assert_eq!((delivered as usize, undelivered as usize, code), (seen.len(), announced, 0));
}

#[test]
fn a_drain_without_a_server_tells_what_is_left() {
    private_network();
    // No server known (and more than the queue takes), none there, and one that never reads.
    let stalled = listen(0);
    let stalled_port = stalled.local_addr().unwrap().port();
    for port in [None, Some(free_port()), Some(stalled_port)] {
        let mut machine = Machine::start(None);
        if let Some(port) = port {
            machine.target(port, "tcp");
        }
        let count = match port {
            None => 3000,
            // More than two kernels keep for it.
            Some(port) if port == stalled_port => 1800,
            Some(_) => 100,
        };
        let text = "x".repeat(4000);
        let sender = machine.sender();
        for _ in 0..count {
            sender.send(format!("<14>app: {text}").as_bytes()).unwrap();
        }
        let start = Instant::now();
        let ((delivered, undelivered), code) = machine.drain(700);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        // What was dropped is announced by a record more.
        let announced = delivered + undelivered - count;
        assert!(announced <= 1 + u64::from(port != Some(stalled_port)) && code == 0, "{port:?} {announced}");
        assert!(undelivered > 0 && (delivered > 0) == (port == Some(stalled_port)), "{port:?} {delivered}");
    }
}

#[test]
fn a_dead_agent_is_noticed_and_the_rest_delivered() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let record = Record {
        unix_micros: 1_000_000,
        severity: 3,
        tag: "payload".to_owned(),
        pid: Some(9),
        job: Some("a\"]b".to_owned()),
        msgid: None,
        data: Vec::new(),
        text: "\0".into(),
    };
    machine.control.send(&ToLogger::Record { number: 0, record }, b"").unwrap();
    let Machine { control, role, dir: _dir } = machine;
    let server = thread::spawn(move || frames(accept(&listener), usize::MAX));
    drop(control);
    assert_eq!(role.join().unwrap().0, 1);
    let seen = server.join().unwrap();
    let data = format!("[ctxinit@32473 {ORIGIN} job=\"a\\\"\\]b\"][meta sequenceId=\"1\"]");
    assert_eq!((seen[0].pri, seen[0].app.as_str(), seen[0].data.as_str()), (11, "payload", data.as_str()));
    assert_eq!((seen[0].procid.as_str(), seen[0].text.as_str()), ("9", "#000"));
    assert!(seen[1].text.starts_with("the agent is lost"), "{seen:?}");
}

#[test]
fn waiting_costs_nothing() {
    private_network();
    // Connected and idle, then without server and agent.
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    machine.sender().send(b"<14>app: x").unwrap();
    let mut stream = accept(&listener);
    assert_eq!(frames(&mut stream, 1).len(), 1);
    thread::sleep(Duration::from_millis(500));
    drop((stream, listener));
    machine.sender().send(b"<14>app: y").unwrap();
    let start = Instant::now();
    drop(machine.control);
    let (code, used) = machine.role.join().unwrap();
    assert!(start.elapsed() > Duration::from_secs(1), "it was to try on: {:?}", start.elapsed());
    assert!(code == 1 && used < Duration::from_millis(100), "{used:?}");
}

#[test]
fn the_kernels_log_is_read_from_its_beginning() {
    private_network();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kmsg");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut kernel = File::options().read(true).write(true).open(&path).unwrap();
    let listener = listen(0);
    let mut machine = Machine::start(Some(&path));
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let mut stream = BufReader::new(accept(&listener));
    let mut next = |line: &[u8]| {
        kernel.write_all(line).unwrap();
        frame(&mut stream).unwrap()
    };
    let first = next(b"6,10,1000000,-;caf\\xc3\\xa9\\x0ab\n DEVICE=+pci:1\n");
    assert_eq!((first.pri, first.app.as_str(), first.text.as_str()), (6, "kernel", "café#012b"));
    let lost = next(b"4,15,1000000,-;late\n");
    assert_eq!((lost.pri, lost.text.as_str()), (44, "4 kernel records were overwritten before they were read"));
    assert_eq!(next(b"30,16,1000000,-;init[1]: up\n").text, "late");
    let user = frame(&mut stream).unwrap();
    assert_eq!((user.app.as_str(), user.procid.as_str(), user.text.as_str()), ("init", "1", "up"));
    drop(kernel);
    let last = frame(&mut stream).unwrap();
    assert!(last.text.starts_with("the kernel's log cannot be read any more"), "{last:?}");
    drop(stream);
    machine.drain(100);
}

#[test]
fn the_real_ring_is_understood() {
    private_network();
    let kmsg = Path::new("/dev/kmsg");
    if let Err(error) = File::open(kmsg) {
        println!("skipped: {}: {error}", kmsg.display());
        return;
    }
    let listener = listen(0);
    let mut machine = Machine::start(Some(kmsg));
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let seen = frames(accept(&listener), 20);
    let up = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    // The kernel's clock and ours may differ by a little.
    let boot = SystemTime::now() - Duration::from(up) - Duration::from_secs(1);
    assert!(seen.iter().any(|record| record.pri < 8 && record.app == "kernel"), "{seen:?}");
    assert!(seen.iter().all(|record| (boot..=SystemTime::now()).contains(&record.stamp)), "{seen:?}");
    machine.drain(100);
}

#[test]
fn messages_of_the_syslog_crate_are_understood() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let path = machine.dir.path().join("log");
    let short = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_DAEMON,
        hostname: None,
        process: "tool".to_owned(),
        pid: 4,
    };
    let named = syslog::Formatter3164 { hostname: Some("liar".to_owned()), ..short.clone() };
    syslog::unix_custom(short, &path).unwrap().err("short\nform").unwrap();
    syslog::unix_custom(named, &path).unwrap().warning("named form").unwrap();
    let long = syslog::Formatter5424 {
        facility: syslog::Facility::LOG_USER,
        hostname: None,
        process: "tool".to_owned(),
        pid: 4,
    };
    let mut long = syslog::unix_custom(long, &path).unwrap();
    long.info((7, BTreeMap::new(), "long form")).unwrap();
    let forged = BTreeMap::from([("uid".to_owned(), "0".to_owned())]);
    long.info((7, BTreeMap::from([("ctxinit@32473".to_owned(), forged)]), "forged")).unwrap();
    // The crate buffers a datagram until it is flushed or dropped.
    drop(long);
    let seen = frames(accept(&listener), 4);
    let pid = std::process::id().to_string();
    assert!(seen.iter().all(|r| r.app == "tool" && r.host == "vm7.site" && r.procid == pid), "{seen:?}");
    assert_eq!(texts(&seen), ["short#012form", "named form", "long form", "[ctxinit@32473 uid=\"0\"] forged"]);
    assert_eq!(seen.iter().map(|record| record.pri).collect::<Vec<_>>(), [27, 28, 14, 14]);
    machine.drain(100);
}

#[test]
fn a_datagram_longer_than_any_record_is_cut() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let sender = machine.sender();
    // Beyond what an unprivileged sender's buffer can hold.
    let forced = nix::sys::socket::setsockopt(&sender, nix::sys::socket::sockopt::SndBufForce, &1_000_000);
    let length = if forced.is_ok() { 300_000 } else { 100_000 };
    let mut message = b"<14>app: ".to_vec();
    message.resize(length, b'y');
    sender.send(&message).unwrap();
    sender.send(b"<14>app: next").unwrap();
    let seen = frames(accept(&listener), 2);
    assert!(seen[0].text.ends_with(&format!("yy [cut, {length} bytes]")), "{seen:?}");
    assert_eq!(seen[1].text, "next");
    machine.drain(100);
}

#[test]
fn rsyslog_gets_every_record_whole() {
    private_network();
    let dir = tempfile::tempdir().unwrap();
    let (port, out) = (free_port(), dir.path().join("out"));
    let conf = dir.path().join("rsyslog.conf");
    let fields = "%hostname%|%app-name%|%procid%|%msgid%|%syslogfacility%|%syslogpriority%|%structured-data%|%msg%\\n";
    let text = format!(
        "global(workDirectory=\"{dir}\")\nmodule(load=\"imptcp\")\n\
         template(name=\"all\" type=\"string\" string=\"{fields}\")\n\
         input(type=\"imptcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
         action(type=\"omfile\" file=\"{out}\" template=\"all\" flushOnTXEnd=\"on\")\n",
        dir = dir.path().display(),
        out = out.display(),
    );
    std::fs::write(&conf, text).unwrap();
    let daemon = Command::new("rsyslogd").arg("-n").arg("-f").arg(&conf).arg("-i").arg(dir.path().join("pid")).spawn();
    let mut daemon = match daemon {
        Ok(daemon) => daemon,
        Err(error) => {
            println!("skipped: rsyslogd: {error}");
            return;
        }
    };
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(server).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }

    let odd: [(&[u8], &str); 6] = [
        (b"tab\tand \x1b[31mred", "tab#011and #033[31mred"),
        (b"two\nlines", "two#012lines"),
        ("žluťoučký 馬 😀".as_bytes(), "žluťoučký 馬 😀"),
        (b"latin \xe9", "latin #351"),
        (b"\"quoted\" [x y=\"z\"] 100% \\ | <0>", "\"quoted\" [x y=\"z\"] 100% \\ | <0>"),
        (b"", ""),
    ];
    let mut machine = Machine::start(None);
    machine.target(port, "tcp");
    let sender = machine.sender();
    let mut expected = String::new();
    let (uid, pid) = (nix::unistd::geteuid(), std::process::id());
    for n in 0..1000 {
        let (raw, text) = odd[n % odd.len()];
        let severity = n % 8;
        sender.send(&[format!("<{}>app{n}[1]: {n} ", 24 + severity).as_bytes(), raw].concat()).unwrap();
        let data = format!("[ctxinit@32473 {ORIGIN} uid=\"{uid}\" pid=\"{pid}\"][meta sequenceId=\"N\"]");
        expected += &format!("vm7.site|app{n}|{pid}|-|3|{severity}|{data}|{n} {text}\n");
    }
    let owner = "/O=x/CN=\"J\" ] é";
    let record = Record {
        pid: Some(9),
        job: Some("job-1".to_owned()),
        msgid: Some("job-end".to_owned()),
        data: vec![("owner".to_owned(), owner.to_owned())],
        ..Record::now(5, "ctxinit", "job-1 ended".to_owned())
    };
    machine.control.send(&ToLogger::Record { number: 0, record }, b"").unwrap();
    let audit = format!(
        "vm7.site|ctxinit|9|job-end|13|5|[ctxinit@32473 {ORIGIN} job=\"job-1\"]\
         [audit@32473 owner=\"/O=x/CN=\\\"J\\\" \\] é\"][meta sequenceId=\"N\"]|job-1 ended"
    );
    let drained = machine.drain(1001);
    let lines = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    while lines() < 1001 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let written = std::fs::read_to_string(&out).unwrap();
    // The two ways into the logger have no order among themselves; the numbers say which one came about.
    let mut numbers = Vec::new();
    let mut unnumbered = |line: &str| {
        let (head, rest) = line.split_once("sequenceId=\"").unwrap();
        let (number, rest) = rest.split_once('"').unwrap();
        numbers.push(number.parse::<usize>().unwrap());
        format!("{head}sequenceId=\"N\"{rest}")
    };
    let written: Vec<String> = written.lines().map(&mut unnumbered).collect();
    assert!(numbers.into_iter().eq(1..=1001));
    let (audits, others): (Vec<_>, Vec<_>) = written.iter().partition(|line| line.contains("|job-end|"));
    assert_eq!(audits, [&audit]);
    for (got, want) in others.iter().zip(expected.lines()) {
        assert_eq!(*got, want);
    }
    assert_eq!(others.len(), 1000);
    assert_eq!(drained, ((1001, 0), 0));
}
