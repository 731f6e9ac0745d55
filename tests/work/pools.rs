//! The worker and the real server, `ctxtool token-server`, as a site would run it.
#![cfg(feature = "tool")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::*;

/// A server process on a directory of its own; killed when this is dropped.
struct Site {
    process: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Site {
    #[allow(clippy::disallowed_methods)]
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_ctxtool"))
            .args(["token-server", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        Self { process, address, _dir: dir }
    }

    /// Status and body of any call.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} /4.1/{path} HTTP/1.0\r\nHost: {}\r\n{headers}Content-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn load(&self, lines: &str) {
        assert_eq!(self.ask("POST", "pools/mc/tokens/", "Content-Type: text/plain\r\n", lines).0, 202);
    }

    fn worker(&self, slot: u32) -> Hand {
        let mut config = config(&format!("http://{}/4.1", self.address), true, None);
        config.identity.slot = slot;
        let (agent, worker) = start(config);
        Hand { agent, worker }
    }
}

impl Drop for Site {
    #[allow(clippy::disallowed_methods)]
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The agent's end of a worker.
struct Hand {
    agent: Channel,
    worker: JoinHandle<i32>,
}

impl Hand {
    fn ask(&mut self, message: &ToWorker, body: &[u8]) -> (FromWorker, Vec<u8>) {
        self.agent.send(message, body).unwrap();
        hear(&mut self.agent)
    }

    /// Id and value.
    fn claim(&mut self) -> Option<(String, Vec<u8>)> {
        match self.ask(&ToWorker::Claim, b"") {
            (FromWorker::Claimed(token), body) => Some((token.id, body)),
            (FromWorker::NoWork, _) => None,
            (other, _) => panic!("{other:?}"),
        }
    }

    fn finish(&mut self, result: &[u8]) -> (Fate, String) {
        match self.ask(&ToWorker::Finished, result).0 {
            FromWorker::Settled { fate, note } => (fate, note),
            other => panic!("{other:?}"),
        }
    }

    fn leave(mut self) {
        self.agent.send(&ToWorker::Stop, b"").unwrap();
        assert_eq!(self.worker.join().unwrap(), 0);
    }
}

#[test]
fn nothing_to_do_looks_alike() {
    let site = Site::start();
    // Nobody has ever spoken of this pool.
    let mut first = site.worker(0);
    assert_eq!(first.claim(), None);
    site.load("only");
    let (id, body) = first.claim().unwrap();
    assert_eq!(body, b"only");
    // All that there is is locked.
    let mut second = site.worker(1);
    assert_eq!(second.claim(), None);
    assert_eq!(first.finish(b"done"), (Fate::Completed, format!("token {id} is done, its result is mc.{id}")));
    // Empty by now.
    assert_eq!(second.claim(), None);
    first.leave();
    second.leave();
}

#[test]
fn tokens_added_to_a_used_pool_are_all_done() {
    let site = Site::start();
    site.load("a\n\n../../etc/passwd");
    let mut worker = site.worker(0);
    let mut seen = Vec::new();
    // Back at once: the pool is on its second round when more comes.
    for _ in 0..2 {
        worker.claim().unwrap();
        worker.agent.send(&ToWorker::Release { why: "a trial".to_owned() }, b"").unwrap();
        assert!(matches!(hear(&mut worker.agent).0, FromWorker::Settled { fate: Fate::Released, .. }));
    }
    site.load("late");
    while let Some((_, body)) = worker.claim() {
        assert_eq!(worker.finish(&body).0, Fate::Completed);
        seen.push(String::from_utf8(body).unwrap());
    }
    seen.sort();
    // A blank line is a token too.
    assert_eq!(seen, ["", "../../etc/passwd", "a", "late"]);
    assert_eq!(site.ask("GET", "pools/mc/tokens/", "Accept: application/json\r\n", "").1.trim(), "null");
    worker.leave();
}

#[test]
fn a_lock_that_ran_out_is_lost_and_its_next_holder_is_not_robbed() {
    let site = Site::start();
    site.load("only");
    let mut first = site.worker(0);
    let (id, _) = first.claim().unwrap();
    // As if the machine had been paused past its lock: the lock is gone, and a second machine has the token.
    let locks = site.ask("GET", "pools/mc/locks/", "Accept: application/json\r\n", "").1;
    let uuid = locks.split("\"Name\":").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap().to_owned();
    assert_eq!(site.ask("DELETE", &format!("pools/mc/locks/{uuid}"), "", "").0, 200);
    let mut second = site.worker(1);
    assert_eq!(second.claim().unwrap().0, id);
    // The first one's payload ends before anybody could have told it.
    let (fate, note) = first.finish(b"too late");
    assert_eq!((fate, note), (Fate::Lost, format!("the lock on token {id} ran out or was broken")));
    assert_eq!(site.ask("GET", &format!("pools/mc/tokens/{id}"), "", ""), (200, "only".to_owned()));
    assert_eq!(second.finish(b"in time").0, Fate::Completed);
    assert_eq!(site.ask("GET", &format!("pools/mc/tokens/{id}"), "", "").0, 404);
    first.leave();
    second.leave();
}
