//! The worker against a token pool that misbehaves, driven over the agent's end of its channel.
//!
//! Where each row of the contract's list of test-server scenarios is:
//!
//! | Scenario | Test |
//! | --- | --- |
//! | empty pool, all locked, unknown pool | `pools::nothing_to_do_looks_alike` |
//! | lock expiry mid-run | `pools::a_lock_that_ran_out_is_lost_and_its_next_holder_is_not_robbed` |
//! | renewal 404, token present or gone | `holding::a_broken_lock_…`, `holding::a_cancelled_token_…` |
//! | token GET without lock headers, with an empty uuid | `adversary::lock_headers_of_a_token_do_not_matter` |
//! | 303 without a lock, 303 lost after commit | `claiming::an_unlocked_token_…`, `claiming::a_lost_303_is_found_again` |
//! | 201 lost | `completing::a_result_whose_201_was_lost_is_stored_once` |
//! | DELETE answered 500 after doing it | `completing::a_delete_of_unknown_outcome_is_repeated` |
//! | XHTML error bodies with any `Accept` | every error of [`server`] |
//! | 301 on a missing slash, redirection to another host | `adversary::no_redirection_is_followed` |
//! | `Location` with a foreign host | every 303 of [`server`]; `adversary::no_redirection_is_followed` |
//! | stalled `nextToken`, stalled renewal | `claiming::a_stalled_claim_…`, `holding::a_hanging_server_…` |
//! | 1000 parallel claims, no duplicates | `tests/token_server`, `tests/storm` |
//! | new tokens on a used pool | `pools::tokens_added_to_a_used_pool_are_all_done` |
//! | blank-line tokens, tokens with NUL or shell characters | `adversary::a_token_is_bytes_and_nothing_else` |
//! | tokens of 16 MiB and more | `claiming::the_largest_token_…`, `topos::an_oversized_token_…` |
//! | names with `../` | `adversary::a_name_is_never_a_path` |
//! | `null` listings | every listing of [`server`] that is empty |
//! | proxies: 502, 504, cut chunks, one byte a second, endless headers or bodies, gzip, HTTP/1.0, keep-alive, duplicate headers, NUL in a header | `adversary::proxies_*` |
//! | all of it at random, with many machines | `tests/storm` |
//!
//! The pool itself notes offences (a token deleted before its result is stored, without its lock, without
//! proof of the lock); every test ends by asserting that there are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adversary;
mod claiming;
mod completing;
mod giving_back;
mod holding;
mod leaving;
mod pools;
mod proxy;
mod real;
mod server;
mod tls;
mod topos;

use std::net::TcpListener;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctxinit::ban::owner::Owner;
use ctxinit::clock::Deadline;
use ctxinit::context::site::Work;
use ctxinit::protocol::channel::{Channel, MAX_BODY};
use ctxinit::protocol::{Fate, FromWorker, ToWorker, Token};
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

    /// Stops the worker; returns what the pool saw.
    fn journal(mut self) -> Vec<String> {
        if let Some(mut agent) = self.agent.take() {
            agent.send(&ToWorker::Stop, b"").unwrap();
            assert_eq!(self.worker.join().unwrap(), 0);
        }
        let pool = self.server.pool.lock().unwrap();
        assert_eq!(pool.offences, [""; 0]);
        assert_eq!(pool.requests.iter().find(|request| request.kind() == "nonsense").map(|r| &r.path), None);
        // Nobody looks at the locks before there is a reason: no work, or a claim whose answer was lost.
        assert!(!pool.journal.first().is_some_and(|first| first.starts_with("locks ")), "{:?}", pool.journal);
        pool.journal.clone()
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
