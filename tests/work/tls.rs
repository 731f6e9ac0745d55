//! Whom an https pool is believed to be.

use super::*;

#[test]
fn https_believes_only_the_sites_authorities() {
    let ours: &[u8] = include_bytes!("../fixtures/tls/ca.pem");
    let other: &[u8] = include_bytes!("../fixtures/tls/other-ca.pem");
    let server = Server::start(Pool::with_token(b"x"), Box::new(|_, _| Fault::Honest), true);
    let port = server.address.port();
    let ask = |url: &str, ca| {
        let (mut agent, worker) = start(config(url, true, ca));
        agent.send(&ToWorker::Claim, b"").unwrap();
        let answer = hear(&mut agent).0;
        drop(agent);
        worker.join().unwrap();
        why(answer)
    };
    let url = format!("https://127.0.0.1:{port}/4.1");
    let none = ask(&url, None);
    assert!(none.starts_with(&format!("broken: {url}: https needs the authorities")), "{none}");
    let wrong = ask(&url, Some(other));
    assert!(wrong.starts_with(&format!("fault: GET {url}/pools/mc/nextToken: ")), "{wrong}");
    assert!(wrong.contains("UnknownIssuer"), "{wrong}");
    for url in [&url, &format!("https://localhost:{port}/4.1")] {
        let right = ask(url, Some(ours));
        assert!(right.starts_with("Claimed("), "{right}");
    }
    // A plain server behind an https URL is a fault too, and no request is ever sent in clear.
    let plain = Server::start(Pool::with_token(b"x"), Box::new(|_, _| Fault::Honest), false);
    let clear = ask(&format!("https://{}/4.1", plain.address), Some(ours));
    assert!(clear.starts_with("fault: "), "{clear}");
    assert!(!plain.pool.lock().unwrap().journal.iter().any(|entry| !entry.starts_with("nonsense")));
}
