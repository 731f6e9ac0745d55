//! busybox's syslogd, which knows RFC 3164 and nothing else. It reads no network: a relay hands what our logger sends by
//! UDP to its `/dev/log`, which lies in a mount namespace of the test's own.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ctxinit::protocol::Credentials;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::daemon::wait_until;
use super::records::{Odd, records};
use super::{log_to, ready};

/// What busybox of Debian 12 reads of a datagram.
const LIMIT: usize = 1023;
const STAMP: usize = "Nov  2 10:00:00 ".len();
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "",
    "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// A `/dev` with nothing but `null`, for this thread and those that it starts.
fn private_dev() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mknod("/dev/null", SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3)).unwrap();
}

/// Hands on what comes until it is told to stop; gives all of it.
fn relay(server: &UdpSocket, stop: &AtomicBool) -> Vec<Vec<u8>> {
    let busybox = UnixDatagram::unbound().unwrap();
    busybox.connect("/dev/log").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 9000]);
    loop {
        match server.recv(&mut buffer) {
            Ok(length) => {
                busybox.send(&buffer[..length]).unwrap();
                seen.push(buffer[..length].to_vec());
            }
            Err(_) if stop.load(Ordering::Acquire) => return seen,
            Err(_) => {}
        }
    }
}

/// What it writes of a datagram: the sender's time, its own name, the priority in words, the rest as far as it was read.
fn line(datagram: &[u8], host: &str) -> Vec<u8> {
    let read = &datagram[..datagram.len().min(LIMIT)];
    let (pri, rest) = read.split_at(read.iter().position(|byte| *byte == b'>').unwrap() + 1);
    let pri: usize = std::str::from_utf8(&pri[1..pri.len() - 1]).unwrap().parse().unwrap();
    let (facility, severity) = (FACILITIES[pri / 8], SEVERITIES[pri % 8]);
    let (stamp, rest) = rest.split_at(STAMP);
    // Of facilities without a name it shows the number.
    let class = if facility.is_empty() { format!("<{pri}>") } else { format!("{facility}.{severity}") };
    [stamp, format!("{host} {class} ").as_bytes(), rest].concat()
}

/// `<PRI>Mmm dd hh:mm:ss HOST APP[PID]: DATA TEXT`
fn as_logged(sent: &str, record: &Odd) {
    let (pri, rest) = sent.strip_prefix('<').unwrap().split_once('>').unwrap();
    let (head, rest) = rest[STAMP..].split_once(": [ctxinit@32473 ").unwrap();
    let (_, rest) = rest.split_once(" sequenceId=\"").unwrap();
    let (_, text) = rest.split_once("] ").unwrap();
    let (pid, app) = (std::process::id(), &record.app);
    assert_eq!((pri, head), (record.pri.to_string().as_str(), format!("vm7.site {app}[{pid}]").as_str()));
    assert!(record.text.is(text, |text| text), "{text:.200} is not {record:.200?}");
}

#[test]
fn busybox_gets_what_it_can_keep() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    private_dev();
    let busybox = Command::new("busybox").args(["syslogd", "-n", "-O"]).arg(&out).stdin(Stdio::null()).spawn();
    let Ok(mut busybox) = busybox else {
        println!("skipped: busybox is not here; scripts/setup brings it");
        return;
    };
    wait_until("busybox", || Path::new("/dev/log").exists());

    let server = UdpSocket::bind("127.0.0.1:514").unwrap();
    setsockopt(&server, sockopt::RcvBufForce, &(8 << 20)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let relaying = thread::spawn({
        let stop = Arc::clone(&stop);
        move || relay(&server, &stop)
    });
    let records = records();
    let target = r#"{"server": "127.0.0.1", "protocol": "udp", "format": "rfc3164"}"#;
    log_to(target, &Credentials::default(), &records);
    stop.store(true, Ordering::Release);
    let seen = relaying.join().unwrap();
    assert_eq!(seen.len(), records.len() + 1);
    // It has read all: what is sent to a socket that nobody reads stays there.
    let lines = || std::fs::read(&out).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
    wait_until("the last record", || lines() >= seen.len());
    busybox.kill().unwrap();
    busybox.wait().unwrap();

    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let written = std::fs::read(&out).unwrap();
    // It has a word to say of its own start.
    let mut written = written.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let first = written.next().unwrap();
    assert!(String::from_utf8_lossy(first).contains("syslogd started"));
    let mut logged = records.iter();
    for (datagram, got) in seen.iter().zip(written.by_ref()) {
        let sent = std::str::from_utf8(datagram).unwrap();
        if !sent.contains(" job-end [") {
            as_logged(sent, logged.next().unwrap());
        }
        let want = line(datagram, &host);
        assert_eq!(String::from_utf8_lossy(got), String::from_utf8_lossy(&want));
    }
    assert_eq!(written.count(), 0);
}
