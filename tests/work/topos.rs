//! What only a ToPoS pool has: tokens that fail for good, versions, and where results go.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Which kinds of calls go wrong, and how.
type Faults<'a> = &'a [(&'static str, Fault)];

/// Says that the payload failed.
fn fail(bench: &mut Bench, again: bool) -> (Fate, String) {
    bench.say(&ToWorker::Failed { why: "exit status 1".to_owned(), again }, b"");
    bench.settled()
}

/// A worker and an honest pool, but for `faults`; `base` and `more` are of the context, with PORT for the server's.
fn configured(base: &str, more: &str, faults: Faults<'_>) -> Bench {
    let mut faults = faults.to_vec();
    let script = move |request: &Request, _| match faults.iter().position(|(kind, _)| *kind == request.kind()) {
        Some(at) => faults.remove(at).1,
        None => Fault::Honest,
    };
    let server = Server::start(Pool::with_token(b"seed=1"), Box::new(script), false);
    let port = server.address.port().to_string();
    let topos = format!(r#"{{"url": "http://127.0.0.1:PORT{base}", "pool": "mc"{more}}}"#).replace("PORT", &port);
    let work = Work::Topos(serde_json::from_str(&topos).unwrap());
    let (agent, worker) = start(Config { work, ..config("http://h", false, None) });
    Bench { server, agent: Some(agent), worker }
}

const MOVED: [&str; 4] = ["renew 200", "move 200", "moved 200", "release 200"];

#[test]
fn a_token_that_failed_for_good_is_put_aside() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    assert_eq!(fail(&mut bench, false), (Fate::Failed, "token 17 is in pool mc.failed now".to_owned()));
    assert_eq!(bench.server.pool.lock().unwrap().failed, [b"seed=1"]);
    assert_eq!(bench.journal()[2..], MOVED);
}

#[test]
fn a_token_that_was_handed_out_too_often_is_put_aside() {
    // The server says that this is its third time.
    for (limit, fate) in [(2, Fate::Failed), (3, Fate::Failed), (4, Fate::Released), (10, Fate::Released)] {
        let mut bench = configured("/4.1", &format!(r#", "lease_limit": {limit}"#), &[]);
        bench.server.pool.lock().unwrap().wants_results = false;
        bench.claimed();
        assert_eq!(fail(&mut bench, true).0, fate, "{limit}");
        assert_eq!(bench.token_is_there(), fate == Fate::Released);
        let calls: &[&str] = if fate == Fate::Failed { &MOVED } else { &["release 200"] };
        assert_eq!(bench.journal()[2..], *calls);
    }
}

#[test]
fn a_server_that_does_not_count_leases_never_puts_aside() {
    let raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_vec();
    let mut bench = configured("/4.1", r#", "lease_limit": 1"#, &[("token", Fault::Raw(raw))]);
    bench.claimed();
    assert_eq!(fail(&mut bench, true).0, Fate::Released);
    assert_eq!(bench.journal()[2..], ["release 200"]);
}

#[test]
fn a_token_that_was_stopped_is_never_put_aside() {
    let mut bench = configured("/4.1", r#", "lease_limit": 1"#, &[]);
    bench.claimed();
    assert_eq!(bench.release().0, Fate::Released);
    assert_eq!(bench.journal()[2..], ["release 200"]);
}

#[test]
fn a_token_that_cannot_be_put_aside_is_given_back() {
    let cases: [(Faults<'_>, Fate, &[&str]); 6] = [
        // A server of version 3 may not know how to move.
        (&[("move", Fault::Says(400, ""))], Fate::Released, &["renew 200", "move 400", "release 200"]),
        (&[("move", Fault::Says(404, ""))], Fate::Released, &["renew 200", "move 404", "release 200"]),
        // It says 200 and moves nothing.
        (
            &[("move", Fault::Says(200, "")), ("moved", Fault::Says(404, ""))],
            Fate::Released,
            &["renew 200", "move 200", "moved 404", "release 200"],
        ),
        // It moves, and its answer is lost.
        (
            &[("move", Fault::DoesThenDrops)],
            Fate::Failed,
            &["renew 200", "move dropped", "move 200", "moved 200", "release 200"],
        ),
        // The lock ran out meanwhile, and somebody else may have it.
        (&[("renew", Fault::Says(404, ""))], Fate::Lost, &["renew 404", "token 200"]),
        (&[("release", Fault::Drops)], Fate::Failed, &["renew 200", "move 200", "moved 200", "release dropped"]),
    ];
    for (faults, fate, calls) in cases {
        let mut bench = configured("/4.1", "", faults);
        bench.claimed();
        let (became, note) = fail(&mut bench, false);
        assert_eq!(became, fate, "{note}");
        assert_eq!(bench.token_is_there(), fate != Fate::Failed);
        assert_eq!(bench.journal()[2..], *calls);
    }
}

#[test]
fn an_oversized_token_is_put_aside() {
    let chunked = || {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..17 {
            answer.extend_from_slice(b"100000\r\n");
            answer.resize(answer.len() + 0x10_0000, b'x');
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        answer
    };
    let declared = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    for answer in [declared, chunked()] {
        let mut bench = bench_with("token", &[Fault::Raw(answer)]);
        assert_eq!(bench.claim(), FromWorker::NoWork);
        assert_eq!(bench.server.pool.lock().unwrap().failed.len(), 1);
        assert_eq!(bench.journal(), [&["next 303", "token raw"], &MOVED[..], &["next 404", "locks 200"]].concat());
    }
}

#[test]
fn an_oversized_token_that_cannot_be_put_aside_is_given_back() {
    let declared = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    let mut bench = configured("/4.1", "", &[("token", Fault::Raw(declared)), ("move", Fault::Says(403, ""))]);
    let answer = why(bench.claim());
    assert!(
        answer.contains("tokens/17: 99999999999 bytes, more than 16777216; token 17 cannot be put aside"),
        "{answer}"
    );
    assert!(answer.ends_with("mc.failed/tokens/: 403; token 17 is free again"), "{answer}");
    assert!(bench.token_is_there() && !bench.locked());
    bench.journal();
}

#[test]
fn whatever_a_token_holds_comes_as_it_is() {
    for body in [&b"\0\0"[..], b"../../etc/passwd", b"$(reboot); `reboot`\n", b"\xff\xfe<html>"] {
        let mut bench = bench(Pool::with_token(body), |_, _| Fault::Honest);
        bench.say(&ToWorker::Claim, b"");
        let (answer, value) = bench.hear();
        let FromWorker::Claimed(token) = answer else { panic!("{answer:?}") };
        assert_eq!((token.id.as_str(), value.as_slice()), ("17", body));
        bench.release();
        bench.journal();
    }
}

#[test]
fn version_4_is_the_same() {
    let mut bench = configured("/4/", r#", "results": "mc.out""#, &[]);
    bench.claimed();
    assert_eq!(bench.finish().0, Fate::Completed);
    assert!(bench.server.pool.lock().unwrap().requests.iter().all(|request| request.path.starts_with("/4/pools/")));
    assert_eq!(bench.journal(), ["next 303", "token 200", "store 201", "renew 200", "delete 200"]);
}

#[test]
fn version_3_has_other_names_and_its_locks_in_the_realm() {
    let mut bench = configured("/3/realms/r", r#", "results": "mc.out""#, &[]);
    bench.claimed();
    assert_eq!(bench.finish().0, Fate::Completed);
    assert_eq!(bench.claim(), FromWorker::NoWork);
    let server = &bench.server;
    {
        let pool = server.pool.lock().unwrap();
        assert_eq!(pool.offences, [""; 0]);
        // No leftovers are looked for: a lock does not say whose it is.
        assert_eq!(pool.journal, ["next 303", "token 200", "store 201", "renew 200", "delete 200", "next 404"]);
        assert_eq!(pool.requests[0].path, "/3/realms/r/pools/mc/nextToken?timeout=4");
        assert_eq!(pool.requests[3].path, format!("/3/realms/r/locks/{UUID}?timeout=4"));
    }
    // The names of version 4 are not those of version 3.
    let v4 = format!("Location: http://h/tokens/17\r\nX-Topos-LockURL: http://h/locks/{UUID}\r\n");
    let mut bench = configured("/3/realms/r", "", &[("next", Fault::Says(303, v4.leak()))]);
    assert!(why(bench.claim()).ends_with("303 without a lock"));
}

#[test]
fn version_3_does_not_find_a_lost_303_again() {
    let mut bench = configured("/3/realms/r", "", &[("next", Fault::DoesThenDrops)]);
    assert!(matches!(bench.claim(), FromWorker::Fault { .. }));
    assert_eq!(bench.claim(), FromWorker::NoWork);
    assert!(bench.locked());
    assert_eq!(bench.server.pool.lock().unwrap().journal, ["next dropped", "next 404"]);
}

#[test]
fn results_go_to_a_url() {
    let results = r#", "results": {"url": "http://127.0.0.1:PORT/dav/"}"#;
    let stored = ["renew 200", "delete 200"];
    let twice = ["put 500", "head 404", "put 201"];
    let cases: [(Faults<'_>, &[&str]); 5] = [
        (&[], &["put 201"]),
        (&[("put", Fault::DoesThenDrops)], &["put dropped", "head 200"]),
        (&[("put", Fault::DoesThenSays500)], &["put 500", "head 200"]),
        (&[("put", Fault::Says(500, ""))], &twice),
        // Nothing is known of it: it is put again, under the same name.
        (&[("put", Fault::DoesThenDrops), ("head", Fault::Says(405, ""))], &["put dropped", "head 405", "put 201"]),
    ];
    for (faults, calls) in cases {
        let mut bench = configured("/4.1", results, faults);
        bench.claimed();
        let place = format!("http://127.0.0.1:{}/dav/mc.17", bench.server.address.port());
        assert_eq!(bench.finish(), (Fate::Completed, format!("token 17 is done, its result is {place}")));
        assert_eq!(bench.server.pool.lock().unwrap().results.last().unwrap().1, b"result");
        assert_eq!(bench.journal()[2..], [calls, &stored].concat());
    }
}

#[test]
fn half_a_result_at_a_url_is_none() {
    let results = r#", "results": {"url": "http://127.0.0.1:PORT/dav"}"#;
    let mut bench = configured("/4.1", results, &[("put", Fault::Drops)]);
    bench.claimed();
    bench.server.pool.lock().unwrap().results.push(("mc.17".to_owned(), b"resu".to_vec()));
    assert_eq!(bench.finish().0, Fate::Completed);
    let pool = bench.server.pool.clone();
    assert_eq!(bench.journal()[2..5], ["put dropped", "head 200", "put 201"]);
    assert_eq!(pool.lock().unwrap().results.last().unwrap().1, b"result");
}

#[test]
fn a_url_that_takes_no_result_costs_no_token() {
    let results = r#", "results": {"url": "http://127.0.0.1:PORT/dav"}"#;
    // 202 is a promise, and 307 leads away.
    for status in [202, 307, 400, 401, 403, 404, 409, 507] {
        let mut bench = configured("/4.1", results, &vec![("put", Fault::Says(status, "")); 100]);
        bench.claimed();
        let (fate, note) = bench.finish();
        assert_eq!(fate, Fate::Released, "{status}: {note}");
        assert!(note.starts_with("the result of token 17 "), "{note}");
        assert!(bench.token_is_there() && !bench.locked());
        bench.journal();
    }
}

#[test]
fn results_go_to_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let results = format!(r#", "results": {{"directory": "{}"}}"#, dir.path().display());
    let mut bench = configured("/4.1", &results, &[]);
    bench.server.pool.lock().unwrap().results.push(Default::default());
    bench.claimed();
    let place = dir.path().join("mc.17");
    assert_eq!(bench.finish(), (Fate::Completed, format!("token 17 is done, its result is {}", place.display())));
    assert_eq!(fs::read(place).unwrap(), b"result");
    assert_eq!(bench.journal()[2..], ["renew 200", "delete 200"]);
}

#[test]
fn a_directory_that_takes_nothing_is_seen_before_a_claim() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results");
    fs::write(&path, b"").unwrap();
    let results = format!(r#", "results": {{"directory": "{}"}}"#, path.display());
    let mut bench = configured("/4.1", &results, &[]);
    let not = format!("broken: results: {}: Not a directory (os error 20)", path.display());
    assert_eq!(why(bench.claim()), not);
    fs::remove_file(&path).unwrap();
    // It may be mounted later.
    let none = format!("fault: results: {}: No such file or directory (os error 2)", path.display());
    assert_eq!(why(bench.claim()), none);
    fs::create_dir(&path).unwrap();
    bench.claimed();
    // And it may go while the payload runs: then the token stays.
    fs::remove_dir(&path).unwrap();
    let (fate, note) = bench.finish();
    assert_eq!(fate, Fate::Released, "{note}");
    assert!(note.contains(&format!("perhaps stored: {}: No such file", path.display())), "{note}");
    assert!(bench.token_is_there() && !bench.locked());
    bench.journal();
}

#[test]
fn a_directory_of_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let results = format!(r#", "results": {{"directory": "{}"}}"#, dir.path().display());
    let mut bench = configured("/4.1", &results, &[]);
    let answer = why(bench.claim());
    // root may write everywhere.
    if !nix::unistd::geteuid().is_root() {
        let expected = format!("broken: results: {}: Permission denied (os error 13)", dir.path().display());
        assert_eq!(answer, expected);
    }
}
