//! The worker against a token pool that misbehaves, driven over the agent's end of its channel.
//!
//! The pool itself notes offences (a token deleted before its result is stored, without its lock, without
//! proof of the lock); every test ends by asserting that there are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claiming;
mod completing;
mod giving_back;
mod holding;
mod leaving;
mod proxy;
mod real;
mod server;
mod tls;
mod topos;

use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctxinit::agent::channel::{Channel, MAX_BODY};
use ctxinit::agent::protocol::{Fate, FromWorker, ToWorker, Token};
use ctxinit::ban::owner::Owner;
use ctxinit::clock::Deadline;
use ctxinit::context::site::Work;
use ctxinit::work::{Config, Credentials, Identity, Pace, run_at};

use server::{Fault, Pool, Request, Script, Server, UUID};

/// A lock of 4 s is renewed after 1.2 s, held for 3.6 s, and what failed is tried again after 0.4 s.
const PACE: Pace = Pace {
    lock: Duration::from_secs(4),
    connect: Duration::from_millis(500),
    call: Duration::from_secs(1),
    farewell: Duration::from_millis(600),
};
const OWNER: &str = "wn-1.example.org/vm/boot/0";

struct Bench {
    server: Server,
    agent: Option<Channel>,
    worker: JoinHandle<i32>,
}

fn config(url: &str, results: bool, ca: Option<&[u8]>) -> Config {
    let results = if results { "\"mc.out\"" } else { "null" };
    let topos = format!(r#"{{"url": "{url}", "pool": "mc", "results": {results}}}"#);
    let mut credentials = Credentials::default();
    credentials.put("work.topos.ca", ca.map(<[u8]>::to_vec));
    Config {
        work: Work::Topos(serde_json::from_str(&topos).unwrap()),
        credentials,
        identity: Identity {
            hostname: "wn-1.example.org".to_owned(),
            vm_uuid: "vm".to_owned(),
            boot_id: "boot".to_owned(),
            slot: 0,
        },
        ban_list: None,
    }
}

fn start(config: Config) -> (Channel, JoinHandle<i32>) {
    start_at(PACE, config)
}

fn start_at(pace: Pace, config: Config) -> (Channel, JoinHandle<i32>) {
    let (agent, channel) = Channel::pair().unwrap();
    (agent, std::thread::spawn(move || run_at(pace, config, channel)))
}

/// A worker and a pool that does as `script` says.
fn bench(pool: Pool, script: impl FnMut(&Request, usize) -> Fault + Send + 'static) -> Bench {
    let results = pool.wants_results;
    let server = Server::start(pool, Box::new(script) as Script, false);
    let (agent, worker) = start(config(&format!("http://{}/4.1", server.address), results, None));
    Bench { server, agent: Some(agent), worker }
}

/// As [`bench`]; calls of one kind go wrong, the first `faults.len()` of them.
fn bench_with(kind: &'static str, faults: &[Fault]) -> Bench {
    let faults = faults.to_vec();
    bench(Pool::with_token(b"seed=1"), move |request, seen| {
        if request.kind() == kind { faults.get(seen).cloned().unwrap_or(Fault::Honest) } else { Fault::Honest }
    })
}

impl Bench {
    fn say(&mut self, message: &ToWorker, body: &[u8]) {
        self.agent.as_mut().unwrap().send(message, body).unwrap();
    }

    fn hear(&mut self) -> (FromWorker, Vec<u8>) {
        hear(self.agent.as_mut().unwrap())
    }

    fn claim(&mut self) -> FromWorker {
        self.say(&ToWorker::Claim, b"");
        self.hear().0
    }

    fn claimed(&mut self) {
        let answer = self.claim();
        assert!(matches!(answer, FromWorker::Claimed(_)), "{answer:?}");
    }

    fn finish(&mut self) -> (Fate, String) {
        self.say(&ToWorker::Finished, b"result");
        self.settled()
    }

    fn release(&mut self) -> (Fate, String) {
        self.say(&ToWorker::Release { why: "it failed".to_owned() }, b"");
        self.settled()
    }

    fn settled(&mut self) -> (Fate, String) {
        match self.hear().0 {
            FromWorker::Settled { fate, note } => (fate, note),
            other => panic!("{other:?}"),
        }
    }

    /// Stops the worker; returns what the pool saw after the worker's look for leftovers.
    fn journal(mut self) -> Vec<String> {
        if let Some(mut agent) = self.agent.take() {
            agent.send(&ToWorker::Stop, b"").unwrap();
            assert_eq!(self.worker.join().unwrap(), 0);
        }
        let pool = self.server.pool.lock().unwrap();
        assert_eq!(pool.offences, [""; 0]);
        assert_eq!(pool.requests.iter().find(|request| request.kind() == "nonsense").map(|r| &r.path), None);
        assert!(pool.journal[0].starts_with("locks "), "{:?}", pool.journal);
        pool.journal[1..].to_vec()
    }

    fn token_is_there(&self) -> bool {
        self.server.pool.lock().unwrap().token.is_some()
    }

    fn locked(&self) -> bool {
        self.server.pool.lock().unwrap().lock.is_some()
    }
}

fn hear(agent: &mut Channel) -> (FromWorker, Vec<u8>) {
    agent.recv(Deadline::after(Duration::from_secs(20))).unwrap().expect("an answer in time")
}

fn why(answer: FromWorker) -> String {
    match answer {
        FromWorker::Fault { why } => format!("fault: {why}"),
        FromWorker::Refused { why, broken } => format!("{}: {why}", if broken { "broken" } else { "refused" }),
        other => format!("{other:?}"),
    }
}
