//! The logger against the servers that sites run: each gets 20,000 records of every odd kind and one audit record, with
//! the configuration that docs/examples shows, and its file is compared record by record. Root only: the examples' ports
//! are those of the real services, in a network of the test's own.

mod busybox;
mod certificates;
mod daemon;
mod records;
mod rsyslog;
mod syslog_ng;
mod written;

use std::thread;
use std::time::Duration;

use ctxinit::protocol::{Credentials, Record, ToLogger};

use self::records::Odd;
use self::written::Written;
use super::machine::{Machine, ORIGIN};
use super::network::private_network;

/// Of somebody whose name has every character that structured data escapes.
const OWNER: &str = "/O=x/CN=\"J\" \\ ] [a é";
/// Records between two rests of the sender: a server is to be understood here, not to be outrun.
const PACE: usize = 20;

/// Whether this test can run here; else says why not.
fn ready() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if root {
        private_network();
    } else {
        println!("skipped: only root has the ports of a syslog server");
    }
    root
}

/// Logs all of them and then one audit record. Every one was delivered, as far as the logger knows.
fn log_to(target: &str, credentials: &Credentials, records: &[Odd]) {
    let mut machine = Machine::start(None);
    let syslog = serde_json::from_str(target).unwrap();
    let body = serde_json::to_vec(credentials).unwrap();
    machine.control.send(&ToLogger::Target { syslog, nameservers: Vec::new() }, &body).unwrap();
    let sender = machine.sender();
    for (number, record) in records.iter().enumerate() {
        sender.send(&record.raw).unwrap();
        if number % PACE == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let record = Record {
        pid: Some(9),
        job: Some("job-1".to_owned()),
        msgid: Some("job-end".to_owned()),
        data: vec![("owner".to_owned(), OWNER.to_owned())],
        ..Record::now(5, "ctxinit", "job-1 ended".to_owned())
    };
    machine.control.send(&ToLogger::Record { number: 1, record }, b"").unwrap();
    assert_eq!(machine.drain(25_000), ((records.len() as u64 + 1, 0), 0));
}

/// What a server has written is what was logged, in its order, and nothing else. `keep` is what of a text it keeps.
fn compare(written: &[Written], records: &[Odd], keep: impl Fn(&str) -> &str) {
    // The two ways into the logger have no order among themselves; the numbers say which one came about.
    let numbers = written.iter().map(|record| record.param("meta", "sequenceId").parse::<usize>().unwrap());
    assert!(numbers.eq(1..=records.len() + 1), "{} records of {}", written.len(), records.len() + 1);
    let (audits, others): (Vec<_>, Vec<_>) = written.iter().partition(|record| record.msgid == "job-end");
    let [audit] = audits.as_slice() else { panic!("{audits:?}") };
    assert_eq!((audit.pri, audit.app.as_str(), audit.procid.as_str()), (13 * 8 + 5, "ctxinit", "9"));
    assert_eq!((audit.param("audit@32473", "owner"), audit.param("ctxinit@32473", "job")), (OWNER, "job-1"));
    assert_eq!(audit.text, "job-1 ended");

    let [uid, pid] = [nix::unistd::geteuid().as_raw(), std::process::id()].map(|number| number.to_string());
    for (got, want) in others.into_iter().zip(records) {
        let head = (got.pri, got.host.as_str(), got.app.as_str(), got.procid.as_str(), got.msgid.as_str());
        assert_eq!(head, (want.pri, "vm7.site", want.app.as_str(), pid.as_str(), "-"), "{want:?}");
        let [vm, boot, who, which] = ["vm", "boot", "uid", "pid"].map(|name| got.param("ctxinit@32473", name));
        assert_eq!(format!("vm=\"{vm}\" boot=\"{boot}\""), ORIGIN);
        assert_eq!((who, which), (uid.as_str(), pid.as_str()));
        assert!(want.text.is(&got.text, &keep), "{:.200} is not {want:.200?}", got.text);
    }
}
