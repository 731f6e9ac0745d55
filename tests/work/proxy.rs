//! Client certificates, judged by OpenSSL: one of a user, and an RFC 3820 proxy of it.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");

/// An authority, a user's certificate (EC), and the user's proxy (RSA, its key in PKCS #1, as grid tools make them).
const MAKE: &str = r#"
set -e
ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $ec -keyout ca.key -out ca.pem -subj /CN=CA -days 2 -addext basicConstraints=critical,CA:TRUE
openssl req $ec -keyout user.key -out user.csr -subj /O=grid/CN=Jan
echo keyUsage=critical,digitalSignature > user.cnf
openssl x509 -req -in user.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out user.pem -days 2 -extfile user.cnf
openssl req -newkey rsa:2048 -nodes -keyout proxy8.key -out proxy.csr -subj /O=grid/CN=Jan/CN=12345
openssl rsa -traditional -in proxy8.key -out proxy.key
echo proxyCertInfo=critical,language:id-ppl-inheritAll > proxy.cnf
echo keyUsage=critical,digitalSignature >> proxy.cnf
openssl x509 -req -in proxy.csr -CA user.pem -CAkey user.key -CAcreateserial -out one.pem -days 1 -extfile proxy.cnf
openssl verify -allow_proxy_certs -CAfile ca.pem -untrusted user.pem one.pem
cat one.pem proxy.key user.pem > proxy.pem
"#;

/// `openssl s_server`, which takes no client without a certificate and answers every GET with a page about it.
struct Judge {
    child: Child,
    port: String,
}

impl Judge {
    fn start(dir: &Path, words: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-Verify", "4", "-verify_return_error"]);
        command.arg("-cert").arg(format!("{TLS}/server.pem")).arg("-key").arg(format!("{TLS}/server.key"));
        command.arg("-CAfile").arg(dir.join("ca.pem")).args(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned));
        // Nobody reads the rest; a closed pipe would end it.
        std::thread::spawn(move || lines.count());
        Self { child, port: line.unwrap() }
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn certificates_and_proxies_are_shown_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("sh").args(["-c", MAKE]).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let ask = |judge: &Judge, files: &[(&'static str, Vec<u8>)]| {
        let topos = format!(r#"{{"url": "https://127.0.0.1:{}/4.1", "pool": "mc"}}"#, judge.port);
        let mut credentials = Credentials::default();
        credentials.put("work.topos.ca", Some(fs::read(format!("{TLS}/ca.pem")).unwrap()));
        for (key, file) in files {
            credentials.put(key, Some(file.clone()));
        }
        let work = Work::Topos(serde_json::from_str(&topos).unwrap());
        let pace = Pace { connect: Duration::from_secs(5), call: Duration::from_secs(5), ..PACE };
        let (mut agent, worker) = start_at(pace, Config { work, credentials, ..config("http://h", false, None) });
        agent.send(&ToWorker::Claim, b"").unwrap();
        let answer = why(hear(&mut agent).0);
        drop(agent);
        worker.join().unwrap();
        answer
    };
    let user = [("work.topos.certificate", file("user.pem")), ("work.topos.key", file("user.key"))];
    let proxy = [("work.topos.proxy", file("proxy.pem"))];
    for protocol in ["-tls1_2", "-tls1_3"] {
        let judge = Judge::start(dir.path(), &["-allow_proxy_certs", protocol]);
        for files in [&user[..], &proxy] {
            // It is no token pool, but it has let us in.
            let answer = ask(&judge, files);
            assert!(answer.starts_with("broken: ") && answer.ends_with("/nextToken: 200"), "{protocol}: {answer}");
        }
        let nobody = ask(&judge, &[]);
        assert!(nobody.starts_with("fault: "), "{protocol}: {nobody}");
    }
    // OpenSSL has seen a proxy indeed: by default it takes none.
    let strict = Judge::start(dir.path(), &[]);
    assert!(ask(&strict, &user).ends_with(": 200"));
    let answer = ask(&strict, &proxy);
    assert!(answer.starts_with("fault: "), "{answer}");
}
