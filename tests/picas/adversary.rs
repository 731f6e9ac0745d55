//! A server that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::fake::{Fake, Fault, Request};
use super::*;

/// Calls end after two seconds, and what failed is tried again after 0.4 s.
const BRISK: Pace = Pace {
    lock: Duration::from_secs(4),
    connect: Duration::from_secs(1),
    call: Duration::from_secs(2),
    farewell: Duration::from_secs(2),
};

struct Bench {
    fake: Fake,
    worker: Worker,
}

fn free(id: &str) -> Value {
    json!({"_id": id, "type": "token", "lock": 0, "done": 0, "input": "seed=1"})
}

fn bench(documents: &[Value], script: impl FnMut(&Request, usize) -> Fault + Send + 'static) -> Bench {
    bench_at(BRISK, 0, documents, script)
}

fn bench_at(
    pace: Pace,
    ahead: i64,
    documents: &[Value],
    script: impl FnMut(&Request, usize) -> Fault + Send + 'static,
) -> Bench {
    let fake = Fake::start(documents, ahead, false, Box::new(script));
    let worker = Worker::start(&format!("http://{}", fake.address), "mc", Settings { pace, ..Settings::default() });
    Bench { fake, worker }
}

/// One free token `t`; calls of one kind go wrong, the first `faults.len()` of them.
fn bench_with(kind: &'static str, faults: &[Fault]) -> Bench {
    let faults = faults.to_vec();
    bench(&[free("t")], move |request, seen| {
        if request.kind() == kind { faults.get(seen).cloned().unwrap_or(Fault::Honest) } else { Fault::Honest }
    })
}

impl Bench {
    /// Stops the worker; what the server saw.
    fn journal(self) -> Vec<String> {
        self.worker.stop();
        self.fake.journal()
    }
}

fn says(status: u16) -> Fault {
    Fault::Says(status, b"{\"error\":\"x\",\"reason\":\"because\"}".to_vec())
}

#[test]
fn what_a_claim_costs() {
    let mut bench = bench_with("", &[]);
    bench.worker.claimed();
    assert_eq!(bench.worker.finish(b"r").0, Fate::Completed);
    assert_eq!(bench.journal(), ["todo 200", "get 200", "claim 201", "attach 201", "get 200", "done 201"]);
}

#[test]
fn bad_answers_are_told_apart() {
    let html = b"<html>Log in, please</html>".to_vec();
    let cases = [
        (says(401), "refused: VIEW: 401: because"),
        (says(403), "refused: VIEW: 403: because"),
        (says(404), "broken: VIEW: 404: because"),
        (says(400), "broken: VIEW: 400: because"),
        (says(302), "broken: VIEW: 302: because"),
        (says(500), "fault: VIEW: 500"),
        (says(429), "fault: VIEW: 429"),
        (Fault::Says(200, html), "broken: VIEW: expected value at line 1 column 1"),
        (Fault::Says(200, b"{\"rows\":[{\"value\":3}]}".to_vec()), "broken: VIEW: missing field `id`"),
        (Fault::Says(200, b"{}".to_vec()), "broken: VIEW: missing field `rows`"),
        (Fault::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec()), "fault: VIEW: "),
        (Fault::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "fault: VIEW: "),
        (Fault::DoesThenStalls(Duration::from_secs(3)), "fault: VIEW: timeout"),
    ];
    let faults: Vec<_> = cases.iter().map(|(fault, _)| fault.clone()).collect();
    let mut bench = bench_with("todo", &faults);
    let view = format!("GET http://{}/mc/_design/Monitor/_view/todo", bench.fake.address);
    for (_, expected) in &cases {
        let why = bench.worker.why();
        let expected = expected.replace("VIEW", &view).replace(" (", "");
        assert!(why.starts_with(&expected), "{why}\n{expected}");
    }
    // None of them may have locked anything, so nothing was looked for.
    let journal = bench.journal();
    assert_eq!(journal.len(), cases.len(), "{journal:?}");
}

#[test]
fn a_view_without_end_is_not_read_to_its_end() {
    let mut bench = bench_at(PACE, 0, &[], |request, _| match request.kind() {
        "todo" => Fault::Says(200, vec![b' '; 17 << 20]),
        _ => Fault::Honest,
    });
    let why = bench.worker.why();
    assert!(why.starts_with("broken: GET ") && why.ends_with("/todo: more than 16777216 bytes"), "{why}");
}

#[test]
fn tokens_that_are_none_are_left_alone() {
    let documents = [
        json!({"_id": "no-lock", "done": 0, "input": "x"}),
        json!({"_id": "no-done", "lock": 0, "input": "x"}),
        json!({"_id": "text", "lock": "0", "done": 0, "input": "x"}),
        json!({"_id": "null", "lock": null, "done": 0, "input": "x"}),
        json!({"_id": "_design%2FMonitor", "lock": 0, "done": 0}),
        json!({"_id": "..", "lock": 0, "done": 0}),
        json!({"_id": "a\u{1b}[2J", "lock": 0, "done": 0}),
    ];
    let mut bench = bench(&documents, |_, _| Fault::Honest);
    assert_eq!(bench.worker.claim().0, FromWorker::NoWork);
    let journal = bench.journal();
    assert!(!journal.iter().any(|entry| entry.starts_with("claim")), "{journal:?}");
    assert_eq!(journal.iter().filter(|entry| *entry == "get 200").count(), 4, "{journal:?}");
}

#[test]
fn a_document_that_is_none_does_not_stop_the_others() {
    let html = b"<html/>".to_vec();
    let other = br#"{"_id":"other","_rev":"1-x","lock":0,"done":0}"#.to_vec();
    let large = vec![b' '; (16 << 20) + 1];
    for wrong in [html, other, large, b"[]".to_vec()] {
        let mut bench = bench_at(PACE, 0, &[free("a"), free("b")], move |request, seen| match request.kind() {
            "get" if seen == 0 => Fault::Says(200, wrong.clone()),
            _ => Fault::Honest,
        });
        bench.worker.claimed();
        assert_eq!(bench.worker.release().0, Fate::Released);
        assert_eq!(bench.journal().iter().filter(|entry| entry.starts_with("claim")).count(), 1);
    }
}

#[test]
fn ten_conflicts_are_no_work() {
    let mut bench = bench_with("claim", &vec![says(409); 100]);
    assert_eq!(bench.worker.claim().0, FromWorker::NoWork);
    let journal = bench.journal();
    assert_eq!(journal.iter().filter(|entry| *entry == "claim 409").count(), 10, "{journal:?}");
}

#[test]
fn a_token_that_was_claimed_since_the_view_is_not_taken() {
    let mut bench = bench(&[free("t")], |request, seen| match request.kind() {
        "get" if seen == 0 => Fault::After(json!({"lock": 1_700_000_000, "hostname": "other"})),
        _ => Fault::Honest,
    });
    assert_eq!(bench.worker.claim().0, FromWorker::NoWork);
    assert_eq!(bench.fake.document("t")["hostname"], "other");
    assert_eq!(bench.journal(), ["todo 200", "get 200", "todo 200", "locked 200"]);
}

#[test]
fn slot_0_looks_for_leftovers_once_and_the_others_never() {
    let left = json!({"_id": "t", "lock": 1_700_000_000, "done": 0, "input": "x", "hostname": HOSTNAME,
        "ctxinit_claim": format!("{HOSTNAME}/vm/before/1/r")});
    let fake = Fake::start(&[left], 0, false, Box::new(|_, _| Fault::Honest));
    let url = format!("http://{}", fake.address);
    let mut second = Worker::start(&url, "mc", Settings { pace: BRISK, slot: 1, ..Settings::default() });
    assert_eq!(second.claim().0, FromWorker::NoWork);
    assert_eq!(fake.journal(), ["todo 200"]);
    let mut first = Worker::start(&url, "mc", Settings { pace: BRISK, ..Settings::default() });
    first.claimed();
    assert_eq!(fake.document("t")["scrub_count"], 1);
    assert_eq!(first.finish(b"r").0, Fate::Completed);
    assert_eq!(first.claim().0, FromWorker::NoWork);
    assert_eq!(fake.journal().iter().filter(|entry| *entry == "locked 200").count(), 1);
    first.stop();
    second.stop();
}

#[test]
fn a_claim_whose_201_was_lost_is_found_at_once() {
    for fault in [Fault::DoesThenDrops, Fault::DoesThenSays(409), Fault::DoesThenSays(500), Fault::DoesThenSays(202)] {
        let mut bench = bench_with("claim", &[fault]);
        bench.worker.claimed();
        assert_eq!(bench.worker.finish(b"r").0, Fate::Completed);
        let journal = bench.journal();
        assert_eq!(journal.iter().filter(|entry| entry.starts_with("claim")).count(), 1, "{journal:?}");
    }
}

#[test]
fn a_claim_that_arrives_late_is_put_back() {
    // The answer takes longer than the call, and so does that to the look whether it arrived.
    let mut bench = bench(&[free("t")], |request, seen| match (request.kind(), seen) {
        ("claim", 0) | ("get", 1) => Fault::DoesThenStalls(Duration::from_secs(3)),
        _ => Fault::Honest,
    });
    let why = bench.worker.why();
    assert!(why.starts_with("fault: PUT http://") && why.contains("timeout"), "{why}");
    bench.worker.claimed();
    assert_eq!(bench.fake.document("t")["scrub_count"], 1);
    bench.worker.release();
    let journal = bench.journal();
    assert_eq!(journal[..6], ["todo 200", "get 200", "claim 201", "get 200", "get 200", "get 200"]);
    assert_eq!(journal[6], "scrub 201", "{journal:?}");
}

#[test]
fn a_late_claim_that_is_not_put_back_at_once_is_put_back_later() {
    let mut bench = bench(&[free("t")], |request, seen| match (request.kind(), seen) {
        ("claim", 0) | ("get", 1) => Fault::DoesThenStalls(Duration::from_secs(3)),
        ("scrub", 0) => says(500),
        // Nor is it found among all that are claimed.
        ("locked", _) => says(404),
        _ => Fault::Honest,
    });
    let why = bench.worker.why();
    assert!(why.starts_with("fault: PUT http://") && why.contains("timeout"), "{why}");
    // Nobody else can have it.
    assert_eq!(bench.worker.why(), "NoWork");
    bench.worker.claimed();
    assert_eq!(bench.fake.document("t")["scrub_count"], 1);
    bench.worker.release();
}

/// A lock of ToPoS would have run out by then, and so might a worker forget it.
#[test]
fn a_claim_is_put_back_after_an_outage_of_any_length() {
    let ill = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&ill);
    let mut bench = bench(&[free("t")], move |request, seen| match (request.kind(), seen) {
        ("todo", 0) | ("get", 0) => Fault::Honest,
        ("claim", 0) => Fault::DoesThenDrops,
        _ if still.load(Ordering::Relaxed) => says(500),
        _ => Fault::Honest,
    });
    assert!(bench.worker.why().starts_with("fault: PUT http://"));
    std::thread::sleep(BRISK.lock + BRISK.call + BRISK.call / 2);
    assert!(bench.worker.why().starts_with("fault: GET http://"));
    ill.store(false, Ordering::Relaxed);
    bench.worker.claimed();
    assert_eq!(bench.fake.document("t")["scrub_count"], 1);
    bench.worker.release();
}

#[test]
fn the_largest_result_passes_and_a_large_token() {
    let large = "x".repeat(2 << 20);
    let document = json!({"_id": "t", "lock": 0, "done": 0, "input": large});
    let fake = Fake::start(&[document], 0, false, Box::new(|_, _| Fault::Honest));
    let settings = Settings {
        pace: Pace { lock: Duration::from_secs(300), call: Duration::from_secs(60), ..PACE },
        ..Settings::default()
    };
    let mut worker = Worker::start(&format!("http://{}", fake.address), "mc", settings);
    assert!(worker.claimed().1 == large.as_bytes());
    let result = vec![7; 16 << 20];
    assert_eq!(worker.finish(&result).0, Fate::Completed);
    assert!(fake.state.lock().unwrap().results["t"] == result);
    worker.stop();
}

#[test]
fn a_result_outlives_conflicts() {
    // Somebody writes the document between each read and write.
    let noted = |n: usize| Fault::After(json!({"note": n}));
    let mut bench = bench(&[free("t")], move |request, seen| match request.kind() {
        "attach" | "done" if seen < 3 => noted(seen),
        _ => Fault::Honest,
    });
    bench.worker.claimed();
    let (fate, note) = bench.worker.finish(b"result");
    assert_eq!(fate, Fate::Completed, "{note}");
    let document = bench.fake.document("t");
    assert_eq!((&document["note"], &document["exit_code"]), (&json!(2), &json!(0)));
    assert_eq!(bench.fake.state.lock().unwrap().results["t"], b"result");
    let journal = bench.journal();
    assert_eq!(journal.iter().filter(|entry| *entry == "attach 409" || *entry == "done 409").count(), 6, "{journal:?}");
}

#[test]
fn a_result_that_never_gets_through_is_not_claimed_to_be_done() {
    for kind in ["attach", "done"] {
        let mut bench = bench_with(kind, &vec![says(409); 100_000]);
        bench.worker.claimed();
        let (fate, note) = bench.worker.finish(b"result");
        assert_eq!(fate, Fate::Released, "{note}");
        let document = bench.fake.document("t");
        assert_eq!((&document["lock"], &document["done"]), (&json!(0), &json!(0)), "{kind}");
        bench.journal();
    }
}

#[test]
fn somebody_elses_claim_is_never_overwritten() {
    let theirs = json!({"lock": 1_700_000_000, "hostname": "thief"});
    for (kind, told) in [("attach", "cannot be stored"), ("done", "not deleted")] {
        let theft = theirs.clone();
        let mut bench = bench(&[free("t")], move |request, seen| match (request.kind() == kind, seen) {
            (true, 0) => Fault::After(theft.clone()),
            _ => Fault::Honest,
        });
        bench.worker.claimed();
        let (fate, note) = bench.worker.finish(b"result");
        assert!(fate == Fate::Lost && note.contains(told), "{kind}: {fate:?} {note}");
        let document = bench.fake.document("t");
        assert_eq!((&document["hostname"], &document["done"]), (&json!("thief"), &json!(0)));
        bench.journal();
    }
    // Neither by giving it back, nor by putting it aside.
    for kind in ["scrub", "fail"] {
        let theft = theirs.clone();
        let mut bench = bench(&[free("t")], move |request, seen| match (request.kind() == kind, seen) {
            (true, 0) => Fault::After(theft.clone()),
            _ => Fault::Honest,
        });
        bench.worker.claimed();
        let fate = if kind == "scrub" { bench.worker.release().0 } else { bench.worker.fail("x", false).0 };
        assert_eq!(fate, Fate::Lost, "{kind}");
        assert_eq!(bench.fake.document("t")["hostname"], "thief");
        bench.journal();
    }
}

#[test]
fn what_worked_without_an_answer_is_not_done_twice() {
    for kind in ["attach", "done", "scrub", "fail"] {
        for fault in [Fault::DoesThenDrops, Fault::DoesThenSays(500), Fault::DoesThenSays(202)] {
            let mut bench = bench_with(kind, &[fault]);
            bench.worker.claimed();
            let (fate, expected) = match kind {
                "scrub" => (bench.worker.release().0, Fate::Released),
                "fail" => (bench.worker.fail("x", false).0, Fate::Failed),
                _ => (bench.worker.finish(b"result").0, Fate::Completed),
            };
            assert_eq!(fate, expected, "{kind}");
            let journal = bench.journal();
            assert_eq!(journal.iter().filter(|entry| entry.starts_with(kind)).count(), 1, "{journal:?}");
        }
    }
}

#[test]
fn a_silent_server_takes_no_token_away() {
    let mut bench = bench(&[free("t")], |request, seen| match request.kind() {
        "get" if (1..5).contains(&seen) => Fault::Says(503, Vec::new()),
        _ => Fault::Honest,
    });
    bench.worker.claimed();
    let start = Instant::now();
    while bench.fake.journal().iter().filter(|entry| *entry == "get 503").count() < 4 {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    // Longer than a lease would have been held.
    assert!(start.elapsed() > BRISK.lock, "{:?}", start.elapsed());
    assert_eq!(bench.worker.finish(b"result").0, Fate::Completed);
    bench.journal();
}

#[test]
fn stamps_are_on_the_servers_clock() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    for (ahead, used) in [(-7200, -7200), (86_400, 86_400), (30, 0)] {
        let mut bench = bench_at(BRISK, ahead, &[free("t")], |_, _| Fault::Honest);
        bench.worker.claimed();
        bench.worker.finish(b"");
        let document = bench.fake.document("t");
        for field in ["lock", "done"] {
            let off = document[field].as_i64().unwrap() - now() - used;
            assert!((-20..=1).contains(&off), "{ahead}: {field} is off by {off} s");
        }
        bench.journal();
    }
}

#[test]
fn a_user_is_named_and_https_believes_only_the_sites_authorities() {
    let ours: &[u8] = include_bytes!("../fixtures/tls/ca.pem");
    let other: &[u8] = include_bytes!("../fixtures/tls/other-ca.pem");
    let fake = Fake::start(&[free("t")], 0, true, Box::new(|_, _| Fault::Honest));
    let url = format!("https://{}", fake.address);
    let start = |ca: Option<&[u8]>, user: &[u8]| {
        let mut credentials = Credentials::default();
        credentials.put("work.picas.ca", ca.map(<[u8]>::to_vec));
        credentials.put("work.picas.user_file", Some(user.to_vec()));
        Worker::start(&url, "mc", Settings { credentials, ..Settings::default() })
    };
    let why = start(None, b"me:secret\n").why();
    assert!(why.contains("https needs the authorities that sign the server's certificate (work.picas.ca)"), "{why}");
    let why = start(Some(other), b"me:secret\n").why();
    assert!(why.starts_with("fault: GET ") && why.contains("UnknownIssuer"), "{why}");
    let why = start(Some(ours), b"me and you\n").why();
    assert_eq!(why, "broken: work.picas.user_file: line 1: no colon in it (user:password)");
    let mut clear = Credentials::default();
    clear.put("work.picas.user_file", Some(b"me:secret".to_vec()));
    let clear = Settings { credentials: clear, ..Settings::default() };
    let why = Worker::start("http://127.0.0.1:1", "mc", clear).why();
    assert!(why.ends_with("is shown to https alone"), "{why}");
    let mut worker = start(Some(ours), b"me:secret\n");
    worker.claimed();
    assert_eq!(fake.state.lock().unwrap().authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));
    worker.release();
    worker.stop();
}
