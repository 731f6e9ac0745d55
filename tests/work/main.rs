//! The worker against a token pool that misbehaves, driven over the agent's end of its channel.
//!
//! The pool itself notes offences (a token deleted before its result is stored, without its lock, without
//! proof of the lock); every test ends by asserting that there are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod leaving;
mod server;
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
    Config {
        work: Work::Topos(serde_json::from_str(&topos).unwrap()),
        credentials: Credentials { ca: ca.map(<[u8]>::to_vec) },
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

#[test]
fn a_token_is_claimed_run_and_completed() {
    let mut bench = bench_with("", &[]);
    bench.say(&ToWorker::Claim, b"");
    let token = Token {
        id: "17".to_owned(),
        leases: Some(3),
        media_type: Some("text/x-seed".to_owned()),
        owner: Owner::Unknown,
        pilot: false,
    };
    assert_eq!(bench.hear(), (FromWorker::Claimed(token), b"seed=1".to_vec()));
    let note = "token 17 is done, its result is mc.17".to_owned();
    assert_eq!(bench.finish(), (Fate::Completed, note));
    assert_eq!(bench.claim(), FromWorker::NoWork);

    let pool = bench.server.pool.clone();
    assert_eq!(bench.journal(), ["next 303", "token 200", "store 201", "renew 200", "delete 200", "next 404"]);
    let pool = pool.lock().unwrap();
    assert_eq!(pool.results, [("mc.17".to_owned(), b"result".to_vec())]);
    let next = &pool.requests[1];
    assert_eq!(next.path, "/4.1/pools/mc/nextToken?timeout=4&description=wn-1.example.org%2Fvm%2Fboot%2F0");
    assert_eq!(next.header("accept"), Some("text/plain"));
    assert_eq!(next.header("cache-control"), Some("no-cache"));
    assert_eq!(next.header("user-agent"), Some(concat!("ctxinit/", env!("CARGO_PKG_VERSION"))));
    let store = pool.requests.iter().find(|request| request.kind() == "store").unwrap();
    assert_eq!(store.header("content-type"), Some("application/octet-stream"));
    assert_eq!(store.header("content-disposition"), Some("attachment; filename=\"mc.17\""));
    assert_eq!(pool.requests[4].path, format!("/4.1/pools/mc/locks/{UUID}?timeout=4"));
}

#[test]
fn without_a_pool_of_results_nothing_is_put() {
    let mut bench = bench(Pool { wants_results: false, ..Pool::with_token(b"") }, |_, _| Fault::Honest);
    bench.claimed();
    assert_eq!(bench.finish(), (Fate::Completed, "token 17 is done".to_owned()));
    assert_eq!(bench.journal(), ["next 303", "token 200", "renew 200", "delete 200"]);
}

#[test]
fn an_empty_result_is_a_result() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    bench.say(&ToWorker::Finished, b"");
    assert_eq!(bench.settled().0, Fate::Completed);
    assert_eq!(bench.server.pool.lock().unwrap().results, [("mc.17".to_owned(), Vec::new())]);
    bench.journal();
}

#[test]
fn the_largest_token_and_result_pass() {
    let large: Vec<u8> = (0..MAX_BODY).map(|n| (n % 251) as u8).collect();
    // At the pace of a real machine: 16 MiB take their time on a busy one.
    let server = Server::start(Pool::with_token(&large), Box::new(|_, _| Fault::Honest), false);
    let config = config(&format!("http://{}/4.1", server.address), true, None);
    let (agent, worker) = start_at(Pace::of(&config.work), config);
    let mut bench = Bench { server, agent: Some(agent), worker };
    bench.say(&ToWorker::Claim, b"");
    let (answer, body) = bench.hear();
    assert!(matches!(answer, FromWorker::Claimed(_)), "{answer:?}");
    assert!(body == large);
    bench.say(&ToWorker::Finished, &large);
    while bench.agent.as_ref().unwrap().backlog() > 0 {
        bench.agent.as_mut().unwrap().flush().unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(bench.settled().0, Fate::Completed);
    assert!(bench.server.pool.lock().unwrap().results[0].1 == large);
    bench.journal();
}

#[test]
fn an_unlocked_token_is_never_run_and_bad_answers_are_told_apart() {
    let location = "Location: http://h/4.1/pools/mc/tokens/17\r\n";
    let empty = "Location: http://h/4.1/pools/mc/tokens/17\r\nX-Topos-LockURL: http://h/4.1/pools/mc/locks/\r\n";
    let cases = [
        (404, "", "NoWork"),
        (400, "", "broken: URL: 400"),
        (405, "", "broken: URL: 405"),
        (401, "", "refused: URL: 401"),
        (403, "", "refused: URL: 403"),
        (200, "", "broken: URL: 200"),
        (301, "Location: https://h/\r\n", "broken: URL: 301, a redirection (\"https://h/\")"),
        (303, location, "broken: URL: 303 without a lock"),
        (303, empty, "broken: URL: 303 without a lock (\"http://h/4.1/pools/mc/locks/\")"),
        (303, "", "broken: URL: 303 to no token"),
        (
            303,
            "Location: http://h/4.1/pools/mc/tokens/../../x\r\n",
            "broken: URL: 303 to no token (\"http://h/4.1/pools/mc/tokens/../../x\")",
        ),
        (503, "", "fault: URL: 503"),
    ];
    let faults: Vec<_> = cases.iter().map(|(status, headers, _)| Fault::Says(*status, headers)).collect();
    let mut bench = bench_with("next", &faults);
    let url = format!("GET http://{}/4.1/pools/mc/nextToken", bench.server.address);
    for (status, headers, expected) in &cases {
        assert_eq!(why(bench.claim()), expected.replace("URL", &url), "{status} {headers}");
    }
    let journal = bench.journal();
    assert!(journal[..cases.len()].iter().all(|entry| entry.starts_with("next ")), "{journal:?}");
    // A server that said 503 may have locked a token.
    assert_eq!(journal[cases.len()..], ["locks 200"]);
}

#[test]
fn garbage_is_a_fault() {
    let mut bench =
        bench_with("next", &[Fault::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), Fault::Raw(vec![0xff; 100_000])]);
    for _ in 0..2 {
        let answer = why(bench.claim());
        assert!(answer.starts_with("fault: GET http://"), "{answer}");
    }
    // Whatever garbage means, a token may have been locked.
    assert_eq!(bench.journal(), ["next raw", "locks 200", "next raw", "locks 200"]);
}

#[test]
fn a_lost_303_is_found_again() {
    let mut bench = bench_with("next", &[Fault::DoesThenDrops]);
    assert!(matches!(bench.claim(), FromWorker::Fault { .. }));
    assert!(bench.locked());
    bench.claimed();
    assert_eq!(bench.finish().0, Fate::Completed);
    let journal = bench.journal();
    assert_eq!(journal[..5], ["next dropped", "locks 200", "release 200", "next 303", "token 200"]);
}

#[test]
fn a_stalled_claim_ends_and_frees_its_lock_later() {
    let mut bench = bench_with("next", &[Fault::DoesThenStalls(Duration::from_secs(3))]);
    let start = Instant::now();
    let answer = why(bench.claim());
    assert!(answer.contains("timeout"), "{answer}");
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    bench.claimed();
    bench.release();
    assert_eq!(bench.journal()[..4], ["next stalled", "locks 200", "release 200", "next 303"]);
}

#[test]
fn an_unreachable_server_is_a_fault_and_strands_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (mut agent, worker) = start(config(&format!("http://{address}/4.1"), true, None));
    agent.send(&ToWorker::Claim, b"").unwrap();
    let answer = why(hear(&mut agent).0);
    assert!(answer.starts_with(&format!("fault: GET http://{address}/4.1/pools/mc/nextToken: ")), "{answer}");
    let server = Server::start_at(address, Pool::with_token(b""), Box::new(|_, _| Fault::Honest), false);
    let mut bench = Bench { server, agent: Some(agent), worker };
    bench.claimed();
    bench.release();
    let pool = bench.server.pool.clone();
    bench.say(&ToWorker::Stop, b"");
    assert_eq!(bench.worker.join().unwrap(), 0);
    // The request was surely never seen, so no lock is looked for.
    assert_eq!(pool.lock().unwrap().journal, ["next 303", "token 200", "release 200"]);
}

#[test]
fn a_token_that_cannot_be_read_at_once_is_read_later() {
    let truncated = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsee".to_vec();
    let mut bench = bench_with("token", &[Fault::Says(500, ""), Fault::Drops, Fault::Raw(truncated)]);
    bench.say(&ToWorker::Claim, b"");
    let (answer, body) = bench.hear();
    assert!(matches!(answer, FromWorker::Claimed(_)), "{answer:?}");
    assert_eq!(body, b"seed=1");
    bench.release();
    let journal = bench.journal();
    let tokens: Vec<_> = journal.iter().filter(|entry| entry.starts_with("token")).collect();
    assert_eq!(tokens, ["token 500", "token dropped", "token raw", "token 200"]);
}

#[test]
fn a_token_that_stays_unreadable_is_given_back_and_its_lock_kept_until_then() {
    let mut bench = bench_with("token", &vec![Fault::Says(500, ""); 100]);
    let answer = why(bench.claim());
    assert!(answer.starts_with("fault: GET http://"), "{answer}");
    assert!(answer.ends_with("tokens/17: 500; token 17 is free again"), "{answer}");
    assert!(bench.token_is_there() && !bench.locked());
    let journal = bench.journal();
    assert!(journal.contains(&"renew 200".to_owned()), "{journal:?}");
    assert!(!journal.iter().any(|entry| entry.starts_with("delete")), "{journal:?}");
}

#[test]
fn a_token_that_is_gone_when_it_is_fetched_is_no_work() {
    let mut bench = bench_with("token", &[Fault::Says(404, ""), Fault::Says(404, "")]);
    assert_eq!(bench.claim(), FromWorker::NoWork);
    assert_eq!(bench.journal(), ["next 303", "token 404", "release 200", "next 303", "token 404", "release 200"]);
}

#[test]
fn a_lock_is_renewed_while_the_payload_runs_through_faults_of_the_server() {
    let faults = [Fault::Honest, Fault::Says(500, ""), Fault::DoesThenDrops, Fault::Says(403, "")];
    let mut bench = bench_with("renew", &faults);
    bench.claimed();
    std::thread::sleep(Duration::from_millis(3900));
    assert_eq!(bench.finish().0, Fate::Completed);
    let journal = bench.journal();
    let renewals: Vec<_> = journal.iter().filter(|entry| entry.starts_with("renew")).collect();
    assert_eq!(renewals[..5], ["renew 200", "renew 500", "renew dropped", "renew 403", "renew 200"], "{journal:?}");
}

#[test]
fn a_broken_lock_stops_the_payload_and_the_token_stays() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    bench.server.pool.lock().unwrap().lock = None;
    let why = "the lock on token 17 ran out or was broken".to_owned();
    assert_eq!(bench.hear().0, FromWorker::LeaseLost { why: why.clone() });
    assert_eq!(bench.release(), (Fate::Lost, why));
    assert!(bench.token_is_there());
    assert_eq!(bench.journal(), ["next 303", "token 200", "renew 404", "token 200"]);
}

#[test]
fn a_cancelled_token_stops_the_payload_and_a_late_result_is_dropped() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    {
        let mut pool = bench.server.pool.lock().unwrap();
        (pool.lock, pool.token) = (None, None);
    }
    let why = "token 17 was deleted elsewhere: finished or cancelled".to_owned();
    assert_eq!(bench.hear().0, FromWorker::LeaseLost { why: why.clone() });
    // The payload ended in the same moment.
    assert_eq!(bench.finish(), (Fate::Lost, why));
    assert_eq!(bench.journal(), ["next 303", "token 200", "renew 404", "token 404"]);
}

#[test]
fn a_silent_server_costs_the_lease_before_it_runs_out() {
    let mut bench = bench_with("renew", &vec![Fault::Says(500, ""); 100]);
    let start = Instant::now();
    bench.claimed();
    let FromWorker::LeaseLost { why } = bench.hear().0 else { panic!("still held") };
    assert!(why.starts_with("the lock on token 17 could not be renewed in time: GET http://"), "{why}");
    assert!(start.elapsed() < PACE.lock, "{:?}", start.elapsed());
    assert!(start.elapsed() > PACE.lock * 3 / 4, "{:?}", start.elapsed());
    assert_eq!(bench.release().0, Fate::Lost);
    assert!(bench.token_is_there() && !bench.locked());
    bench.journal();
}

#[test]
fn a_lock_lost_at_the_last_moment_never_costs_the_token() {
    let mut bench = bench_with("renew", &[Fault::Says(404, "")]);
    bench.claimed();
    assert_eq!(bench.finish(), (Fate::Lost, "the lock on token 17 ran out or was broken".to_owned()));
    assert!(bench.token_is_there());
    assert_eq!(bench.journal(), ["next 303", "token 200", "store 201", "renew 404", "token 200"]);
}

#[test]
fn a_token_is_not_deleted_before_the_lock_is_proved() {
    let mut bench = bench_with("renew", &[Fault::Says(500, ""), Fault::Drops]);
    bench.claimed();
    assert_eq!(bench.finish().0, Fate::Completed);
    let journal = bench.journal();
    assert_eq!(journal[2..], ["store 201", "renew 500", "renew dropped", "renew 200", "delete 200"]);
}

#[test]
fn a_lock_that_cannot_be_proved_costs_no_token() {
    let mut bench = bench_with("renew", &vec![Fault::Says(500, ""); 100]);
    bench.claimed();
    let (fate, note) = bench.finish();
    assert_eq!(fate, Fate::Released, "{note}");
    assert!(note.starts_with("the lock on token 17 could not be renewed in time: GET http://"), "{note}");
    assert!(bench.token_is_there() && !bench.locked());
    assert!(!bench.journal().iter().any(|entry| entry.starts_with("delete")));
}

#[test]
fn a_result_whose_201_was_lost_is_stored_once() {
    for fault in [Fault::DoesThenDrops, Fault::DoesThenSays500] {
        let mut bench = bench_with("store", &[fault]);
        bench.claimed();
        assert_eq!(bench.finish().0, Fate::Completed);
        assert_eq!(bench.server.pool.lock().unwrap().results.len(), 1);
        let journal = bench.journal();
        assert_eq!(journal[3], "results 200", "{journal:?}");
        assert_eq!(journal.iter().filter(|entry| entry.starts_with("store")).count(), 1, "{journal:?}");
    }
}

#[test]
fn a_result_that_was_not_stored_is_stored_again() {
    let mut bench = bench_with("store", &[Fault::Drops, Fault::Says(503, "")]);
    bench.claimed();
    assert_eq!(bench.finish().0, Fate::Completed);
    assert_eq!(bench.server.pool.lock().unwrap().results.len(), 1);
    let journal = bench.journal();
    let stores: Vec<_> =
        journal.iter().filter(|entry| entry.starts_with("store") || entry.starts_with("results")).collect();
    assert_eq!(stores, ["store dropped", "results 200", "store 503", "results 200", "store 201"]);
}

#[test]
fn a_result_that_is_refused_costs_no_token() {
    for status in [400, 403, 404, 411, 413, 200] {
        let mut bench = bench_with("store", &[Fault::Says(status, "")]);
        bench.claimed();
        let (fate, note) = bench.finish();
        assert_eq!(fate, Fate::Released, "{note}");
        let url = format!("http://{}/4.1/pools/mc.out/nextToken", bench.server.address);
        let expected = format!("the result of token 17 cannot be stored: PUT {url}: {status}; token 17 is free again");
        assert_eq!(note, expected);
        assert!(bench.token_is_there() && !bench.locked());
        assert_eq!(bench.journal()[2..], [format!("store {status}"), "release 200".to_owned()]);
    }
}

#[test]
fn a_result_that_cannot_be_stored_while_the_lock_lives_costs_no_token() {
    let mut bench = bench_with("store", &vec![Fault::Says(500, ""); 100]);
    bench.claimed();
    let (fate, note) = bench.finish();
    assert_eq!(fate, Fate::Released, "{note}");
    assert!(note.starts_with("the result of token 17 is perhaps stored: PUT http://"), "{note}");
    assert!(bench.token_is_there() && !bench.locked());
    let journal = bench.journal();
    assert!(!journal.iter().any(|entry| entry.starts_with("delete")), "{journal:?}");
}

#[test]
fn a_server_that_dies_before_completion_strands_the_token() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    bench.server.shut();
    let (fate, note) = bench.finish();
    assert_eq!(fate, Fate::Stranded, "{note}");
    assert!(note.contains("token 17 stays locked until its lock runs out"), "{note}");
    assert!(bench.token_is_there());
    bench.journal();
}

#[test]
fn a_delete_of_unknown_outcome_is_repeated() {
    for fault in [Fault::DoesThenSays500, Fault::DoesThenDrops] {
        let mut bench = bench_with("delete", &[fault]);
        bench.claimed();
        assert_eq!(bench.finish().0, Fate::Completed);
        assert!(!bench.token_is_there());
        assert_eq!(bench.journal().last().unwrap(), "delete 404");
    }
    let mut bench = bench_with("delete", &[Fault::Says(500, ""), Fault::Drops]);
    bench.claimed();
    assert_eq!(bench.finish().0, Fate::Completed);
    assert!(!bench.token_is_there());
    assert_eq!(bench.journal()[4..], ["delete 500", "delete dropped", "delete 200"]);
}

#[test]
fn a_token_that_was_deleted_by_somebody_else_is_lost() {
    let mut bench = bench_with("delete", &[Fault::Says(404, "")]);
    bench.claimed();
    assert_eq!(bench.finish(), (Fate::Lost, "token 17 was deleted elsewhere".to_owned()));
    bench.journal();
}

#[test]
fn a_delete_that_is_refused_gives_the_token_back() {
    for status in [403, 405] {
        let mut bench = bench_with("delete", &[Fault::Says(status, "")]);
        bench.claimed();
        let (fate, note) = bench.finish();
        assert_eq!(fate, Fate::Released, "{note}");
        let url = format!("http://{}/4.1/pools/mc/tokens/17", bench.server.address);
        let expected = format!("token 17 is done but not deleted: DELETE {url}: {status}; token 17 is free again");
        assert_eq!(note, expected);
        assert!(bench.token_is_there() && !bench.locked());
        bench.journal();
    }
}

#[test]
fn a_failed_payload_gives_its_token_back() {
    let free = (Fate::Released, "token 17 is free again".to_owned());
    let gone = (Fate::Lost, "the lock on token 17 was gone already".to_owned());
    let cases: [(&[Fault], _, &[&str]); 4] = [
        (&[], free.clone(), &["release 200"]),
        (&[Fault::Says(500, "")], free.clone(), &["release 500", "release 200"]),
        (&[Fault::DoesThenDrops], free, &["release dropped", "release 404"]),
        (&[Fault::Says(404, "")], gone, &["release 404"]),
    ];
    for (faults, expected, calls) in cases {
        let mut bench = bench_with("release", faults);
        bench.claimed();
        assert_eq!(bench.release(), expected);
        assert!(bench.token_is_there());
        assert_eq!(&bench.journal()[2..], calls);
    }
}

#[test]
fn a_release_takes_no_longer_than_the_farewell() {
    let stall = |request: &Request, _| match request.kind() {
        "release" => Fault::DoesThenStalls(Duration::from_secs(5)),
        _ => Fault::Honest,
    };
    let server = Server::start(Pool::with_token(b""), Box::new(stall), false);
    let config = config(&format!("http://{}/4.1", server.address), true, None);
    let (agent, worker) = start_at(Pace { call: Duration::from_secs(10), ..PACE }, config);
    let mut bench = Bench { server, agent: Some(agent), worker };
    bench.claimed();
    let start = Instant::now();
    let (fate, note) = bench.release();
    assert_eq!(fate, Fate::Stranded, "{note}");
    assert!(start.elapsed() < PACE.farewell * 3, "{:?}", start.elapsed());
    bench.journal();
}

#[test]
fn leftovers_of_earlier_boots_are_freed_at_the_start() {
    let row = |uuid: &str, owner: &str| format!(r#"{{"Name": "{uuid}", "LockDescription": "{owner}"}}"#);
    let uuid = |n: u32| format!("00000000-0000-0000-0000-00000000000{n}");
    let rows = [
        row(&uuid(1), "wn-1.example.org/vm/before/0"),
        row(&uuid(2), "wn-1.example.org/vm/before/7"),
        row(&uuid(3), OWNER),
        row(&uuid(4), "wn-1.example.org/vm/boot/1"),
        row(&uuid(5), "wn-1.example.org/vm2/before/0"),
        row(&uuid(6), "wn-2.example.org/vm/before/0"),
        row("../tokens/17", "wn-1.example.org/vm/before/0"),
        format!(r#"{{"Name": "{}", "LockDescription": null}}"#, uuid(7)),
    ];
    let pool = Pool { other_locks: rows.join(","), ..Pool::with_token(b"") };
    let mut bench = bench(pool, |_, _| Fault::Honest);
    bench.claimed();
    assert_eq!(bench.server.pool.lock().unwrap().released, [uuid(1), uuid(2), uuid(3)]);
    bench.release();
    bench.journal();
}

#[test]
fn a_listing_of_nonsense_stops_nobody() {
    let mut bench = bench_with("locks", &[Fault::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>".to_vec())]);
    bench.claimed();
    bench.release();
    bench.journal();
}

#[test]
fn an_agent_that_dies_leaves_no_lock() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    assert!(bench.locked());
    bench.agent = None;
    let Bench { server, worker, .. } = bench;
    assert_eq!(worker.join().unwrap(), 1);
    let pool = server.pool.lock().unwrap();
    assert_eq!(pool.journal[1..], ["next 303", "token 200", "release 200"]);
    assert!(pool.token.is_some());
}

#[test]
fn stop_while_a_token_is_held_gives_it_back() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    bench.say(&ToWorker::Stop, b"");
    assert_eq!(bench.settled().0, Fate::Released);
    assert_eq!(bench.worker.join().unwrap(), 0);
}

#[test]
fn https_believes_only_the_sites_authorities() {
    let ours: &[u8] = include_bytes!("../fixtures/tls/ca.pem");
    let other: &[u8] = include_bytes!("../fixtures/tls/other-ca.pem");
    let server = Server::start(Pool::with_token(b"x"), Box::new(|_, _| Fault::Honest), true);
    let port = server.address.port();
    let ask = |url: &str, ca| {
        let (mut agent, worker) = start(config(url, true, ca));
        agent.send(&ToWorker::Claim, b"").unwrap();
        let answer = hear(&mut agent).0;
        drop(agent);
        worker.join().unwrap();
        why(answer)
    };
    let url = format!("https://127.0.0.1:{port}/4.1");
    let none = ask(&url, None);
    assert!(none.starts_with(&format!("broken: {url}: https needs the authorities")), "{none}");
    let wrong = ask(&url, Some(other));
    assert!(wrong.starts_with(&format!("fault: GET {url}/pools/mc/nextToken: ")), "{wrong}");
    assert!(wrong.contains("UnknownIssuer"), "{wrong}");
    for url in [&url, &format!("https://localhost:{port}/4.1")] {
        let right = ask(url, Some(ours));
        assert!(right.starts_with("Claimed("), "{right}");
    }
    // A plain server behind an https URL is a fault too, and no request is ever sent in clear.
    let plain = Server::start(Pool::with_token(b"x"), Box::new(|_, _| Fault::Honest), false);
    let clear = ask(&format!("https://{}/4.1", plain.address), Some(ours));
    assert!(clear.starts_with("fault: "), "{clear}");
    assert!(!plain.pool.lock().unwrap().journal.iter().any(|entry| !entry.starts_with("nonsense")));
}

#[test]
fn a_stop_without_work_ends_a_worker_that_can_do_none() {
    let (mut agent, worker) = start(config("https://127.0.0.1:1/4.1", true, None));
    agent.send(&ToWorker::Stop, b"").unwrap();
    assert_eq!(worker.join().unwrap(), 0);
}
