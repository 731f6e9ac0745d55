//! The worker against PiCaS, driven over the agent's end of its channel: with a real server, with the Python client, and
//! with a server that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own children")]

mod adversary;
mod couch;
mod fake;
mod python;
mod real;

use std::thread::JoinHandle;
use std::time::Duration;

use ctxinit::clock::Deadline;
use ctxinit::context::site::Work;
use ctxinit::protocol::channel::Channel;
use ctxinit::protocol::{Fate, FromWorker, ToWorker, Token};
use ctxinit::work::{Config, Credentials, Identity, Pace, run_at};
use serde_json::json;

/// A claim is looked at every second, and what failed is tried again after 0.3 s; calls may take as long as they do on a
/// busy machine.
const PACE: Pace = Pace {
    lock: Duration::from_secs(3),
    connect: Duration::from_secs(10),
    call: Duration::from_secs(20),
    farewell: Duration::from_secs(6),
};
/// `hostname` of the tokens that are claimed here.
const HOSTNAME: &str = "wn-1.example.org";

struct Worker {
    agent: Option<Channel>,
    thread: Option<JoinHandle<i32>>,
}

/// What tests change.
struct Settings {
    pace: Pace,
    slot: u32,
    max_scrubs: u16,
    credentials: Credentials,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pace: PACE, slot: 0, max_scrubs: 9, credentials: Credentials::default() }
    }
}

impl Worker {
    fn start(url: &str, database: &str, settings: Settings) -> Self {
        let Settings { pace, slot, max_scrubs, credentials } = settings;
        let picas = json!({"url": url, "database": database, "max_scrubs": max_scrubs});
        let config = Config {
            work: Work::Picas(serde_json::from_value(picas).unwrap()),
            credentials,
            identity: Identity {
                hostname: HOSTNAME.to_owned(),
                vm_uuid: "vm".to_owned(),
                boot_id: "boot".to_owned(),
                slot,
            },
            ban_list: None,
        };
        let (agent, channel) = Channel::pair().unwrap();
        Self { agent: Some(agent), thread: Some(std::thread::spawn(move || run_at(pace, config, channel))) }
    }

    fn say(&mut self, message: &ToWorker, body: &[u8]) {
        self.agent.as_mut().unwrap().send(message, body).unwrap();
    }

    fn hear(&mut self) -> (FromWorker, Vec<u8>) {
        let agent = self.agent.as_mut().unwrap();
        agent.recv(Deadline::after(Duration::from_secs(60))).unwrap().expect("an answer in time")
    }

    fn claim(&mut self) -> (FromWorker, Vec<u8>) {
        self.say(&ToWorker::Claim, b"");
        self.hear()
    }

    fn claimed(&mut self) -> (Token, Vec<u8>) {
        match self.claim() {
            (FromWorker::Claimed(token), body) => (token, body),
            other => panic!("{other:?}"),
        }
    }

    /// The answer to a claim that brings no token.
    fn why(&mut self) -> String {
        match self.claim().0 {
            FromWorker::Fault { why } => format!("fault: {why}"),
            FromWorker::Refused { why, broken } => format!("{}: {why}", if broken { "broken" } else { "refused" }),
            other => format!("{other:?}"),
        }
    }

    fn settled(&mut self) -> (Fate, String) {
        match self.hear().0 {
            FromWorker::Settled { fate, note } => (fate, note),
            other => panic!("{other:?}"),
        }
    }

    fn finish(&mut self, result: &[u8]) -> (Fate, String) {
        self.say(&ToWorker::Finished, result);
        while self.agent.as_ref().unwrap().backlog() > 0 {
            self.agent.as_mut().unwrap().flush().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.settled()
    }

    fn fail(&mut self, why: &str, again: bool) -> (Fate, String) {
        self.say(&ToWorker::Failed { why: why.to_owned(), again }, b"");
        self.settled()
    }

    fn release(&mut self) -> (Fate, String) {
        self.say(&ToWorker::Release { why: "it was stopped".to_owned() }, b"");
        self.settled()
    }

    fn stop(mut self) {
        self.say(&ToWorker::Stop, b"");
        assert_eq!(self.thread.take().unwrap().join().unwrap(), 0);
    }
}
