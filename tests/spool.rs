//! Records on a spool, and loggers that die: each is a process of its own and is killed as the kernel would.
//!
//! A program of its own with one thread, as the logger forks the child that writes to the disk. As root it has a network
//! of its own, otherwise loopback.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy exempts only functions marked as tests"
)]
#![allow(dead_code, reason = "the modules serve another program, too")]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own children")]

#[path = "syslog/reader.rs"]
mod reader;

use std::fs::{self, File, OpenOptions};
use std::io::BufReader;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ctxinit::clock::Deadline;
use ctxinit::protocol::channel::Channel;
use ctxinit::protocol::{FromLogger, Record, ToLogger};
use ctxinit::sys::process::{self, Child};
use ctxinit::syslog::Origin;
use ctxinit::syslog::collect::Sources;
use ctxinit::syslog::lasting::{Lasting, Records};
use ctxinit::syslog::ledger::Count;
use ctxinit::syslog::spool::{self, Spool};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use reader::{Seen, frames};

const PATIENCE: Duration = Duration::from_secs(30);
const MB: u64 = 1 << 20;

const TESTS: &[(&str, fn())] = &[
    ("the next machine delivers what the last one could not", next_machine),
    ("a killed logger's records are there for the next one", killed),
    ("an audit record is on the disk at once, others within a second", at_once),
    ("records keep the name of the machine that they were made in", names),
    ("a full spool drops the least severe and says so", full),
    ("whatever a power cut or a bad disk leaves, no wrong record is sent", damage),
    ("a disk that fails is said once, and the log goes on", fails),
    ("a disk that hangs is said once, and delays nobody", hangs),
    ("what is no spool is refused in one line", refused),
];

fn main() -> ExitCode {
    if nix::unistd::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    }
    // libtest's own options (--list, filters) mean nothing here; one word is a filter, as there.
    let filter = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        test();
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// A life of a machine with a spool: what the agent has.
struct Life {
    dir: tempfile::TempDir,
    lasting: Lasting,
    origin: Origin,
}

/// A logger of it.
struct Logger {
    child: Child,
    control: Channel,
}

impl Life {
    fn new(disk: &Path, boot: &str) -> Self {
        let spool = Spool::open(disk, true).unwrap();
        let (records, waiting) = Records::of(&spool).unwrap();
        Self::with(spool, records, &waiting, boot)
    }

    fn with(spool: Spool, records: Records, waiting: &spool::Waiting, boot: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources::open(&dir.path().join("log"), None).unwrap();
        let lasting = Lasting::on_disk(sources, spool, records, waiting).unwrap();
        Self { dir, lasting, origin: Origin { vm: "vm".to_owned(), boot: boot.to_owned() } }
    }

    fn logger(&mut self, name: &str) -> Logger {
        let (mut control, theirs) = Channel::pair().unwrap();
        let ours = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&control));
        let child = process::fork(|| {
            let _ = nix::unistd::close(ours);
            ctxinit::syslog::run(&mut self.lasting, &self.origin, theirs)
        });
        control.send(&ToLogger::Hostname(name.to_owned()), b"").unwrap();
        Logger { child: child.unwrap(), control }
    }

    fn send(&self, lines: impl IntoIterator<Item = String>) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(self.dir.path().join("log")).unwrap();
        lines.into_iter().for_each(|line| assert_eq!(socket.send(line.as_bytes()).unwrap(), line.len()));
    }

    fn count(&self, count: Count) -> u64 {
        self.lasting.count(count)
    }

    fn wait_stored(&self, number: u64) {
        wait(|| self.count(Count::Last) - self.count(Count::Before) >= number);
    }
}

impl Logger {
    fn kill(self) {
        self.child.signal(Signal::SIGKILL).unwrap();
        wait(|| self.child.try_wait().unwrap().is_some());
    }

    fn target(&mut self, port: u16) {
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"protocol\": \"tcp\"}}");
        let syslog = serde_json::from_str(&syslog).unwrap();
        self.control.send(&ToLogger::Target { syslog: Box::new(syslog), nameservers: Vec::new() }, b"").unwrap();
    }

    fn audit(&mut self, text: &str) {
        let record = Record { msgid: Some("job-end".to_owned()), ..Record::now(5, "ctxinit", text.to_owned()) };
        self.control.send(&ToLogger::Record { number: 1, record }, b"").unwrap();
    }

    /// (delivered, undelivered)
    fn drain(mut self, millis: u32) -> (u64, u64) {
        self.control.send(&ToLogger::Drain { millis }, b"").unwrap();
        let numbers = loop {
            let answer = self.control.recv(Deadline::after(PATIENCE)).unwrap();
            match answer.unwrap_or_else(|| panic!("no answer")).0 {
                FromLogger::Drained { delivered, undelivered } => break (delivered, undelivered),
                FromLogger::Reached | FromLogger::Lost => {}
            }
        };
        wait(|| self.child.try_wait().unwrap().is_some());
        numbers
    }

    /// Everything that it has for a server, which then goes away.
    fn deliver(mut self, count: usize) -> (Vec<Seen>, (u64, u64)) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        self.target(listener.local_addr().unwrap().port());
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        let seen = frames(&mut stream, count);
        // The server goes away, in order.
        drop((stream, listener));
        (seen, self.drain(500))
    }
}

fn wait(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it never came");
        sleep(Duration::from_millis(2));
    }
}

fn disk(bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool");
    let file = File::create_new(&path).unwrap();
    file.set_len(bytes).unwrap();
    spool::make(&file, bytes).unwrap();
    (dir, path)
}

/// What is on a disk, as a machine that is switched on now would find it.
fn waiting(disk: &Path) -> u64 {
    let spool = Spool::open(disk, false).unwrap();
    Records::of(&spool).unwrap().1.count
}

fn lines(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|n| format!("<14>app: {n}"))
}

/// Boot, sequenceId and text of each.
fn tell(seen: &[Seen]) -> Vec<(String, u64, String)> {
    let value = |record: &Seen, name: &str| {
        record.data.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap().to_owned()
    };
    let tell =
        |record: &Seen| (value(record, "boot"), value(record, "sequenceId").parse().unwrap(), record.text.clone());
    seen.iter().map(tell).collect()
}

fn expected(boot: &str, numbers: std::ops::Range<u64>, first: u64) -> Vec<(String, u64, String)> {
    numbers.clone().map(|n| (boot.to_owned(), n - numbers.start + first, n.to_string())).collect()
}

fn next_machine() {
    let (_dir, disk) = disk(4 * MB);
    let mut first = Life::new(&disk, "aaaaaaaa");
    let logger = first.logger("vm1");
    first.send(lines(0..300));
    first.wait_stored(300);
    assert_eq!(logger.drain(100), (0, 300));
    assert_eq!(first.count(Count::Spooled), 300);
    drop(first);
    // It comes to nothing, either, and says a little.
    let mut second = Life::new(&disk, "bbbbbbbb");
    let logger = second.logger("vm2");
    second.send(lines(500..510));
    second.wait_stored(10);
    assert_eq!(logger.drain(100), (0, 310));
    drop(second);
    let mut third = Life::new(&disk, "cccccccc");
    let logger = third.logger("vm3");
    third.send(lines(900..950));
    third.wait_stored(50);
    let (seen, told) = logger.deliver(360);
    let all = [expected("aaaaaaaa", 0..300, 1), expected("bbbbbbbb", 500..510, 1), expected("cccccccc", 900..950, 1)];
    assert_eq!(tell(&seen), all.concat());
    assert_eq!((told, third.count(Count::Spooled), waiting(&disk)), ((360, 0), 0, 0));
    // And nothing comes again.
    drop(third);
    let mut fourth = Life::new(&disk, "dddddddd");
    let logger = fourth.logger("vm4");
    fourth.send(lines(0..1));
    let (seen, told) = logger.deliver(1);
    assert_eq!((tell(&seen), told), (expected("dddddddd", 0..1, 1), (1, 0)));
}

fn killed() {
    let (_dir, disk) = disk(4 * MB);
    let mut life = Life::new(&disk, "aaaaaaaa");
    let logger = life.logger("vm1");
    life.send(lines(0..200));
    life.wait_stored(200);
    logger.kill();
    // Nobody reads now.
    life.send(lines(200..210));
    let logger = life.logger("vm1");
    life.wait_stored(211);
    let (seen, told) = logger.deliver(211);
    let (own, theirs): (Vec<_>, Vec<_>) = seen.into_iter().partition(|record| record.app == "ctxinit");
    assert!(own.len() == 1 && own[0].text.starts_with("the logger was started again after number 200: "), "{own:?}");
    let texts: Vec<_> = theirs.iter().map(|record| record.text.clone()).collect();
    assert_eq!((texts, told), ((0..210).map(|n| n.to_string()).collect(), (211, 0)));
    assert_eq!(waiting(&disk), 0);
}

fn at_once() {
    let (_dir, disk) = disk(4 * MB);
    let mut life = Life::new(&disk, "aaaaaaaa");
    let mut logger = life.logger("vm1");
    // The first write of all is over.
    life.send(lines(0..1));
    wait(|| waiting(&disk) == 1);
    let mut stored = 1;
    let mut after = |life: &Life, logger: &mut Logger, audit: bool| {
        let start = Instant::now();
        life.send(lines(0..50));
        life.wait_stored(stored + 50);
        stored += 50;
        if audit {
            logger.audit("it ended");
            stored += 1;
        }
        wait(|| waiting(&disk) == stored);
        start.elapsed()
    };
    // A busy machine may delay any of them.
    let audit = (0..5).map(|_| after(&life, &mut logger, true)).min().unwrap();
    let others = after(&life, &mut logger, false);
    println!("an audit record after {audit:?}, others after {others:?}");
    assert!(audit < Duration::from_millis(500) && others > Duration::from_millis(800), "{audit:?} {others:?}");
    logger.kill();
}

fn names() {
    let (_dir, disk) = disk(4 * MB);
    for (boot, name, range) in [("aaaaaaaa", "vm1.site", 0..5), ("bbbbbbbb", "vm2", 5..9)] {
        let mut life = Life::new(&disk, boot);
        let logger = life.logger(name);
        life.send(lines(range.clone()));
        life.wait_stored(range.end - range.start);
        logger.drain(50);
    }
    let mut life = Life::new(&disk, "cccccccc");
    let logger = life.logger("vm3");
    life.send(lines(9..12));
    let (seen, _) = logger.deliver(12);
    let hosts: Vec<&str> = seen.iter().map(|record| record.host.as_str()).collect();
    assert_eq!(hosts, [["vm1.site"; 5].as_slice(), &["vm2"; 4], &["vm3"; 3]].concat());
}

fn full() {
    let (_dir, disk) = disk(2 * MB);
    let mut first = Life::new(&disk, "aaaaaaaa");
    let mut logger = first.logger("vm1");
    logger.audit("before everything");
    first.wait_stored(1);
    let text = "x".repeat(1000);
    for n in 0..4000 {
        let severity = if n % 100 == 0 { 3 } else { 6 };
        first.send([format!("<{}>app: {n} {text}", 8 + severity)]);
    }
    let (delivered, undelivered) = logger.drain(100);
    let (spooled, dropped) = (first.count(Count::Spooled), first.count(Count::Dropped));
    assert!(delivered == 0 && dropped > 0 && spooled + dropped == undelivered, "{undelivered} {spooled} {dropped}");
    drop(first);
    let mut second = Life::new(&disk, "bbbbbbbb");
    let logger = second.logger("vm1");
    let (seen, _) = logger.deliver(spooled as usize);
    let severe = seen.iter().filter(|record| record.pri == 11).count();
    let audits: Vec<&str> = seen.iter().map(|record| record.msgid.as_str()).filter(|id| *id != "-").collect();
    assert!(audits.first() == Some(&"job-end") && audits[1..].iter().all(|id| *id == "log-gap"), "{audits:?}");
    assert_eq!((seen.len() as u64, severe), (spooled, 40));
}

/// What was written is 300 records of a first boot, of which 100 are delivered, and 50 of a second one.
fn damage() {
    let (_dir, disk) = disk(2 * MB);
    let text = |n: u64| format!("{n} {}", "y".repeat((n * 37 % 900) as usize));
    let line = |n: u64| format!("<{}>app: {}", 8 + n % 8, text(n));
    let mut first = Life::new(&disk, "aaaaaaaa");
    let logger = first.logger("vm1");
    first.send((1..=300).map(line));
    first.wait_stored(300);
    logger.deliver(100);
    let mut second = Life::new(&disk, "bbbbbbbb");
    let logger = second.logger("vm2");
    second.send((1..=50).map(line));
    second.wait_stored(50);
    logger.drain(50);
    let whole = fs::read(&disk).unwrap();
    let mut seed = 11_u64;
    let mut below = |limit: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % limit
    };
    let (mut opened, mut kept) = (0, 0);
    for round in 0..400 {
        let mut torn = whole.clone();
        for _ in 0..=below(6) {
            // Most of the disk is empty, so most of the damage goes to its beginning.
            let region = if below(4) == 0 { whole.len() } else { 400_000 };
            let at = below(region);
            let end = (at + [1, 16, 512, 4096, 40_000][below(5)]).min(whole.len());
            match below(4) {
                0 => torn[at..end].iter_mut().for_each(|byte| *byte ^= 1 << (round % 8)),
                1 => torn[at..end].fill(0),
                // A sector in another's place.
                2 => {
                    let from = below(whole.len() - (end - at)) / 512 * 512;
                    torn[at..end].copy_from_slice(&whole[from..from + end - at]);
                }
                _ => (at..end).for_each(|at| torn[at] = below(256) as u8),
            }
        }
        fs::write(&disk, &torn).unwrap();
        let Ok(spool) = Spool::open(&disk, false) else { continue };
        opened += 1;
        let records = records_of(&spool);
        let mut before = 0;
        for (number, record) in &records {
            assert!(*number > before, "{round}: {number} after {before}");
            before = *number;
            let seen = &tell(std::slice::from_ref(record))[0];
            let n = seen.1;
            let most = if seen.0 == "aaaaaaaa" { 300 } else { 50 };
            assert!((1..=most).contains(&n) && seen.2 == text(n), "{round}: {record:?}");
            assert_eq!(u64::from(record.pri), 8 + n % 8, "{round}");
        }
        kept += records.len();
    }
    println!("{opened} of 400 were spools yet, with {} records each", kept / opened);
    assert!(opened > 100 && kept / opened > 100);
}

/// Everything that would be sent.
fn records_of(spool: &Spool) -> Vec<(u64, Seen)> {
    let memory = ctxinit::sys::shared::memory(c"test", spool.length()).unwrap();
    spool.load(&memory).unwrap();
    let map = ctxinit::sys::shared::Shared::map(&memory, spool.length()).unwrap();
    let mut store = ctxinit::syslog::store::Store::open(map);
    let mut all = Vec::new();
    while let Some(record) = store.send() {
        let (head, tail) = record.bytes.split_at(record.host_at.into());
        let line = [head, b"vm", tail].concat();
        all.push((record.number, reader::parse(std::str::from_utf8(&line).unwrap())));
    }
    all
}

/// A device that takes nothing any more: its file was made shorter behind a limit of this process's.
fn fails() {
    let (_dir, disk) = disk(4 * MB);
    let mut life = Life::new(&disk, "aaaaaaaa");
    // A limit of the size of files is the one way to have write(2) fail that needs no device: EFBIG.
    let mut logger = {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        // SIGXFSZ would kill the child.
        let ignore = nix::sys::signal::SigSet::from(Signal::SIGXFSZ);
        ignore.thread_block().unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 16 * 1024, hard).unwrap();
        let logger = life.logger("vm1");
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        logger
    };
    life.send(lines(0..100));
    logger.audit("it ended");
    life.wait_stored(102);
    sleep(Duration::from_millis(300));
    let (seen, told) = logger.deliver(102);
    let own: Vec<&str> = seen.iter().filter(|record| record.app == "ctxinit").map(|r| r.text.as_str()).collect();
    let word = format!(
        "the spool {} cannot be written: File too large (os error 27): records wait in memory alone",
        disk.display()
    );
    assert_eq!((own.len(), own.iter().filter(|text| **text == word).count()), (2, 1), "{own:?}");
    assert_eq!((told, waiting(&disk)), ((102, 0), 0));
}

/// The child that writes to the disk is stopped, as the kernel does while it waits for a device; then it dies.
fn hangs() {
    let (_dir, disk) = disk(4 * MB);
    let mut life = Life::new(&disk, "aaaaaaaa");
    let logger = life.logger("vm1");
    life.send(lines(0..10));
    wait(|| waiting(&disk) == 10);
    let pid = logger.child.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let writer = nix::unistd::Pid::from_raw(children.trim().parse().unwrap());
    let signal = |signal| nix::sys::signal::kill(writer, signal).unwrap();
    signal(Signal::SIGSTOP);
    life.send(lines(10..100));
    let start = Instant::now();
    life.wait_stored(100);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // The word about it.
    life.wait_stored(101);
    assert!(start.elapsed() > Duration::from_secs(9), "{:?}", start.elapsed());
    assert_eq!(waiting(&disk), 10);
    signal(Signal::SIGCONT);
    wait(|| waiting(&disk) == 102);
    signal(Signal::SIGKILL);
    life.wait_stored(103);
    life.send(lines(100..110));
    let (seen, told) = logger.deliver(113);
    let own: Vec<String> = seen.iter().filter(|record| record.app == "ctxinit").map(|r| r.text.clone()).collect();
    let said = |text: &str| text.replace("SPOOL", &format!("the spool {}", disk.display()));
    let expected = [
        "SPOOL gives no answer for 10 s: records wait in memory alone",
        "SPOOL is written again",
        "nobody writes SPOOL any more: unexpected end of file: records wait in memory alone",
    ];
    assert_eq!((own, told), (expected.map(said).to_vec(), (113, 0)));
    // It was not told that they were delivered: they come twice, and not never.
    assert_eq!(waiting(&disk), 102);
}

fn refused() {
    let (_dir, path) = disk(4 * MB);
    let complaint = || Spool::open(&path, false).unwrap_err().to_string().replace(&path.display().to_string(), "X");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"!", 20).unwrap();
    assert_eq!(complaint(), "X: a spool whose first block is damaged");
    file.write_all_at(b"!", 0).unwrap();
    assert_eq!(complaint(), "X: no spool");
    spool::make(&file, 4 * MB).unwrap();
    file.set_len(3 * MB).unwrap();
    assert_eq!(complaint(), "X: a spool of 4194304 bytes on a device of 3145728");
    file.set_len(100).unwrap();
    assert_eq!(complaint(), "X: no spool");
    let small = spool::make(&file, MB).unwrap_err().to_string();
    assert_eq!(small, "a spool of 1048576 bytes, and the smallest has 1048576 for records");
}
