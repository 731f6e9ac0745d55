//! What senders say, and what becomes of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::machine::Machine;
use super::network::{accept, listen, private_network};
use super::reader::{frame, frames, texts};

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
    let first = next(b"6,0,1000000,-;caf\\xc3\\xa9\\x0ab\n DEVICE=+pci:1\n");
    assert_eq!((first.pri, first.app.as_str(), first.text.as_str()), (6, "kernel", "café#012b"));
    let lost = next(b"4,5,1000000,-;late\n");
    assert_eq!((lost.pri, lost.msgid.as_str()), (13 * 8 + 4, "log-gap"));
    assert!(lost.data.contains("[audit@32473 source=\"kernel\" count=\"4\" from=\"1\" to=\"4\"]"), "{lost:?}");
    assert_eq!(lost.text, "4 records of the kernel were overwritten before they were read");
    assert_eq!(next(b"30,6,1000000,-;init[1]: up\n").text, "late");
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
