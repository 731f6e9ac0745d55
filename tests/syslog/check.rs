//! What a server got of the real logger, by `ctxtool log check`: the same question that a site asks.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use ctxinit::protocol::{Record, ToLogger};
use ctxinit::tool::log::{Checker, Findings, Verdict};

use super::machine::Machine;
use super::network::{accept, free_port, listen, private_network};

const COUNTS: [&str; 5] = ["jobs", "jobs-ended", "refused", "scripts", "scripts-ended"];

/// What the agent would say.
fn audit(machine: &mut Machine, msgid: &str, job: Option<&str>, facts: &[(&str, &str)]) {
    let data = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (msgid, job) = (Some(msgid.to_owned()), job.map(str::to_owned));
    let record = Record { msgid, job, data, ..Record::now(5, "ctxinit", "an audit record".to_owned()) };
    machine.control.send(&ToLogger::Record { number: 0, record }, b"").unwrap();
}

fn stop(machine: &mut Machine, jobs: &str) {
    audit(machine, "vm-stop", None, &COUNTS.map(|name| (name, if name.starts_with("jobs") { jobs } else { "0" })));
}

/// A connection's bytes are a file each.
fn checked(connections: &[Vec<u8>]) -> Findings {
    let mut checker = Checker::default();
    for bytes in connections {
        checker.read("connection", None, bytes.as_slice()).unwrap();
    }
    checker.finish("all").unwrap()
}

fn the_rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

#[test]
fn a_log_is_complete_whatever_becomes_of_its_connections() {
    private_network();
    let listener = listen(0);
    let port = listener.local_addr().unwrap().port();
    let mut machine = Machine::start(None);
    machine.target(port, "tcp");
    audit(&mut machine, "vm-start", None, &[("image", "i")]);
    audit(&mut machine, "job-start", Some("job-1"), &[("owner", "/O=x/CN=\"J\" ] é"), ("token", "17")]);
    let sender = machine.sender();
    let writer = thread::spawn(move || {
        for n in 0..4000 {
            // Facts in a program's text are text.
            sender
                .send(format!("<14>app: {n} [audit@32473 owner=\"nobody\"] [meta sequenceId=\"9\"]").as_bytes())
                .unwrap();
            if n % 50 == 0 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let mut connections = Vec::new();
    let mut listener = Some(listener);
    for _ in 0..3 {
        let mut stream = accept(listener.as_ref().unwrap());
        let mut bytes = vec![0; 100_000];
        stream.read_exact(&mut bytes).unwrap();
        drop(listener.take());
        stream.shutdown(Shutdown::Write).unwrap();
        bytes.extend(the_rest(stream));
        connections.push(bytes);
        listener = Some(listen(port));
    }
    let last = accept(listener.as_ref().unwrap());
    let reader = thread::spawn(move || the_rest(last));
    writer.join().unwrap();
    audit(&mut machine, "job-end", Some("job-1"), &[("end", "exit 0")]);
    stop(&mut machine, "1");
    assert_eq!(machine.drain(5000), ((4004, 0), 0));
    connections.push(reader.join().unwrap());

    let found = checked(&connections);
    let life = &found.machines[0];
    assert_eq!((found.verdict, life.records, life.last, life.late), (Verdict::Complete, 4004, 4004, 0), "{life:?}");
    assert_eq!((life.jobs[0].owner.as_str(), life.jobs[0].token.as_str()), ("/O=x/CN=\"J\" ] é", "17"));
    // Without the first connection it is not.
    assert_eq!(checked(&connections[1..]).verdict, Verdict::Incomplete);
}

#[test]
fn what_there_was_no_room_for_is_announced_to_the_last_one() {
    private_network();
    let port = free_port();
    let mut machine = Machine::start(None);
    machine.target(port, "tcp");
    audit(&mut machine, "vm-start", None, &[("image", "i")]);
    let sender = machine.sender();
    let text = "x".repeat(4000);
    for n in 0..6000 {
        sender.send(format!("<14>app: {n} {text}").as_bytes()).unwrap();
    }
    stop(&mut machine, "0");
    let listener = listen(port);
    let server = thread::spawn(move || the_rest(accept(&listener)));
    let ((delivered, undelivered), _) = machine.drain(30_000);
    let found = checked(&[server.join().unwrap()]);
    let life = &found.machines[0];
    assert_eq!((found.verdict, life.records), (Verdict::Announced, delivered), "{:?}", life.problems);
    assert!(
        undelivered > 1000 && (life.missing, life.announced) == (undelivered, undelivered),
        "{undelivered} {life:?}"
    );
}
