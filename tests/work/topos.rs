//! What only a ToPoS pool has: tokens that fail for good.

use super::*;

/// Says that the payload failed.
fn fail(bench: &mut Bench, again: bool) -> (Fate, String) {
    bench.say(&ToWorker::Failed { why: "exit status 1".to_owned(), again }, b"");
    bench.settled()
}

#[test]
fn a_token_that_failed_for_good_is_put_aside() {
    let mut bench = bench_with("", &[]);
    bench.claimed();
    assert_eq!(fail(&mut bench, false), (Fate::Failed, "token 17 is in pool mc.failed now".to_owned()));
    assert_eq!(bench.server.pool.lock().unwrap().failed, [b"seed=1"]);
    assert_eq!(bench.journal(), ["next 303", "token 200", "renew 200", "move 200", "moved 200", "release 200"]);
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
        let journal = bench.journal();
        let expected = ["next 303", "token raw", "renew 200", "move 200", "moved 200", "release 200", "next 404"];
        assert_eq!(journal, expected);
    }
}
