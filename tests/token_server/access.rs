//! Users, TLS, and the page of counts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{Server, command};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

#[test]
fn only_users_get_in() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, format!("vm:{}\n", bcrypt::hash("s:cret", 4).unwrap())).unwrap();
    let server = Server::start_with(dir.path(), &["--users", users.to_str().unwrap()]);
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    for target in ["p/nextToken", "/4.1/newPool", "/4.1/", "/metrics", "/elsewhere", "p"] {
        for wrong in [None, Some(basic("vm:wrong")), Some(basic("nobody:s:cret")), Some("Bearer x".to_owned())] {
            let headers: Vec<(&str, &str)> = wrong.iter().map(|value| ("Authorization", value.as_str())).collect();
            let reply = server.ask("GET", target, &headers, b"");
            assert_eq!(reply.status, 401, "{target} {wrong:?}");
            assert_eq!(reply.header("WWW-Authenticate"), Some("Basic realm=\"ToPoS\", charset=\"UTF-8\""));
        }
    }
    assert_eq!(server.ask("PUT", "p/nextToken", &[], b"stranger").status, 401);
    let right = basic("vm:s:cret");
    let headers = [("Authorization", right.as_str()), ("Accept", "text/plain")];
    assert_eq!(server.ask("PUT", "p/nextToken", &headers, b"user").status, 201);
    assert_eq!(server.ask("GET", "p/tokens/1", &headers, b"").body, "user", "the stranger's token is not there");
    let counts = server.ask("GET", "/metrics", &headers, b"").body;
    assert!(counts.contains("topos_pool_tokens{pool=\"p\"} 1\n"), "{counts}");
    assert!(counts.contains("topos_requests_total{route=\"nextToken\",method=\"PUT\",status=\"401\"} 1\n"), "{counts}");
}

/// A page of another site that a user of this one looks at. What browsers send was looked at in Chromium 156: to http
/// elsewhere than on their own machine no `Sec-Fetch-Site`, and `Origin` with forms alone.
#[test]
fn a_page_of_another_site_takes_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(server.ask("PUT", "p/nextToken", &[], b"a").status, 201);
    let browser = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)");
    let foreign: [&[(&str, &str)]; 4] = [
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site"), browser],
        &[("Origin", "http://elsewhere.example"), browser],
        &[("Origin", "null"), ("Sec-Fetch-Site", "same-origin")],
    ];
    for headers in foreign {
        let ask = |method, target| server.ask(method, target, headers, b"").status;
        assert_eq!(ask("GET", "p/nextToken?timeout=60"), 403, "{headers:?}");
        assert_eq!(ask("DELETE", "p/"), 403);
        assert_eq!(ask("POST", "p/?http_method=DELETE"), 403);
        assert_eq!(ask("GET", "p/"), 200, "a link to the page");
    }
    // An image of another page, over plain http.
    assert_eq!(server.ask("GET", "p/nextToken?timeout=60", &[browser], b"").status, 403);
    assert_eq!(server.ask("GET", "p/tokens/1", &[browser], b"").body, "a");
    let (_, lock) = server.claim("p", 300).unwrap();
    let renew = format!("p/locks/{lock}?timeout=300");
    assert_eq!(server.ask("GET", &renew, &[browser], b"").status, 403);
    for site in ["none", "same-origin"] {
        let headers = [("Sec-Fetch-Site", site), browser];
        assert_eq!(server.ask("GET", "p/tokens/1", &headers, b"").body, "a", "{site}");
        assert_eq!(server.ask("GET", &renew, &headers, b"").status, 200, "{site}");
    }
    let own = format!("http://127.0.0.1:{}", server.port);
    assert_eq!(server.ask("DELETE", "p/", &[("Host", &own[7..]), ("Origin", &own), browser], b"").status, 200);
}

#[test]
fn https_with_the_site_s_own_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key] = ["server.pem", "server.key"].map(|name| fixture(name).display().to_string());
    let server = Server::start_with(dir.path(), &["--tls-cert", &certificate, "--tls-key", &key]);
    let ask = |request: &str| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(fixture("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream);
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    };
    let put =
        "PUT /4.1/pools/p/nextToken HTTP/1.1\r\nHost: pool.example\r\nContent-Length: 1\r\nConnection: close\r\n\r\na";
    let reply = ask(put);
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    assert!(reply.contains("location: https://pool.example/4.1/pools/p/tokens/1\r\n"), "{reply}");
    assert!(ask("GET /4.1/pools/p/tokens/1 HTTP/1.1\r\nConnection: close\r\n\r\n").ends_with("\r\n\r\na"));

    let mut plain = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    plain.write_all(b"GET /4.1/pools/p/tokens/1 HTTP/1.1\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "answered in plain text");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("pools");
    let [certificate, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| fixture(name).display().to_string());
    let empty = dir.path().join("empty").display().to_string();
    fs::write(&empty, "").unwrap();
    let cases: [(&[&str], String); 7] = [
        (&["--users", "/nowhere"], "/nowhere: No such file or directory".to_owned()),
        (&["--users", &empty], format!("{empty}: there is no user in it")),
        (&["--tls-cert", "/nowhere", "--tls-key", &key], "/nowhere: ".to_owned()),
        (&["--tls-cert", &empty, "--tls-key", &key], format!("{empty}: no certificate in it (--tls-cert)")),
        (&["--tls-cert", &certificate, "--tls-key", &ca], format!("{ca}: no private key in it (--tls-key)")),
        (&["--tls-cert", &ca, "--tls-key", &key], format!("{key} is not the key of {ca}")),
        (&["--tls-cert", &certificate], "--tls-key".to_owned()),
    ];
    for (arguments, complaint) in cases {
        let child = command(&place).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&complaint), "{arguments:?}: {said}");
        assert_eq!((output.status.success(), output.stdout.is_empty()), (false, true));
    }
    assert!(!place.exists(), "nothing is made where nothing is served");
}

#[test]
fn counts_for_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.fill("p", "a\nb\nc");
    server.fill("q", "a");
    server.claim("p", 60).unwrap();
    server.get("q/nextToken?timeout=0");
    server.get("none/nextToken");
    let reply = server.get("/metrics");
    assert_eq!(reply.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "topos_requests_total{route=\"nextToken\",method=\"GET\",status=\"303\"} 2",
        "topos_requests_total{route=\"nextToken\",method=\"GET\",status=\"404\"} 1",
        "topos_requests_total{route=\"tokens\",method=\"POST\",status=\"202\"} 2",
        "topos_claim_seconds_count 2",
        "topos_commit_requests_sum 5",
        "topos_commits_failed_total 0",
        "topos_connections 1",
        "topos_connections_total 6",
        "topos_pools 2",
        "topos_tokens 4",
        "topos_locks 1",
        "topos_pool_tokens{pool=\"p\"} 3",
        "topos_pool_locks{pool=\"p\"} 1",
        "topos_pool_locks{pool=\"q\"} 0",
    ] {
        assert!(reply.body.lines().any(|found| found == line), "{line} is not in\n{}", reply.body);
    }
    assert_eq!(server.ask("POST", "/metrics", &[], b"").status, 405);
}
