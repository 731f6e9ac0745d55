//! Wire by wire with the Python client that PiCaS is known by.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use super::couch::couch;
use super::*;

#[test]
fn tokens_of_one_are_worked_on_by_the_other_and_back() {
    // Its views, its tokens, our work, its look at the results.
    let database = couch().empty("theirs");
    database.python_says(&["views"]);
    database.python_says(&["tokens", "3"]);
    let mut worker = Worker::start(&database.server, &database.name, Settings::default());
    for _ in 0..3 {
        let (token, input) = worker.claimed();
        assert_eq!(token.media_type.as_deref(), Some("text/plain"));
        assert_eq!(worker.finish(&input.to_ascii_uppercase()).0, Fate::Completed);
    }
    assert_eq!(worker.claim().0, FromWorker::NoWork);
    let results = "token_0 0 0 SEED=0\ntoken_1 0 0 SEED=1\ntoken_2 0 0 SEED=2\n";
    assert_eq!(database.python_says(&["results", "done"]), results);
    worker.stop();

    // Our views and tokens, of which one comes back from a VM that stops; its work.
    let database = couch().database("ours");
    for n in 0..3 {
        database.token(&format!("token_{n}"), json!(format!("seed={n}")));
    }
    let mut worker = Worker::start(&database.server, &database.name, Settings::default());
    let (token, _) = worker.claimed();
    assert_eq!(worker.release().0, Fate::Released);
    worker.stop();
    assert_eq!(database.python_says(&["work", "0", "result"]).lines().count(), 3);
    let scrubbed = format!("{} 0 0", token.id);
    assert_eq!(database.python_says(&["results", "done"]), results.replace(&scrubbed, &format!("{} 0 1", token.id)));
}

/// Ten workers and a Python client on 200 tokens. The Python client does not look at `lock` and `done` before it writes its
/// own, so it can take a token that was claimed, or even done, since its look at the view. That is its own; here it shows
/// that no two of us run the same, that we never finish what it took, and that no result of ours is lost.
#[test]
fn ten_workers_and_a_python_client_run_no_token_twice() {
    const TOKENS: usize = 200;
    let database = couch().empty("many");
    database.python_says(&["views"]);
    database.python_says(&["tokens", &TOKENS.to_string()]);
    let python = database.python(&["work", "0.02", "theirs"]).stdout(Stdio::piped()).spawn().unwrap();
    let slots: Vec<_> = (0..10)
        .map(|slot| {
            let settings =
                Settings { slot, pace: Pace { lock: Duration::from_secs(60), ..PACE }, ..Settings::default() };
            let mut worker = Worker::start(&database.server, &database.name, settings);
            std::thread::spawn(move || {
                let mut done = Vec::new();
                // Ten conflicts are no work, too: an empty view is only that for good.
                let mut idle = 0;
                while idle < 3 {
                    match worker.claim() {
                        (FromWorker::Claimed(token), _) => {
                            idle = 0;
                            let fate = worker.finish(format!("slot {slot}").as_bytes()).0;
                            done.push((token.id, fate));
                        }
                        (FromWorker::NoWork, _) => idle += 1,
                        other => panic!("{other:?}"),
                    }
                }
                worker.stop();
                done
            })
        })
        .collect();
    let ours: Vec<_> = slots.into_iter().flat_map(|slot| slot.join().unwrap()).collect();
    let output = python.wait_with_output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: BTreeSet<_> = theirs.lines().filter_map(|line| line.strip_prefix("started ")).collect();

    let completed: Vec<_> = ours.iter().filter(|(_, fate)| *fate == Fate::Completed).map(|(id, _)| id).collect();
    let ours_done: BTreeSet<_> = completed.iter().copied().collect();
    assert_eq!(completed.len(), ours_done.len(), "a token was completed twice");
    // What we claimed and did not complete, the Python client took from us.
    for (id, fate) in &ours {
        assert!(*fate == Fate::Completed || (*fate == Fate::Lost && theirs.contains(id.as_str())), "{id}: {fate:?}");
    }
    let mut claims = BTreeMap::new();
    for (id, _) in &ours {
        *claims.entry(id).or_insert(0) += 1;
    }
    assert!(claims.values().all(|count| *count == 1), "two of us ran the same: {claims:?}");
    assert!(!completed.is_empty() && !theirs.is_empty(), "ours {}, theirs {}", completed.len(), theirs.len());
    // Everything was worked on, and what we completed has our result, whatever became of it afterwards.
    assert_eq!(database.view("todo"), [""; 0]);
    let worked: BTreeSet<_> = ours_done.iter().map(|id| id.as_str()).chain(theirs.iter().copied()).collect();
    assert_eq!(worked.len(), TOKENS);
    for id in &ours_done {
        let result = database.attachment(id, "result");
        assert!(result.starts_with(b"slot ") && database.get(id)["exit_code"] == 0, "{id}: {result:?}");
    }
}
