//! What a server must survive: nonsense, floods, a full disk, a signal amid a request.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Server, command};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");

fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    (dir, server)
}

/// Sends bytes and returns all that comes back until the server closes.
fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may stop reading in the middle: that is its right.
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no end: {error}"),
    }
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn nonsense_is_answered_and_changes_nothing() {
    let (_dir, server) = server();
    server.fill("p", "a");
    let status = |request: &[u8]| {
        let reply = exchange(server.port, request);
        reply.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok())
    };
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 1 << 20]].concat();
    assert!(matches!(status(&endless), Some(431) | None), "an endless line");
    let many = ["GET / HTTP/1.1\r\n".to_owned(), "X: x\r\n".repeat(200), "\r\n".to_owned()].concat();
    assert_eq!(status(many.as_bytes()), Some(431));
    let long = format!("GET /4.1/pools/{}/nextToken HTTP/1.1\r\nConnection: close\r\n\r\n", "p".repeat(20_000));
    assert!(matches!(status(long.as_bytes()), Some(404 | 414)));
    for nonsense in [b"\0\0\0\0\r\n\r\n".as_slice(), b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"] {
        assert_eq!(status(nonsense), Some(400), "{nonsense:?}");
    }
    for length in ["-1", "x", "18446744073709551616"] {
        let put = format!("PUT /4.1/pools/p/nextToken HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(status(put.as_bytes()), Some(400), "{length}");
    }
    let chunk = b"PUT /4.1/pools/p/nextToken HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n";
    assert_eq!(status(chunk), Some(400));
    // More than a body may be: the head alone is answered, before any of it.
    let huge = b"POST /4.1/pools/p/tokens/ HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(status(huge), Some(413));
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some("1"));
}

#[test]
fn odd_names_of_pools_are_nowhere() {
    let (_dir, server) = server();
    let odd = ["a%20b", "a%2Fb", "..", "%2e%2e", "a%00", "a%zz", "%", "a%c3%a9", "a;b", "a'b", "a$(b)", "%ff"];
    for name in odd {
        for (method, rest) in [("GET", "nextToken"), ("PUT", "nextToken"), ("GET", "tokens/"), ("DELETE", "locks/")] {
            assert_eq!(server.ask(method, &format!("{name}/{rest}"), &[TEXT], b"").status, 404, "{method} {name}");
        }
    }
    let move_from = [("Content-Type", "application/x-www-form-urlencoded")];
    let moved = server.ask("POST", "p/tokens/", &move_from, b"pool=../x'%00&tokens=1");
    assert_eq!((moved.status, moved.message()), (200, "0 tokens moved"));
}

#[test]
fn every_byte_of_a_token_is_kept() {
    let (_dir, server) = server();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(server.ask("PUT", "p/nextToken", &[], &all).status, 201);
    let get = |id: u32| {
        let request = format!("GET /4.1/pools/p/tokens/{id} HTTP/1.1\r\nConnection: close\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let head = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        reply.split_off(head + 4)
    };
    assert_eq!(get(1), all);
    server.ask("POST", "p/tokens/", &[TEXT], b"\0first\0\n\xff\n");
    assert_eq!([get(2), get(3)], [b"\0first\0".to_vec(), vec![0xff]]);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    server.ask("POST", "p/tokens/", &form, b"tokens=%00%ff%zz");
    assert_eq!(get(4), b"\0\xff%zz");
}

#[test]
fn a_request_under_way_outlives_sigterm() {
    let (_dir, server) = server();
    let mut idle = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(b"PUT /4.1/pools/p/nextToken HTTP/1.1\r\nContent-Length: 10\r\n\r\nfirst").unwrap();
    thread::sleep(Duration::from_millis(300));
    server.signal(Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err(), "it takes no more");
    stream.write_all(b"-last").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    let began = Instant::now();
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "who only idles is not waited for");
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_full_disk_is_said_and_the_server_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let program = command(dir.path()).get_program().to_owned().into_string().unwrap();
    // Only in the mount namespace of that process; its root shows us what is there.
    let script = format!(
        "mount -t tmpfs -o size=3m none {place} && head -c 1000000 /dev/zero > {place}/ballast &&
         exec {program} token-server --listen 127.0.0.1:0 --dir {place}/pools"
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    let mut child = unshare.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let _ = child.wait();
        eprintln!("skipped: no mount namespace of our own");
        return;
    }
    let inside = format!("/proc/{}/root{place}", child.id());
    let server = Server::adopt(child, &line);

    let value = vec![b'x'; 50_000];
    let put = || server.ask("PUT", "p/nextToken", &[("Accept", "text/plain")], &value);
    let stored = (0..100).take_while(|_| put().status == 201).count();
    assert!((5..60).contains(&stored), "{stored} tokens fitted");
    let full = put();
    assert_eq!(full.status, 503);
    assert!(full.message().contains("database or disk is full"), "{}", full.message());
    for id in 1..=stored {
        assert_eq!(server.get(&format!("p/tokens/{id}")).body.len(), value.len(), "what is there can be read");
    }
    fs::remove_file(format!("{inside}/ballast")).unwrap();
    assert_eq!(put().status, 201, "there is room again");
    assert_eq!(server.get("p/tokens/").header("X-Token-Count"), Some((stored + 1).to_string().as_str()));
    assert!(server.claim("p", 60).is_some());
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for file in ["pools.sqlite", "pools.sqlite-wal"] {
        fs::copy(format!("{inside}/pools/{file}"), copy.join(file)).unwrap();
    }
    let db = rusqlite::Connection::open(copy.join("pools.sqlite")).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
