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
fn a_stop_without_work_ends_a_worker_that_can_do_none() {
    let (mut agent, worker) = start(config("https://127.0.0.1:1/4.1", true, None));
    agent.send(&ToWorker::Stop, b"").unwrap();
    assert_eq!(worker.join().unwrap(), 0);
}
