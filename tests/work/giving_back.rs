//! Tokens that go back, and locks that nobody holds any more.

use super::*;

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

/// Rows for the listing of locks: uuids 1 to 3 are ours to free, the last two are none of a lock that could be.
fn other_locks() -> String {
    let row = |uuid: &str, owner: &str| format!(r#"{{"Name": "{uuid}", "LockDescription": "{owner}"}}"#);
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
    rows.join(",")
}

fn uuid(n: u32) -> String {
    format!("00000000-0000-0000-0000-00000000000{n}")
}

#[test]
fn leftovers_of_earlier_boots_are_freed_when_there_is_no_other_work() {
    let pool = Pool { other_locks: other_locks(), ..Pool::with_token(b"") };
    let mut bench = bench(pool, |_, _| Fault::Honest);
    bench.claimed();
    assert_eq!(bench.server.pool.lock().unwrap().released, [""; 0]);
    bench.finish();
    assert_eq!(bench.claim(), FromWorker::NoWork);
    assert_eq!(bench.server.pool.lock().unwrap().released, [uuid(1), uuid(2), uuid(3)]);
    let look = bench.server.pool.lock().unwrap().requests[6].path.clone();
    assert_eq!(look, "/4.1/pools/mc/locks/?description=wn-1.example.org%2Fvm%2F");
    // The first time alone.
    assert_eq!(bench.claim(), FromWorker::NoWork);
    let freed = ["release 200"; 3];
    assert_eq!(bench.journal()[5..], [&["next 404", "locks 200"], &freed[..], &["next 404", "next 404"]].concat());
}

#[test]
fn what_an_earlier_boot_has_left_is_worked_on_at_once() {
    let pool = Pool { lock: Some("wn-1.example.org/vm/before/3".to_owned()), ..Pool::with_token(b"") };
    let mut bench = bench(pool, |_, _| Fault::Honest);
    bench.claimed();
    bench.release();
    let calls = ["next 404", "locks 200", "release 200", "next 303", "token 200", "release 200"];
    assert_eq!(bench.journal(), calls);
}

#[test]
fn only_slot_0_looks_for_leftovers() {
    let server =
        Server::start(Pool { other_locks: other_locks(), ..Pool::default() }, Box::new(|_, _| Fault::Honest), false);
    let mut config = config(&format!("http://{}/4.1", server.address), true, None);
    config.identity.slot = 1;
    let (agent, worker) = start(config);
    let mut bench = Bench { server, agent: Some(agent), worker };
    assert_eq!(bench.claim(), FromWorker::NoWork);
    assert_eq!(bench.journal(), ["next 404"]);
}

#[test]
fn a_listing_of_nonsense_stops_nobody() {
    let nonsense = Fault::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html/>".to_vec());
    let mut bench = bench(Pool::default(), move |request, _| match request.kind() {
        "locks" => nonsense.clone(),
        _ => Fault::Honest,
    });
    assert_eq!(bench.claim(), FromWorker::NoWork);
    bench.server.pool.lock().unwrap().token = Some(b"seed=1".to_vec());
    bench.claimed();
    bench.release();
    assert_eq!(bench.journal(), ["next 404", "locks raw", "next 303", "token 200", "release 200"]);
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
    assert_eq!(pool.journal, ["next 303", "token 200", "release 200"]);
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
fn a_stop_without_work_ends_a_worker_that_can_do_none() {
    let (mut agent, worker) = start(config("https://127.0.0.1:1/4.1", true, None));
    agent.send(&ToWorker::Stop, b"").unwrap();
    assert_eq!(worker.join().unwrap(), 0);
}
