//! From `Finished` to the end of the token: stored, proved, deleted.

use super::*;

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
