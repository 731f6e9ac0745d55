//! Servers and proxies that break the rules of HTTP, or say what nobody asked for.

use super::*;
use crate::server::Render;

/// As [`PACE`], but nobody waits for long.
const BRISK: Pace = Pace { call: Duration::from_millis(400), ..PACE };
const KINDS: [&str; 8] = ["locks", "next", "token", "renew", "store", "results", "delete", "release"];

fn bench_at(pace: Pace, faults: Vec<(&'static str, Vec<Fault>)>) -> Bench {
    let script = move |request: &Request, seen: usize| {
        let listed = faults.iter().find(|(kind, _)| *kind == request.kind());
        listed.and_then(|(_, faults)| faults.get(seen)).cloned().unwrap_or(Fault::Honest)
    };
    let server = Server::start(Pool::with_token(b"seed=1"), Box::new(script), false);
    let (agent, worker) = start_at(pace, config(&format!("http://{}/4.1", server.address), true, None));
    Bench { server, agent: Some(agent), worker }
}

/// The first answer of each kind of call in turn is this. Whatever comes of it: the worker goes on, the token is
/// worked on in the end, and nothing is deleted out of turn.
fn survives(fault: &Fault) {
    for kind in KINDS {
        let mut faults = vec![(kind, vec![fault.clone()])];
        // What has a call of this kind made at all.
        match kind {
            "results" => faults.push(("store", vec![Fault::Drops])),
            "locks" => faults.push(("next", vec![Fault::Says(404, "")])),
            _ => {}
        }
        let mut bench = bench_at(BRISK, faults);
        let mut trouble = Vec::new();
        // A token that went back is claimed again.
        let done = (0..6).any(|round| {
            let answer = bench.claim();
            if !matches!(answer, FromWorker::Claimed(_)) {
                trouble.push(why(answer));
                return false;
            }
            if kind == "release" && round == 0 {
                trouble.push(format!("{:?}", bench.release()));
                return false;
            }
            let (fate, note) = bench.finish();
            trouble.push(note);
            fate == Fate::Completed || !bench.token_is_there()
        });
        assert!(done, "{kind}: {trouble:?}");
        assert_eq!(bench.server.pool.lock().unwrap().results.last().map(|(name, _)| name.as_str()), Some("mc.17"));
        bench.journal();
    }
}

/// What a claim comes to whose first answer is this.
fn claim_of(fault: Fault) -> String {
    let mut bench = bench_at(BRISK, vec![("next", vec![fault])]);
    let answer = why(bench.claim());
    bench.journal();
    answer
}

/// What comes of a token whose first answer is this.
fn token_of(fault: Fault) -> Vec<u8> {
    let mut bench = bench_at(BRISK, vec![("token", vec![fault])]);
    bench.say(&ToWorker::Claim, b"");
    let (answer, body) = bench.hear();
    assert!(matches!(answer, FromWorker::Claimed(_)), "{answer:?}");
    assert_eq!(bench.finish().0, Fate::Completed);
    bench.journal();
    body
}

#[test]
fn proxies_that_answer_for_a_server_that_is_away() {
    for status in [502, 504] {
        let fault = Fault::Says(status, "Content-Type: text/html\r\nVia: 1.1 squid\r\n");
        assert!(claim_of(fault.clone()).ends_with(&format!("/nextToken: {status}")));
        assert_eq!(token_of(fault.clone()), b"seed=1");
        survives(&fault);
    }
}

#[test]
fn proxies_that_cut_a_chunked_body() {
    let cut: Render = |status, headers, _| {
        format!("HTTP/1.1 {status} X\r\n{headers}Transfer-Encoding: chunked\r\n\r\n10\r\nseed").into_bytes()
    };
    let fault = Fault::Renders(cut, Duration::ZERO);
    assert_eq!(token_of(fault.clone()), b"seed=1");
    survives(&fault);
}

#[test]
fn proxies_that_drip() {
    let drip = Duration::from_millis(100);
    let in_headers = Fault::Endless(b"HTTP/1.1 303 See Other\r\nLocation: ".to_vec(), b"x".to_vec(), drip);
    let answer = claim_of(in_headers.clone());
    assert!(answer.starts_with("fault: ") && answer.contains("timeout"), "{answer}");
    survives(&in_headers);
    let in_body = Fault::Endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec(), b"x".to_vec(), drip);
    assert_eq!(token_of(in_body.clone()), b"seed=1");
}

#[test]
fn proxies_that_never_stop() {
    let headers = Fault::Endless(b"HTTP/1.1 303 See Other\r\n".to_vec(), b"X-A: b\r\n".repeat(100), Duration::ZERO);
    let answer = claim_of(headers.clone());
    assert!(answer.starts_with("fault: "), "{answer}");
    assert_eq!(token_of(headers.clone()), b"seed=1");
    survives(&headers);
    let head = b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    survives(&Fault::Endless(head, b"4\r\nlies\r\n".repeat(1000), Duration::ZERO));
}

#[test]
fn proxies_that_compress_what_nobody_asked_to_compress() {
    let gzip: Render = |status, headers, body| {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\n{headers}Content-Encoding: gzip\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let fault = Fault::Renders(gzip, Duration::ZERO);
    // What such a body says is not what the token says.
    let mut bench = bench_at(BRISK, vec![("token", vec![fault.clone()])]);
    let answer = why(bench.claim());
    assert!(answer.contains("tokens/17: Content-Encoding \"gzip\""), "{answer}");
    assert!(answer.ends_with("token 17 is free again"), "{answer}");
    let asked = bench.server.pool.lock().unwrap().requests[0].header("accept-encoding").map(str::to_owned);
    assert_eq!(asked.as_deref(), Some("identity"));
    bench.journal();
    survives(&fault);
}

#[test]
fn proxies_that_speak_http_1_0() {
    let old: Render = |status, headers, body| {
        let head = format!("HTTP/1.0 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    assert_eq!(token_of(Fault::Renders(old, Duration::ZERO)), b"seed=1");
    survives(&Fault::Renders(old, Duration::ZERO));
    // Where only the end of the connection ends a token, half of one looks whole.
    let unmeasured: Render = |status, headers, _| format!("HTTP/1.0 {status} X\r\n{headers}\r\nsee").into_bytes();
    assert_eq!(token_of(Fault::Renders(unmeasured, Duration::ZERO)), b"seed=1");
    survives(&Fault::Renders(unmeasured, Duration::ZERO));
}

#[test]
fn proxies_that_keep_the_connection() {
    let keep: Render = |status, headers, body| {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\n{headers}Connection: keep-alive\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body, b"HTTP/1.1 500 for a request that nobody made\r\n\r\n"].concat()
    };
    let fault = Fault::Renders(keep, Duration::from_secs(2));
    assert_eq!(token_of(fault.clone()), b"seed=1");
    let start = Instant::now();
    survives(&fault);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

#[test]
fn proxies_that_say_a_header_twice() {
    let twice: Render = |status, headers, body| {
        let other = "Location: http://h/4.1/pools/mc/tokens/99\r\nX-Topos-LockURL: http://h/locks/\r\n";
        let head = format!("HTTP/1.1 {status} X\r\n{headers}{other}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    survives(&Fault::Renders(twice, Duration::ZERO));
}

#[test]
fn proxies_that_put_a_nul_into_a_header() {
    let nul: Render = |status, headers, body| {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\nX-Odd: a\0b\r\n{headers}Content-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let fault = Fault::Renders(nul, Duration::ZERO);
    let answer = claim_of(fault.clone());
    assert!(answer.starts_with("fault: GET http://"), "{answer}");
    survives(&fault);
}

#[test]
fn no_redirection_is_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let address = elsewhere.local_addr().unwrap();
    // As a missing slash brings it, and as a portal does that wants a login first.
    for status in [301, 302, 307, 308] {
        let location = format!("Location: http://{address}/4.1/pools/mc/tokens/\r\n");
        let headers: &'static str = location.leak();
        for kind in KINDS {
            let mut faults = vec![(kind, vec![Fault::Says(status, headers)]), ("moved", vec![])];
            if kind == "locks" {
                faults.push(("next", vec![Fault::Says(404, "")]));
            }
            let mut bench = bench_at(BRISK, faults);
            if kind == "locks" {
                assert_eq!(bench.claim(), FromWorker::NoWork);
            }
            let answer = bench.claim();
            match (kind, &answer) {
                ("next", FromWorker::Refused { why, broken: true }) => {
                    assert!(
                        why.contains(&format!("/nextToken: {status}, a redirection (\"http://{address}/")),
                        "{why}"
                    );
                }
                ("token", FromWorker::Fault { why }) => {
                    assert!(why.contains(&format!("/17: {status}; token")), "{why}")
                }
                ("next" | "token", other) => panic!("{kind} {status}: {other:?}"),
                _ => drop(bench.finish()),
            }
            let methods: Vec<_> = {
                let pool = bench.server.pool.lock().unwrap();
                pool.requests.iter().filter(|request| request.kind() == "nonsense").cloned().collect()
            };
            assert!(methods.is_empty(), "{methods:?}");
            bench.journal();
        }
    }
    assert!(elsewhere.accept().is_err(), "somebody went there");
}

#[test]
fn lock_headers_of_a_token_do_not_matter() {
    // As ToPoS sent them until 2012 (of the lock), from then on (none), and since 2016 (an empty one).
    let renders: [Render; 3] = [
        |_, _, body| [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n".as_slice(), body].concat(),
        |_, _, body| {
            let lock = "X-Topos-LockURL: http://h/4.1/pools/mc/locks/\r\nX-Topos-OpaqueLockToken: opaquelocktoken:\r\n";
            [format!("HTTP/1.1 200 OK\r\n{lock}Content-Length: 6\r\n\r\n").as_bytes(), body].concat()
        },
        |_, _, body| {
            let lock = "X-Topos-LockURL: http://h/4.1/pools/mc/locks/00000000-0000-0000-0000-000000000000\r\n";
            [format!("HTTP/1.1 200 OK\r\n{lock}Content-Length: 6\r\n\r\n").as_bytes(), body].concat()
        },
    ];
    for render in renders {
        let mut bench = bench_at(PACE, vec![("token", vec![Fault::Renders(render, Duration::ZERO)])]);
        bench.claimed();
        assert_eq!(bench.finish().0, Fate::Completed);
        // The lock that is proved is the one of the 303.
        assert_eq!(bench.journal(), ["next 303", "token 200", "store 201", "renew 200", "delete 200"]);
    }
}

#[test]
fn a_name_is_never_a_path() {
    let named: Render = |_, _, body| {
        let name = "Content-Disposition: inline; filename=\"../../../etc/passwd\"\r\nContent-Type: ../x\r\n";
        [format!("HTTP/1.1 200 OK\r\n{name}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    let mut bench = bench_at(PACE, vec![("token", vec![Fault::Renders(named, Duration::ZERO)])]);
    let FromWorker::Claimed(token) = bench.claim() else { panic!("no token") };
    assert_eq!((token.id.as_str(), token.owner), ("17", Owner::Unknown));
    assert_eq!(bench.finish().0, Fate::Completed);
    let store = bench.server.pool.lock().unwrap().requests[2].clone();
    assert_eq!(store.header("content-disposition"), Some("attachment; filename=\"mc.17\""));
    bench.journal();
}

#[test]
fn a_token_is_bytes_and_nothing_else() {
    let tokens: [&[u8]; 4] = [b"", b"\n", b"a\0b\r\n\xff", b"$(reboot); `reboot` | reboot & ../../bin/sh\n<html>"];
    for token in tokens {
        let mut bench = bench(Pool::with_token(token), |_, _| Fault::Honest);
        bench.say(&ToWorker::Claim, b"");
        let (answer, body) = bench.hear();
        let FromWorker::Claimed(Token { id, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!((id.as_str(), body.as_slice()), ("17", token));
        assert_eq!(bench.finish().0, Fate::Completed);
        bench.journal();
    }
}

/// However long its lock lasts: the agent takes a worker that says nothing for longer for lost.
#[test]
fn a_token_that_can_neither_be_read_nor_put_aside_takes_no_longer_than_a_claim() {
    let huge = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    let pace = Pace { lock: Duration::from_secs(600), call: Duration::from_millis(100), ..BRISK };
    let faults = vec![("token", vec![Fault::Raw(huge)]), ("move", vec![Fault::Says(503, ""); 100])];
    let mut bench = bench_at(pace, faults);
    // `hear` waits for less than a tenth of the lock.
    let answer = why(bench.claim());
    assert!(answer.contains("cannot be put aside") && answer.ends_with("token 17 is free again"), "{answer}");
    bench.journal();
}
