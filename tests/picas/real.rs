//! What a real server keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::couch::{Couch, Database, couch};
use super::*;

fn start(database: &Database) -> Worker {
    Worker::start(&database.server, &database.name, Settings::default())
}

fn is_now(stamp: &Value) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    (now - 60..=now).contains(&stamp.as_u64().unwrap())
}

#[test]
fn a_token_is_claimed_run_and_completed() {
    let database = couch().database("whole");
    // An id of any characters, unknown fields, and an attachment of somebody's.
    let id = "a/../b c?d=e&f#g%h+\u{e9}";
    database.put(&json!({
        "_id": id, "type": "token", "lock": 0, "done": 0, "input": {"seed": 1.5}, "mine": [null, {"x": 1}],
        "media_type": "application/json; vo=atlas",
        "_attachments": {"in.txt": {"content_type": "text/plain", "data": "aGVsbG8="}},
    }));
    let mut worker = start(&database);
    let (token, body) = worker.claimed();
    assert_eq!((token.id.as_str(), token.leases), (id, Some(1)));
    assert_eq!(token.media_type.as_deref(), Some("application/json; vo=atlas"));
    assert_eq!(token.owner.to_string(), "/atlas");
    assert_eq!(body, br#"{"seed":1.5}"#);
    let locked = database.get(id);
    assert!(is_now(&locked["lock"]) && locked["done"] == 0 && locked["hostname"] == HOSTNAME, "{locked}");
    assert!(locked["ctxinit_claim"].as_str().unwrap().starts_with("wn-1.example.org/vm/boot/0/"), "{locked}");
    assert_eq!(database.view("todo"), [""; 0]);

    let (fate, note) = worker.finish(b"the\0result");
    let encoded = "a%2F..%2Fb%20c%3Fd%3De%26f%23g%25h%2B%C3%A9";
    let place = format!("{}/whole/{encoded}/result", database.server);
    assert_eq!((fate, note), (Fate::Completed, format!("token {id} is done, its result is {place}")));
    let done = database.get(id);
    assert!(is_now(&done["done"]) && done["lock"] == locked["lock"] && done["exit_code"] == 0, "{done}");
    assert_eq!((&done["mine"], &done["input"]), (&locked["mine"], &locked["input"]));
    assert_eq!(database.attachment(id, "in.txt"), b"hello");
    assert_eq!(database.attachment(id, "result"), b"the\0result");
    assert_eq!(database.view("done"), [id]);
    assert_eq!(worker.claim().0, FromWorker::NoWork);
    worker.stop();
}

#[test]
fn a_large_result_is_kept_and_an_empty_one() {
    let database = couch().database("large");
    database.token("t0", json!(""));
    database.token("t1", json!(""));
    let settings = Settings {
        pace: Pace { lock: Duration::from_secs(300), call: Duration::from_secs(60), ..PACE },
        ..Settings::default()
    };
    let mut worker = Worker::start(&database.server, &database.name, settings);
    let large: Vec<u8> = (0..2 << 20).map(|n| (n % 251) as u8).collect();
    for result in [&large[..], b""] {
        let (token, body) = worker.claimed();
        assert_eq!(body, b"");
        let (fate, note) = worker.finish(result);
        assert_eq!(fate, Fate::Completed, "{note}");
        assert!(database.attachment(&token.id, "result") == result);
    }
    worker.stop();
}

#[test]
fn a_token_that_fails_goes_back_until_it_is_an_error() {
    let database = couch().database("failing");
    database.token("poison", json!("x"));
    let settings = Settings { max_scrubs: 1, ..Settings::default() };
    let mut worker = Worker::start(&database.server, &database.name, settings);
    assert_eq!(worker.claimed().0.leases, Some(1));
    let free = "token poison is free again";
    let (fate, note) = worker.fail("exit 3", true);
    assert!(fate == Fate::Released && note.ends_with(free), "{note}");
    let back = database.get("poison");
    assert_eq!((&back["lock"], &back["done"], &back["scrub_count"]), (&json!(0), &json!(0), &json!(1)));
    assert_eq!((back["hostname"].as_str(), back.get("ctxinit_claim")), (Some(HOSTNAME), None));
    assert_eq!(worker.claimed().0.leases, Some(2));
    let (fate, note) = worker.fail("exit 4", true);
    assert_eq!(fate, Fate::Failed, "{note}");
    let failed = database.get("poison");
    assert_eq!((&failed["lock"], &failed["done"]), (&json!(99), &json!(99)));
    assert_eq!(failed["error"][0]["message"], "exit 4");
    assert!(is_now(&failed["error"][0]["time"]));
    assert_eq!(database.view("error"), ["poison"]);

    database.token("hopeless", json!("x"));
    worker.claimed();
    assert_eq!(worker.fail("exit 64", false).0, Fate::Failed);
    assert_eq!(database.get("hopeless")["error"][0]["message"], "exit 64");
    // What never was a task is not given to the next one either.
    database.put(&json!({"_id": "bare", "type": "token", "lock": 0, "done": 0}));
    assert_eq!(worker.claim().0, FromWorker::NoWork);
    assert_eq!(database.view("error"), ["bare", "hopeless", "poison"]);
    let bare = database.get("bare");
    assert!(bare["error"][0]["message"].as_str().unwrap().ends_with("/bare: it has no field input"), "{bare}");
    worker.stop();
}

#[test]
fn a_stop_puts_a_token_back() {
    let database = couch().database("stop");
    database.token("t", json!("x"));
    let mut worker = start(&database);
    worker.claimed();
    worker.say(&ToWorker::Stop, b"");
    assert_eq!(worker.settled(), (Fate::Released, "token t is free again".to_owned()));
    assert_eq!(worker.thread.take().unwrap().join().unwrap(), 0);
    assert_eq!(database.view("todo"), ["t"]);
    assert_eq!(database.get("t")["scrub_count"], 1);
}

#[test]
fn an_agent_that_dies_leaves_no_claim() {
    let database = couch().database("orphan");
    database.token("t", json!("x"));
    let mut worker = start(&database);
    worker.claimed();
    drop(worker.agent.take());
    assert_eq!(worker.thread.take().unwrap().join().unwrap(), 1);
    assert_eq!(database.view("todo"), ["t"]);
}

#[test]
fn a_second_writer_costs_no_result_and_loses_no_word() {
    let database = couch().database("writers");
    for n in 0..5 {
        database.token(&format!("t{n}"), json!("x"));
    }
    let over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (over, database) = (over.clone(), database.clone());
        move || {
            let mut written = 0;
            while !over.load(Ordering::SeqCst) {
                for n in 0..5 {
                    let mut document = database.get(&format!("t{n}"));
                    let count = document["note"].as_u64().unwrap_or_default();
                    document["note"] = json!(count + 1);
                    written += u64::from(database.try_put(&document));
                }
            }
            written
        }
    });
    let mut worker = start(&database);
    for _ in 0..5 {
        let (token, _) = worker.claimed();
        let (fate, note) = worker.finish(token.id.as_bytes());
        assert_eq!(fate, Fate::Completed, "{note}");
    }
    over.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    let noted = |id: &String| database.get(id)["note"].as_u64().unwrap_or_default();
    let done = database.view("done");
    assert_eq!(done, ["t0", "t1", "t2", "t3", "t4"]);
    assert!(done.iter().all(|id| database.attachment(id, "result") == id.as_bytes()));
    assert_eq!(done.iter().map(noted).sum::<u64>(), written);
    worker.stop();
}

#[test]
fn a_token_that_an_operator_freed_is_lost_and_not_touched() {
    let database = couch().database("operator");
    database.token("t", json!("x"));
    let mut worker = start(&database);
    worker.claimed();
    // resetTokens.py, and then another client that leaves our field where it is.
    database.edit("t", |t| (t["lock"], t["scrub_count"]) = (json!(0), json!(1)));
    let FromWorker::LeaseLost { why } = worker.hear().0 else { panic!("still held") };
    assert_eq!(why, "the lock on token t ran out or was broken");
    database.edit("t", |t| (t["lock"], t["hostname"]) = (json!(1_700_000_000), json!("other")));
    let before = database.get("t");
    assert_eq!(worker.finish(b"late").0, Fate::Lost);
    assert_eq!(database.get("t"), before);
    // The same without a look in between.
    database.edit("t", |t| (t["lock"], t["hostname"]) = (json!(0), json!("")));
    worker.claimed();
    database.edit("t", |t| t["hostname"] = json!("thief"));
    let before = database.get("t");
    let (fate, note) = worker.finish(b"late");
    assert_eq!(fate, Fate::Lost, "{note}");
    assert_eq!(database.get("t"), before);
    worker.stop();
}

#[test]
fn claims_of_earlier_boots_are_put_back() {
    let database = couch().database("leftovers");
    let claims = ["vm/before/0/r", "vm/before/7/r", "vm/boot/0/r", "vm/boot/1/r", "other/before/0/r"];
    for (n, claim) in claims.iter().enumerate() {
        let id = format!("t{n}");
        database.token(&id, json!("x"));
        database.edit(&id, |t| {
            t["lock"] = json!(1_700_000_000);
            t["hostname"] = json!(HOSTNAME);
            t["ctxinit_claim"] = json!(format!("{HOSTNAME}/{claim}"));
        });
    }
    let mut worker = start(&database);
    worker.claimed();
    worker.release();
    assert_eq!(database.view("todo"), ["t0", "t1", "t2"]);
    assert_eq!(database.view("locked"), ["t3", "t4"]);
    worker.stop();
}

#[test]
fn a_server_that_loses_its_power_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let couch = Couch::start(dir.path());
    let database = couch.database("power");
    database.token("t", json!("x"));
    let settings = Settings { pace: Pace { lock: Duration::from_secs(60), ..PACE }, ..Settings::default() };
    let mut worker = Worker::start(&database.server, &database.name, settings);
    worker.claimed();
    couch.kill();
    worker.say(&ToWorker::Finished, b"result");
    std::thread::sleep(Duration::from_millis(500));
    couch.restart();
    let (fate, note) = worker.settled();
    assert_eq!(fate, Fate::Completed, "{note}");
    assert_eq!((database.view("done"), database.attachment("t", "result")), (vec!["t".to_owned()], b"result".to_vec()));
    worker.stop();
}

#[test]
fn databases_and_views_that_are_not_there_are_told() {
    let database = couch().empty("bare");
    let mut worker = start(&database);
    let url = format!("{}/bare/_design/Monitor/_view/todo", database.server);
    let why = worker.why();
    assert!(why.starts_with(&format!("broken: GET {url}: 404: ")), "{why}");
    worker.stop();
    let mut worker = Worker::start(&database.server, "nowhere", Settings::default());
    let why = worker.why();
    assert!(why.starts_with("broken: GET ") && why.contains("/nowhere/_design/Monitor/_view/todo: 404"), "{why}");
    worker.stop();
}
