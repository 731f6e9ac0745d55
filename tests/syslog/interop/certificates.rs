//! A site's authority, its server and a machine of it, made by openssl(1) for one test.

use std::path::Path;
use std::process::Command;

/// Makes `ca.pem`, `server.pem`, `server.key`, `machine.pem` and `machine.key` in `dir`. `false`, with a word, where there
/// is no openssl.
pub fn make(dir: &Path) -> bool {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: openssl is not here; scripts/setup brings it");
        return false;
    }
    issue(dir, "ca", "CA:TRUE", "DNS:ca.site.example");
    issue(dir, "server", "CA:FALSE", "DNS:log.site.example");
    issue(dir, "machine", "CA:FALSE", "DNS:vm7.site.example");
    true
}

/// The SHA-256 of one of them.
pub fn fingerprint(dir: &Path, name: &str) -> String {
    let mut openssl = Command::new("openssl");
    let openssl = openssl.current_dir(dir).args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]);
    let output = openssl.arg(format!("{name}.pem")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split_once('=').unwrap().1.to_owned()
}

pub fn read(dir: &Path, file: &str) -> Option<String> {
    Some(std::fs::read_to_string(dir.join(file)).unwrap())
}

fn issue(dir: &Path, name: &str, constraints: &str, alternative: &str) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '));
    openssl.args(["-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
    openssl.args(["-addext", &format!("subjectAltName={alternative}")]);
    openssl.args(["-addext", &format!("basicConstraints=critical,{constraints}")]);
    if name != "ca" {
        openssl.args(["-CA", "ca.pem", "-CAkey", "ca.key"]);
    }
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
