//! The machine is asked to end while the worker is busy: `Stop` comes in the middle of a claim or a settlement.

use super::*;

/// As [`PACE`], but with room in the farewell for a slow test machine: 1 s for steps, 1 s for the release.
const UNHURRIED: Pace = Pace { farewell: Duration::from_secs(2), ..PACE };
/// Into a stall of 600 ms or a pause of 400 ms, counted from when the pool has the call.
const LATER: Duration = Duration::from_millis(100);

fn slow(millis: u64) -> Fault {
    Fault::DoesThenStalls(Duration::from_millis(millis))
}

fn ill() -> Vec<Fault> {
    vec![Fault::Says(500, ""); 100]
}

fn bench_at(pace: Pace, script: impl FnMut(&Request, usize) -> Fault + Send + 'static) -> Bench {
    let server = Server::start(Pool::with_token(b"seed=1"), Box::new(script), false);
    let (agent, worker) = start_at(pace, config(&format!("http://{}/4.1", server.address), true, None));
    Bench { server, agent: Some(agent), worker }
}

/// Calls of each kind go wrong as listed, the first ones.
fn faulty(faults: &[(&'static str, Vec<Fault>)]) -> Bench {
    faulty_at(UNHURRIED, faults)
}

fn faulty_at(pace: Pace, faults: &[(&'static str, Vec<Fault>)]) -> Bench {
    let faults = faults.to_vec();
    bench_at(pace, move |request, seen| {
        let listed = faults.iter().find(|(kind, _)| *kind == request.kind());
        listed.and_then(|(_, faults)| faults.get(seen)).cloned().unwrap_or(Fault::Honest)
    })
}

impl Bench {
    /// Waits until the pool has seen a call of this kind.
    fn seen(&self, kind: &str) {
        while !self.server.pool.lock().unwrap().requests.iter().any(|request| request.kind() == kind) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Says `message`, and `Stop` a little after the first call of this kind; the answer, how long it took, and what
    /// the pool saw before it.
    fn stopped(mut self, message: &ToWorker, kind: &str) -> (FromWorker, Duration, Vec<String>) {
        self.say(message, b"result");
        self.seen(kind);
        std::thread::sleep(LATER);
        let start = Instant::now();
        self.say(&ToWorker::Stop, b"");
        let (answer, _) = self.hear();
        let took = start.elapsed();
        let journal = self.server.pool.lock().unwrap().journal.clone();
        assert_eq!(self.worker.join().unwrap(), 0);
        let pool = self.server.pool.lock().unwrap();
        assert_eq!(pool.offences, [""; 0]);
        assert_eq!(pool.journal, journal);
        (answer, took, journal)
    }

    /// As [`Bench::stopped`], for the end of a token; what the pool saw from its result on.
    fn stopped_in_settling(mut self, kind: &str) -> (Fate, String, Duration, Vec<String>) {
        self.claimed();
        let (answer, took, journal) = self.stopped(&ToWorker::Finished, kind);
        let FromWorker::Settled { fate, note } = answer else { panic!("{answer:?}") };
        (fate, note, took, journal[2..].to_vec())
    }
}

#[test]
fn stop_in_a_claim_frees_what_it_locked() {
    let freed: &[&str] = &["next 303", "token stalled", "release 200"];
    let cases: [(&str, Fault, &[&str]); 4] = [
        ("locks", slow(600), &["next 404", "locks stalled"]),
        ("next", slow(600), &["next stalled", "release 200"]),
        // The answer never comes; what it locked is looked for at once.
        ("next", slow(3000), &["next stalled", "locks 200", "release 200"]),
        ("token", slow(600), freed),
    ];
    for (kind, fault, calls) in cases {
        let mut faults = vec![(kind, vec![fault])];
        if kind == "locks" {
            // Without work it looks for leftovers.
            faults.push(("next", vec![Fault::Says(404, "")]));
        }
        let bench = faulty(&faults);
        let pool = bench.server.pool.clone();
        let (answer, took, journal) = bench.stopped(&ToWorker::Claim, kind);
        assert_eq!(answer, FromWorker::NoWork, "{journal:?}");
        assert_eq!(journal, calls);
        assert!(took < PACE.call + UNHURRIED.farewell, "{took:?}");
        let pool = pool.lock().unwrap();
        assert!(pool.token.is_some() && pool.lock.is_none());
    }
}

#[test]
fn stop_ends_the_tries_to_read_a_token() {
    let bench = faulty(&[("token", ill())]);
    let pool = bench.server.pool.clone();
    let (answer, took, journal) = bench.stopped(&ToWorker::Claim, "token");
    assert_eq!(answer, FromWorker::NoWork);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(journal, ["next 303", "token 500", "release 200"]);
    assert!(pool.lock().unwrap().lock.is_none());
}

#[test]
fn stop_after_a_claim_of_unknown_outcome_frees_its_lock() {
    let mut bench = faulty(&[("next", vec![Fault::DoesThenDrops])]);
    assert!(matches!(bench.claim(), FromWorker::Fault { .. }));
    assert!(bench.locked());
    bench.say(&ToWorker::Stop, b"");
    assert_eq!(bench.worker.join().unwrap(), 0);
    assert!(bench.server.pool.lock().unwrap().lock.is_none());
}

#[test]
fn a_claim_as_a_whole_is_bounded() {
    // Thirteen calls of 200 ms, where the lock would let the tries go on for 54 s.
    let pace = Pace { lock: Duration::from_secs(60), call: Duration::from_millis(200), ..UNHURRIED };
    let mut bench =
        bench_at(pace, |request, _| if request.kind() == "token" { Fault::Says(500, "") } else { Fault::Honest });
    let start = Instant::now();
    let answer = why(bench.claim());
    assert!(answer.ends_with("tokens/17: 500; token 17 is free again"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    bench.journal();
}

#[test]
fn the_last_word_is_heard_behind_a_large_token() {
    let large = vec![b'x'; MAX_BODY];
    let server = Server::start(Pool::with_token(&large), Box::new(|_, _| Fault::Honest), false);
    // Room for 16 MiB on a busy machine.
    let pace = Pace { lock: Duration::from_secs(300), call: Duration::from_secs(30), ..UNHURRIED };
    let (agent, worker) = start_at(pace, config(&format!("http://{}/4.1", server.address), true, None));
    let mut bench = Bench { server, agent: Some(agent), worker };
    bench.say(&ToWorker::Claim, b"");
    // Claimed, as far as a socket holds 16 MiB; then nothing more is read until after the release.
    let poll = nix::poll::PollFlags::POLLIN;
    let fd = std::os::fd::AsFd::as_fd(bench.agent.as_ref().unwrap());
    assert_eq!(nix::poll::poll(&mut [nix::poll::PollFd::new(fd, poll)], 20_000u16), Ok(1));
    bench.say(&ToWorker::Stop, b"");
    while bench.locked() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(LATER);
    let (answer, body) = bench.hear();
    assert!(matches!(answer, FromWorker::Claimed(_)) && body.len() == MAX_BODY, "{answer:?}");
    assert_eq!(bench.settled().0, Fate::Released);
    assert_eq!(bench.worker.join().unwrap(), 0);
}

#[test]
fn stop_while_a_result_is_stored_lets_the_token_be_completed() {
    let cases = [("store", "store stalled"), ("renew", "renew stalled"), ("delete", "delete stalled")];
    for (kind, entry) in cases {
        let (fate, note, _, journal) = faulty(&[(kind, vec![slow(600)])]).stopped_in_settling(kind);
        assert_eq!((fate, note), (Fate::Completed, "token 17 is done, its result is mc.17".to_owned()));
        let calls =
            ["store 201", "renew 200", "delete 200"].map(|call| if call.starts_with(kind) { entry } else { call });
        assert_eq!(journal, calls);
    }
}

#[test]
fn stop_ends_the_tries_to_settle() {
    let free = "token 17 is free again";
    let cases: [(&str, Fault, &str, &[&str]); 4] = [
        ("store", Fault::Says(500, ""), "the result of token 17 is perhaps stored: PUT ", &["store 500"]),
        // Its 201 never comes.
        ("store", slow(3000), "the result of token 17 is perhaps stored: PUT ", &["store stalled"]),
        (
            "renew",
            Fault::Says(500, ""),
            "the lock on token 17 could not be renewed in time: GET ",
            &["store 201", "renew 500"],
        ),
        (
            "delete",
            Fault::Says(500, ""),
            "token 17 is done and perhaps deleted: DELETE ",
            &["store 201", "renew 200", "delete 500"],
        ),
    ];
    for (kind, fault, expected, calls) in cases {
        let bench = faulty(&[(kind, vec![fault; 100])]);
        let pool = bench.server.pool.clone();
        let (fate, note, took, journal) = bench.stopped_in_settling(kind);
        assert_eq!(fate, Fate::Released, "{note}");
        assert!(note.starts_with(expected) && note.ends_with(free), "{note}");
        assert!(took < PACE.call + UNHURRIED.farewell, "{took:?}");
        assert_eq!(journal, [calls, &["release 200"]].concat());
        let pool = pool.lock().unwrap();
        assert!(pool.token.is_some() && pool.lock.is_none());
    }
}

#[test]
fn stop_while_a_lost_result_is_looked_for() {
    let cases = [
        (Fault::DoesThenDrops, Fate::Completed, "token 17 is done"),
        (Fault::Drops, Fate::Released, "the result of token 17 cannot be stored: PUT "),
    ];
    for (fault, expected, start) in cases {
        let mut bench = faulty(&[("store", vec![fault]), ("results", vec![slow(700)])]);
        bench.claimed();
        bench.say(&ToWorker::Finished, b"result");
        // Past the pause after the first try.
        bench.seen("results");
        bench.say(&ToWorker::Stop, b"");
        let (fate, note) = bench.settled();
        assert_eq!(fate, expected, "{note}");
        assert!(note.starts_with(start), "{note}");
        assert_eq!(bench.worker.join().unwrap(), 0);
        let pool = bench.server.pool.lock().unwrap();
        assert_eq!(pool.offences, [""; 0]);
        assert!(pool.lock.is_none());
    }
}

#[test]
fn stop_while_nothing_is_known_any_more_claims_nothing() {
    // The token is deleted but that is never said; the lock went with it.
    let bench = faulty(&[("delete", vec![slow(3000)])]);
    let (fate, note, _, journal) = bench.stopped_in_settling("delete");
    assert_eq!(fate, Fate::Lost, "{note}");
    assert!(note.starts_with("token 17 is done and perhaps deleted: DELETE "), "{note}");
    assert!(note.ends_with("the lock on token 17 was gone already"), "{note}");
    assert_eq!(journal, ["store 201", "renew 200", "delete stalled", "release 404"]);
}

#[test]
fn stop_while_the_server_is_silent_takes_a_call_and_a_farewell() {
    let mute = || vec![Fault::DoesThenStalls(Duration::from_secs(5)); 100];
    // The result is stored just in time, so the proof of the lock is still tried.
    let faults = [("store", vec![slow(800)]), ("renew", mute()), ("release", mute())];
    let (fate, note, took, journal) = faulty_at(PACE, &faults).stopped_in_settling("store");
    assert_eq!(fate, Fate::Stranded, "{note}");
    assert!(note.contains("token 17 stays locked until its lock runs out"), "{note}");
    assert_eq!(journal[..3], ["store stalled", "renew stalled", "release stalled"]);
    assert!(took < PACE.call + PACE.farewell, "{took:?}");
}

#[test]
fn a_settlement_as_a_whole_is_bounded() {
    // The lock is renewed all the time; store and delete could each take a lock's length.
    let start = Instant::now();
    let mut bench = bench_at(UNHURRIED, move |request, _| match request.kind() {
        "store" if start.elapsed() < Duration::from_secs(3) => Fault::Says(503, ""),
        "delete" => Fault::Says(503, ""),
        _ => Fault::Honest,
    });
    bench.claimed();
    let start = Instant::now();
    let (fate, note) = bench.finish();
    assert_eq!(fate, Fate::Released, "{note}");
    assert!(note.starts_with("token 17 is done and perhaps deleted: DELETE "), "{note}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    bench.journal();
}
