//! Servers that do what no server should, and networks that do not say what they did.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ctxinit::protocol::Credentials;

use super::machine::{Machine, PATIENCE};
use super::network::{accept, listen, name_server, private_network};
use super::reader::{Seen, frames, parse};
use super::sessions::{check, number, read};

/// Sends so many records, none faster than the server takes them: the queue holds `ahead` of them.
fn sender(machine: &Machine, count: usize, length: usize, ahead: usize) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let (socket, taken, padding) = (machine.sender(), Arc::clone(&seen), "x".repeat(length));
    let work = thread::spawn(move || {
        for n in 1..=count {
            while n > taken.load(Ordering::Relaxed) + ahead {
                thread::sleep(Duration::from_millis(1));
            }
            socket.send(format!("<14>app: {n} {padding}").as_bytes()).unwrap();
        }
    });
    (work, seen)
}

fn highest(session: &[Seen]) -> usize {
    session.last().map_or(0, number)
}

#[test]
fn a_server_that_drops_every_connection_after_900_reads_gets_all() {
    private_network();
    const COUNT: usize = 20_000;
    let mut listener = Some(listen(0));
    let port = listener.as_ref().unwrap().local_addr().unwrap().port();
    let mut machine = Machine::start(None);
    machine.target(port, "tcp");
    let (writer, seen) = sender(&machine, COUNT, 300, 1500);
    let mut sessions = Vec::new();
    while seen.load(Ordering::Relaxed) < COUNT {
        let mut stream = accept(listener.as_ref().unwrap());
        let start = Instant::now();
        let mut bytes = read(&mut stream, 900, 400);
        // One that takes records for less than a second is met by longer and longer pauses.
        thread::sleep(Duration::from_millis(1010).saturating_sub(start.elapsed()));
        match sessions.len() % 3 {
            // With something unread: a reset.
            0 => drop(stream),
            // In order, and then nobody is there for a while.
            kind => {
                stream.shutdown(Shutdown::Write).unwrap();
                bytes.extend(read(&mut stream, usize::MAX, 65536));
                if kind == 2 {
                    drop((stream, listener.take()));
                    thread::sleep(Duration::from_millis(100));
                    listener = Some(listen(port));
                }
            }
        }
        let session = frames(bytes.as_slice(), usize::MAX);
        seen.fetch_max(highest(&session), Ordering::Relaxed);
        sessions.push(session);
        assert!(sessions.len() < 60, "no progress: {}", seen.load(Ordering::Relaxed));
    }
    writer.join().unwrap();
    let again = check(&sessions, COUNT);
    println!("{} disconnects, {again} records twice", sessions.len());
    assert!(sessions.len() >= 10, "{}", sessions.len());
}

#[test]
fn a_server_that_resets_all_connections_early_gets_on() {
    private_network();
    const COUNT: usize = 500;
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let (writer, seen) = sender(&machine, COUNT, 600, COUNT);
    let mut sessions = Vec::new();
    while seen.load(Ordering::Relaxed) < COUNT {
        let mut stream = accept(&listener);
        let bytes = read(&mut stream, 150, 1000);
        // Not read to the end, so that the kernel resets.
        drop(stream);
        let session = frames(bytes.as_slice(), usize::MAX);
        seen.fetch_max(highest(&session), Ordering::Relaxed);
        sessions.push(session);
        assert!(sessions.len() < 20, "no progress: {}", seen.load(Ordering::Relaxed));
    }
    writer.join().unwrap();
    let again = check(&sessions, COUNT);
    println!("{} disconnects, {again} records twice", sessions.len());
}

#[test]
fn a_stalled_server_blocks_nobody_and_is_not_left_alone() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let mut stream = accept(&listener);
    // More than two kernels hold; then the window is closed for longer than the kernel's patience with it (30 s).
    const COUNT: usize = 4000;
    let start = Instant::now();
    let (writer, _) = sender(&machine, COUNT, 1000, COUNT);
    writer.join().unwrap();
    // Nothing is read until then, so whoever is here did not wait for the server; a busy host may be slow.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    thread::sleep(Duration::from_secs(45));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    check(&[frames(&mut stream, COUNT)], COUNT);
}

#[test]
fn a_server_that_never_reads_is_left_for_another() {
    private_network();
    let (deaf, other) = (listen(0), listen(0));
    let [first, second] = [&deaf, &other].map(|listener| listener.local_addr().unwrap().port());
    let mut machine = Machine::start(None);
    let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {first}, \"fallback\": [\"127.0.0.1:{second}\"]}}");
    machine.aim(&syslog, &Credentials::default(), &[]);
    let held = accept(&deaf);
    const COUNT: usize = 4000;
    let (writer, _) = sender(&machine, COUNT, 1000, COUNT);
    writer.join().unwrap();
    let start = Instant::now();
    other.set_nonblocking(true).unwrap();
    let mut stream = loop {
        assert!(start.elapsed() < PATIENCE * 3, "nobody came");
        match other.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(start.elapsed() > Duration::from_secs(20), "{:?}", start.elapsed());
    // The line about the change is a record, too, but comes by the agent, which is not there.
    let all = frames(&mut stream, COUNT);
    check(&[all], COUNT);
    drop(held);
}

#[test]
fn a_server_that_moves_is_found_by_its_name() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: port 53 is root's");
        return;
    }
    private_network();
    let (old, new) = (Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 12));
    // As in a machine that boots before its name is known.
    let name = name_server(Ipv4Addr::UNSPECIFIED);
    let mut machine = Machine::start(None);
    let port = 601;
    let syslog = format!("{{\"server\": \"log.site\", \"port\": {port}}}");
    machine.aim(&syslog, &Credentials::default(), &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let sender = machine.sender();
    sender.send(b"<14>app: 1").unwrap();
    thread::sleep(Duration::from_millis(700));
    let listener = TcpListener::bind((old, port)).unwrap();
    *name.lock().unwrap() = old;
    let mut stream = accept(&listener);
    let first = frames(&mut stream, 1);
    // It comes back elsewhere.
    drop(listener);
    let listener = TcpListener::bind((new, port)).unwrap();
    *name.lock().unwrap() = new;
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(&mut stream, usize::MAX, 4096), b"");
    drop(stream);
    sender.send(b"<14>app: 2").unwrap();
    let second = frames(accept(&listener), 1);
    assert_eq!(check(&[first, second], 2), 0);
}

#[test]
fn a_connection_whose_packets_vanish_is_given_up() {
    if !nix::unistd::geteuid().is_root() || Command::new("nft").arg("-v").output().is_err() {
        println!("skipped: needs root and nft");
        return;
    }
    private_network();
    let (first, second) = (listen(0), listen(0));
    let [near, far] = [&first, &second].map(|listener| listener.local_addr().unwrap().port());
    let mut machine = Machine::start(None);
    let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {near}, \"fallback\": [\"127.0.0.1:{far}\"]}}");
    machine.aim(&syslog, &Credentials::default(), &[]);
    let mut stream = accept(&first);
    let sender = machine.sender();
    sender.send(b"<14>app: 1").unwrap();
    let before = frames(&mut stream, 1);
    // A firewall forgets the connection, or the server's machine is gone.
    let rules = format!(
        "table inet t {{ chain c {{ type filter hook input priority 0; tcp dport {near} drop; tcp sport {near} drop; }}; }}"
    );
    assert!(Command::new("nft").arg(rules).status().unwrap().success());
    sender.send(b"<14>app: 2").unwrap();
    let start = Instant::now();
    second.set_nonblocking(true).unwrap();
    let stream = loop {
        assert!(start.elapsed() < Duration::from_secs(80), "nobody came");
        match second.accept() {
            Ok((stream, _)) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let left: usize = check(&[before, frames(&stream, 1)], 2);
    println!("given up after {:?}, {left} twice", start.elapsed());
}

#[test]
fn datagrams_that_met_nobody_are_sent_again() {
    private_network();
    let port = {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap().port()
    };
    let mut machine = Machine::start(None);
    machine.target(port, "udp");
    let sender = machine.sender();
    for n in 1..=300 {
        sender.send(format!("<14>app: {n}").as_bytes()).unwrap();
    }
    thread::sleep(Duration::from_millis(700));
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 9000];
    let mut session = Vec::new();
    let mut peer = None;
    while highest(&session) < 300 {
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        peer = Some(from);
        session.push(parse(std::str::from_utf8(&buffer[..length]).unwrap()));
    }
    assert_eq!(check(&[session], 300), 0);
    // What it says back is nothing to run in circles for.
    for _ in 0..3 {
        server.send_to(b"thanks", peer.unwrap()).unwrap();
    }
    thread::sleep(Duration::from_secs(1));
    drop(machine.control);
    let (_, used) = machine.role.join().unwrap();
    assert!(used < Duration::from_millis(300), "{used:?}");
}

#[test]
fn the_end_waits_for_a_slow_server() {
    private_network();
    // The last record is given to the connection before the kernel has taken it: two kernels take some 300 KB here,
    // and a batch is 64 KiB.
    for (protocol, count) in (140..=420).step_by(40).map(|count| ("octets", count)).chain([("lf", 3000)]) {
        let listener = listen(0);
        let port = listener.local_addr().unwrap().port();
        let mut machine = Machine::start(None);
        let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"framing\": \"{protocol}\"}}");
        machine.aim(&syslog, &Credentials::default(), &[]);
        let (writer, _) = sender(&machine, count, 1000, count);
        writer.join().unwrap();
        let slow = thread::spawn(move || {
            let mut stream: TcpStream = accept(&listener);
            thread::sleep(Duration::from_millis(400));
            let bytes = read(&mut stream, usize::MAX, 65536);
            drop(stream);
            listener.set_nonblocking(true).unwrap();
            assert!(listener.accept().is_err(), "everything came by one connection");
            bytes
        });
        assert_eq!(machine.drain(20_000), ((count as u64, 0), 0));
        let bytes = slow.join().unwrap();
        if protocol == "octets" {
            check(&[frames(bytes.as_slice(), usize::MAX)], count);
        } else {
            assert_eq!(bytes.split_inclusive(|byte| *byte == b'\n').count(), count);
        }
    }
}
