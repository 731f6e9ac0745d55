//! While the payload runs: the lock is renewed, and its loss is told in time.

use super::*;

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
fn a_hanging_server_costs_the_lease_before_it_runs_out() {
    // As 500s do, though each call takes all the time that it is given.
    let pace = Pace { lock: Duration::from_secs(8), ..PACE };
    let hang = |request: &Request, _| match request.kind() {
        "renew" => Fault::DoesThenStalls(Duration::from_secs(20)),
        _ => Fault::Honest,
    };
    let server = Server::start(Pool::with_token(b""), Box::new(hang), false);
    let (agent, worker) = start_at(pace, config(&format!("http://{}/4.1", server.address), true, None));
    let mut bench = Bench { server, agent: Some(agent), worker };
    let start = Instant::now();
    bench.claimed();
    assert!(matches!(bench.hear().0, FromWorker::LeaseLost { .. }));
    // A tenth of the lock is for the payload to be stopped in.
    assert!(start.elapsed() < pace.lock * 19 / 20, "{:?}", start.elapsed());
    assert_eq!(bench.release().0, Fate::Lost);
    bench.journal();
}
