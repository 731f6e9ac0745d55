//! rsyslog of Debian: by UDP, TCP, and TLS with GnuTLS.

use std::path::Path;
use std::process::Command;

use ctxinit::protocol::Credentials;

use super::daemon::{Daemon, configure};
use super::records::records;
use super::{certificates, compare, log_to, ready};

fn rsyslog(example: &str, dir: &Path, instead: &[(&str, &str)], protocol: &str, port: u16) -> Option<Daemon> {
    let conf = configure(example, dir, instead);
    let mut command = Command::new("rsyslogd");
    Daemon::start(command.arg("-n").arg("-f").arg(conf).arg("-i").arg(dir.join("pid")), protocol, port, dir)
}

fn gets_every_record_whole(daemon: Daemon, target: &str, credentials: &Credentials) {
    let records = records();
    log_to(target, credentials, &records);
    compare(&daemon.written(records.len() + 1), &records, |text| text);
}

#[test]
fn rsyslog_gets_every_record_whole_by_tcp() {
    let dir = tempfile::tempdir().unwrap();
    if ready()
        && let Some(daemon) = rsyslog("rsyslog-tcp.conf", dir.path(), &[], "tcp", 514)
    {
        gets_every_record_whole(daemon, r#"{"server": "127.0.0.1"}"#, &Credentials::default());
    }
}

/// On loopback and at a pace that it can follow, UDP loses nothing either.
#[test]
fn rsyslog_gets_every_record_whole_by_udp() {
    let dir = tempfile::tempdir().unwrap();
    if ready()
        && let Some(daemon) = rsyslog("rsyslog-udp.conf", dir.path(), &[], "udp", 514)
    {
        gets_every_record_whole(daemon, r#"{"server": "127.0.0.1", "protocol": "udp"}"#, &Credentials::default());
    }
}

/// Both sides show a certificate of the site's authority, and look at the name in the other's.
#[test]
fn rsyslog_gets_every_record_whole_by_tls_with_names() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if !ready() || !certificates::make(dir) {
        return;
    }
    let Some(daemon) = rsyslog("rsyslog-tls.conf", dir, &[], "tcp", 6514) else { return };
    let target = r#"{"server": "127.0.0.1", "ca": "ca", "name": "log.site.example", "certificate": "c", "key": "k"}"#;
    let [ca, certificate, key] = ["ca.pem", "machine.pem", "machine.key"].map(|file| certificates::read(dir, file));
    gets_every_record_whole(daemon, target, &Credentials { ca, certificate, key });
}

/// Neither believes an authority: each knows the other's certificate.
#[test]
fn rsyslog_gets_every_record_whole_by_tls_with_fingerprints() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if !ready() || !certificates::make(dir) {
        return;
    }
    let machine = format!("SHA256:{}", certificates::fingerprint(dir, "machine"));
    let instead = [("\"x509/name\"", "\"x509/fingerprint\""), ("*.site.example", machine.as_str())];
    let Some(daemon) = rsyslog("rsyslog-tls.conf", dir, &instead, "tcp", 6514) else { return };
    let server = certificates::fingerprint(dir, "server");
    let target = format!(r#"{{"server": "127.0.0.1", "fingerprints": ["{server}"], "certificate": "c", "key": "k"}}"#);
    let [certificate, key] = ["machine.pem", "machine.key"].map(|file| certificates::read(dir, file));
    gets_every_record_whole(daemon, &target, &Credentials { ca: None, certificate, key });
}
