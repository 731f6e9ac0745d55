//! The same worker with the server that sites run: `ctxtool token-server`.
#![cfg(feature = "tool")]
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::*;

struct Real {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Real {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ctxtool"));
        command.args(["token-server", "--listen", "127.0.0.1:0", "--dir"]).arg(dir.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("http://").unwrap();
        Self { child, address: rest.split('/').next().unwrap().to_owned(), _dir: dir }
    }

    /// Status and body.
    fn ask(&self, method: &str, target: &str, accept: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!("Host: h\r\nConnection: close\r\nAccept: {accept}\r\nContent-Type: text/plain");
        write!(stream, "{method} /4.1/pools/{target} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// How many tokens a pool has.
    fn count(&self, pool: &str) -> usize {
        let (status, body) = self.ask("GET", &format!("{pool}/tokens/"), "application/json", "");
        assert_eq!(status, 200);
        serde_json::from_str::<Option<Vec<serde_json::Value>>>(&body).unwrap().map_or(0, |rows| rows.len())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_server_is_worked_empty_and_keeps_what_failed() {
    let server = Real::start();
    assert_eq!(server.ask("POST", "mc/tokens/", "*/*", "good\npoison\ngood\n").0, 202);
    let topos =
        format!(r#"{{"url": "http://{}/4.1", "pool": "mc", "results": "mc.out", "lease_limit": 3}}"#, server.address);
    let work = Work::Topos(serde_json::from_str(&topos).unwrap());
    let (mut agent, worker) = start(Config { work, ..config("http://h", false, None) });
    let mut ends = Vec::new();
    loop {
        agent.send(&ToWorker::Claim, b"").unwrap();
        let (FromWorker::Claimed(token), body) = hear(&mut agent) else { break };
        let word = if body == b"good" {
            ToWorker::Finished
        } else {
            ToWorker::Failed { why: "exit status 1".to_owned(), again: true }
        };
        agent.send(&word, b"result").unwrap();
        let FromWorker::Settled { fate, .. } = hear(&mut agent).0 else { panic!("not settled") };
        ends.push((String::from_utf8(body).unwrap(), token.leases.unwrap(), fate));
    }
    drop(agent);
    worker.join().unwrap();
    ends.sort_by_key(|(body, leases, _)| (body.clone(), *leases));
    let poison = |leases, fate| ("poison".to_owned(), leases, fate);
    let good = ("good".to_owned(), 1, Fate::Completed);
    let expected = [good.clone(), good, poison(1, Fate::Released), poison(2, Fate::Released), poison(3, Fate::Failed)];
    assert_eq!(ends, expected);
    assert_eq!(["mc", "mc.out", "mc.failed"].map(|pool| server.count(pool)), [0, 2, 1]);
    // What failed is free there for whoever mends it, and nobody's lock is left.
    assert_eq!(server.ask("GET", "mc.failed/locks/", "application/json", "").1.trim(), "null");
}

#[test]
fn a_real_server_is_asked_for_this_machines_locks_alone() {
    let server = Real::start();
    assert_eq!(server.ask("POST", "mc/tokens/", "*/*", "a\nb\n").0, 202);
    for owner in ["wn-1.example.org/vm/before/0", "wn-10.example.org/vm/before/0"] {
        assert_eq!(
            server.ask("GET", &format!("mc/nextToken?timeout=600&description={owner}"), "text/plain", "").0,
            303
        );
    }
    let (mut agent, worker) = start(config(&format!("http://{}/4.1", server.address), true, None));
    agent.send(&ToWorker::Claim, b"").unwrap();
    let (answer, body) = hear(&mut agent);
    assert!(matches!(answer, FromWorker::Claimed(_)), "{answer:?}");
    assert_eq!(body, b"a");
    let locks = server.ask("GET", "mc/locks/", "application/json", "").1;
    assert!(locks.contains("wn-10.example.org") && locks.contains("vm/boot/0"), "{locks}");
    agent.send(&ToWorker::Stop, b"").unwrap();
    assert_eq!(worker.join().unwrap(), 0);
}
