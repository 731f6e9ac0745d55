//! That records arrive, and what is said of those that do not.

use std::io::BufReader;
use std::net::{Ipv4Addr, Shutdown, UdpSocket};
use std::thread::{self};
use std::time::{Duration, Instant, SystemTime};

use ctxinit::protocol::{Record, ToLogger};

use super::machine::{Machine, ORIGIN, PATIENCE};
use super::network::{accept, free_port, listen, private_network};
use super::reader::{frame, frames, parse, texts};

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
        let ((delivered, undelivered), code, (made, dropped)) = machine.drain_counting(700);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        // Every record has a number, those that announce drops, too; here nothing else is logged. So no more than one of
        // them in a second, and one when the queue had taken everything else.
        assert_eq!((delivered + undelivered, code), (made, 0), "{port:?}");
        let announced = made - count;
        assert!(announced <= 3 && (announced == 0 || dropped > 0), "{port:?} {announced} {dropped}");
        assert!(port == Some(stalled_port) || (dropped > 0) == port.is_none(), "{port:?} {dropped}");
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
    let Machine { control, role, dir: _dir, .. } = machine;
    let server = thread::spawn(move || frames(accept(&listener), usize::MAX));
    drop(control);
    assert_eq!(role.join().unwrap().0, 1);
    let seen = server.join().unwrap();
    let data = format!("[ctxinit@32473 {ORIGIN} job=\"a\\\"\\]b\"][meta sequenceId=\"1\"]");
    assert_eq!((seen[0].pri, seen[0].app.as_str(), seen[0].data.as_str()), (11, "payload", data.as_str()));
    assert_eq!((seen[0].procid.as_str(), seen[0].text.as_str()), ("9", "#000"));
    assert!(seen[1].text.starts_with("the agent is lost"), "{seen:?}");
}

/// Nothing acknowledges a datagram: what the kernel has taken is all that can be done, in the last burst, too.
#[test]
fn the_last_datagrams_are_counted() {
    private_network();
    for _ in 0..10 {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut machine = Machine::start(None);
        machine.target(server.local_addr().unwrap().port(), "udp");
        for number in 1..=20 {
            let record = Record::now(6, "ctxinit", "the last words".to_owned());
            machine.control.send(&ToLogger::Record { number, record }, b"").unwrap();
        }
        assert_eq!(machine.drain(20_000), ((20, 0), 0));
    }
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
