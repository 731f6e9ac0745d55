//! syslog-ng of Debian: by TCP in both framings, and TLS. Debian lets it stand beside no other syslog server, so
//! scripts/setup unpacks it under target/ and does not install it.

use std::path::Path;
use std::process::Command;

use ctxinit::protocol::Credentials;

use super::daemon::{Daemon, configure};
use super::records::records;
use super::{certificates, compare, log_to, ready};

fn syslog_ng(example: &str, dir: &Path, port: u16) -> Option<Daemon> {
    let conf = configure(example, dir, &[]);
    let usr = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/syslog-ng/usr");
    let libraries = usr.join("lib/syslog-ng");
    let mut command = Command::new(usr.join("sbin/syslog-ng"));
    command.env("LD_LIBRARY_PATH", &libraries).args(["--foreground", "--no-caps", "--cfgfile"]).arg(conf);
    command.arg("--module-path").arg(libraries.join("3.38")).arg("--persist-file").arg(dir.join("persist"));
    command.arg("--control").arg(dir.join("control")).arg("--pidfile").arg(dir.join("pid"));
    Daemon::start(&mut command, "tcp", port, dir)
}

fn gets_every_record_whole(daemon: Daemon, target: &str, credentials: &Credentials) {
    let records = records();
    log_to(target, credentials, &records);
    // A mark of byte order at the very beginning says that the text is UTF-8 (RFC 5424, 6.4), and is no part of it.
    compare(&daemon.written(records.len() + 1), &records, |text| text.strip_prefix('\u{feff}').unwrap_or(text));
}

#[test]
fn syslog_ng_gets_every_record_whole_by_tcp() {
    let dir = tempfile::tempdir().unwrap();
    if ready()
        && let Some(daemon) = syslog_ng("syslog-ng-tcp.conf", dir.path(), 601)
    {
        gets_every_record_whole(daemon, r#"{"server": "127.0.0.1", "port": 601}"#, &Credentials::default());
    }
}

#[test]
fn syslog_ng_gets_every_record_whole_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    if ready()
        && let Some(daemon) = syslog_ng("syslog-ng-tcp.conf", dir.path(), 514)
    {
        gets_every_record_whole(daemon, r#"{"server": "127.0.0.1", "framing": "lf"}"#, &Credentials::default());
    }
}

#[test]
fn syslog_ng_gets_every_record_whole_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    if !ready() || !certificates::make(dir) {
        return;
    }
    let Some(daemon) = syslog_ng("syslog-ng-tls.conf", dir, 6514) else { return };
    let target = r#"{"server": "127.0.0.1", "ca": "ca", "name": "log.site.example", "certificate": "c", "key": "k"}"#;
    let [ca, certificate, key] = ["ca.pem", "machine.pem", "machine.key"].map(|file| certificates::read(dir, file));
    gets_every_record_whole(daemon, target, &Credentials { ca, certificate, key });
}
