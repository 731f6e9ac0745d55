//! From `Claim` to a token in hand: what the pool answers to a claim, and what comes of the token's value.

use super::*;

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
    let calls = ["next 303", "token 200", "store 201", "renew 200", "delete 200", "next 404", "locks 200"];
    assert_eq!(bench.journal(), calls);
    let pool = pool.lock().unwrap();
    assert_eq!(pool.results, [("mc.17".to_owned(), b"result".to_vec())]);
    let next = &pool.requests[0];
    assert_eq!(next.path, "/4.1/pools/mc/nextToken?timeout=4&description=wn-1.example.org%2Fvm%2Fboot%2F0");
    assert_eq!(next.header("accept"), Some("text/plain"));
    assert_eq!(next.header("cache-control"), Some("no-cache"));
    assert_eq!(next.header("user-agent"), Some(concat!("ctxinit/", env!("CARGO_PKG_VERSION"))));
    let store = pool.requests.iter().find(|request| request.kind() == "store").unwrap();
    assert_eq!(store.header("content-type"), Some("application/octet-stream"));
    assert_eq!(store.header("content-disposition"), Some("attachment; filename=\"mc.17\""));
    assert_eq!(pool.requests[3].path, format!("/4.1/pools/mc/locks/{UUID}?timeout=4"));
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
    // The first time that there is no work, it looks for what earlier boots have left.
    assert_eq!(journal[..2], ["next 404", "locks 200"]);
    assert!(journal[2..=cases.len()].iter().all(|entry| entry.starts_with("next ")), "{journal:?}");
    // A server that said 503 may have locked a token.
    assert_eq!(journal[cases.len() + 1..], ["locks 200"]);
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
    let look = bench.server.pool.lock().unwrap().requests[1].path.clone();
    // Its own alone, as far as the server can tell.
    assert_eq!(look, "/4.1/pools/mc/locks/?description=wn-1.example.org%2Fvm%2Fboot%2F0");
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
