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

/// The password of the CD's file, as [`tls`] has it.
const USER: &[u8] = b"jan:geheim\n";
const AUTHORIZATION: &str = "Basic amFuOmdlaGVpbQ==";

/// Keys, and what their files hold.
type Files<'a> = &'a [(&'static str, &'a [u8])];

/// A worker of an https pool; `more` is of the context, with PORT for the server's.
fn tls(port: u16, more: &str, files: Files<'_>) -> (Channel, JoinHandle<i32>) {
    let topos = format!(r#"{{"url": "https://127.0.0.1:PORT/4.1", "pool": "mc"{more}}}"#);
    let work = Work::Topos(serde_json::from_str(&topos.replace("PORT", &port.to_string())).unwrap());
    let mut credentials = Credentials::default();
    credentials.put("work.topos.ca", Some(include_bytes!("../fixtures/tls/ca.pem").to_vec()));
    for (key, file) in files {
        credentials.put(key, Some(file.to_vec()));
    }
    start(Config { work, credentials, ..config("http://h", false, None) })
}

#[test]
fn a_password_goes_to_its_own_server_alone() {
    let own = Server::start(Pool::with_token(b"x"), Box::new(|_, _| Fault::Honest), true);
    let other = Server::start(Pool::with_token(b"x"), Box::new(|_, _| Fault::Honest), true);
    for place in [own.address, other.address] {
        *own.pool.lock().unwrap() = Pool { wants_results: false, ..Pool::with_token(b"x") };
        let results = format!(r#", "results": {{"url": "https://{place}/dav"}}"#);
        let (mut agent, worker) = tls(own.address.port(), &results, &[("work.topos.user_file", USER)]);
        agent.send(&ToWorker::Claim, b"").unwrap();
        assert!(matches!(hear(&mut agent).0, FromWorker::Claimed(_)));
        agent.send(&ToWorker::Finished, b"result").unwrap();
        let settled = hear(&mut agent).0;
        assert!(matches!(settled, FromWorker::Settled { fate: Fate::Completed, .. }), "{settled:?}");
        drop(agent);
        worker.join().unwrap();
    }
    let shown = |server: &Server| {
        let pool = server.pool.lock().unwrap();
        let header = |request: &Request| request.header("authorization").map(str::to_owned);
        pool.requests.iter().map(header).collect::<Vec<_>>()
    };
    assert_eq!(shown(&own), vec![Some(AUTHORIZATION.to_owned()); 4]);
    assert_eq!(shown(&other), [None]);
}

#[test]
fn a_login_of_no_use_is_told_by_key_and_without_its_content() {
    let key: &[u8] = include_bytes!("../fixtures/tls/server.key");
    let other: &[u8] = include_bytes!("../fixtures/tls/other-ca.pem");
    let cases: [(Files<'_>, &str); 3] = [
        (&[("work.topos.user_file", b"geheim")], "work.topos.user_file: line 1: no colon in it (user:password)"),
        (
            &[("work.topos.certificate", other), ("work.topos.key", key)],
            "work.topos.certificate: the private key does not belong to the first certificate",
        ),
        (&[("work.topos.proxy", key)], "work.topos.proxy: no certificate in the PEM file"),
    ];
    for (files, expected) in cases {
        let (mut agent, worker) = tls(1, "", files);
        agent.send(&ToWorker::Claim, b"").unwrap();
        assert_eq!(why(hear(&mut agent).0), format!("broken: {expected}"));
        drop(agent);
        worker.join().unwrap();
    }
    let mut clear = config("http://127.0.0.1:1/4.1", false, None);
    clear.credentials.put("work.topos.user_file", Some(USER.to_vec()));
    let (mut agent, worker) = start(clear);
    agent.send(&ToWorker::Claim, b"").unwrap();
    let expected = "broken: http://127.0.0.1:1/4.1: a password or certificate is shown to https alone";
    assert_eq!(why(hear(&mut agent).0), expected);
    drop(agent);
    worker.join().unwrap();
}
