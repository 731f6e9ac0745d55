//! The logger against the servers that sites run.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread::{self};
use std::time::{Duration, Instant};

use ctxinit::agent::protocol::{Record, ToLogger};

use super::machine::{Machine, ORIGIN, PATIENCE};
use super::network::{free_port, private_network};

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
        let quality = ["0", "1"].map(|synced| format!("[timeQuality tzKnown=\"1\" isSynced=\"{synced}\"]"));
        let line = quality.iter().fold(line.to_owned(), |line, quality| line.replace(quality, ""));
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
