//! What is collected besides datagrams, whose it is, and how much of it the site takes.

use std::io::{BufReader, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ctxinit::protocol::{Record, ToLogger};
use ctxinit::syslog::collect::Sources;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::machine::{Machine, ORIGIN, PATIENCE};
use super::network::{accept, listen, private_network};
use super::reader::{Seen, frame, frames, texts};

/// As the first job's.
const UID: u32 = 66_000;

fn aim(machine: &mut Machine, port: u16, more: &str) {
    let syslog = format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"protocol\": \"tcp\"{more}}}");
    let syslog = Box::new(serde_json::from_str(&syslog).unwrap());
    machine.control.send(&ToLogger::Target { syslog, nameservers: Vec::new() }, b"").unwrap();
}

fn stream(machine: &Machine) -> UnixStream {
    UnixStream::connect(machine.dir.path().join("log.stream")).unwrap()
}

/// Who may, names anybody as the sender; the kernel lets nobody else.
fn send_as(sender: &UnixDatagram, uid: u32, text: &str) {
    let stamp = libc::ucred { pid: std::process::id() as i32, uid, gid: uid };
    let stamp = [ControlMessage::ScmCredentials(&stamp.into())];
    sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(text.as_bytes())], &stamp, MsgFlags::empty(), None).unwrap();
}

fn cannot_name_others() -> bool {
    let skip = !nix::unistd::geteuid().is_root();
    if skip {
        println!("skipped: only root may name another user as a sender");
    }
    skip
}

fn name(machine: &mut Machine, uid: u32, job: &str, owner: &str) {
    let job = ToLogger::Job { uid, job: job.to_owned(), owner: owner.to_owned() };
    machine.control.send(&job, b"").unwrap();
}

#[test]
fn clients_of_streams_are_heard_and_stamped() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let mut server = BufReader::new(accept(&listener));
    let mut client = stream(&machine);
    let mut say = |piece: &[u8], count: usize| -> Vec<Seen> {
        client.write_all(piece).unwrap();
        (0..count).map(|_| frame(&mut server).unwrap()).collect()
    };
    let seen = say(b"<14>Nov 22 10:00:00 app[7]: one\0<11>app: two\n14 <9>app: a\nb\0c!<14>app: cut in the", 3);
    let (uid, pid) = (nix::unistd::geteuid(), std::process::id());
    assert_eq!(texts(&seen), ["one", "two", "a#012b#000c!"]);
    let data = |number| format!("[ctxinit@32473 {ORIGIN} uid=\"{uid}\" pid=\"{pid}\"][meta sequenceId=\"{number}\"]");
    for (record, (number, pri)) in seen.iter().zip([(1, 14), (2, 11), (3, 9)]) {
        assert_eq!((record.app.as_str(), record.procid.as_str()), ("app", pid.to_string().as_str()));
        assert_eq!((record.pri, &record.data), (pri, &data(number)));
    }
    assert_eq!(texts(&say(b" middle\n", 1)), ["cut in the middle"]);
    let long = format!("<14>app: {}\n<14>app: next\n", "y".repeat(100_000));
    let seen = say(long.as_bytes(), 2);
    assert!(seen[0].text.ends_with("yy [cut, 100009 bytes]"), "{:?}", seen[0]);
    assert_eq!(seen[1].text, "next");
    // What was not ended when the client leaves, and what waits when the logger does.
    client.write_all(b"<14>app: last words").unwrap();
    drop(client);
    assert_eq!(frame(&mut server).unwrap().text, "last words");
    stream(&machine).write_all(b"<14>app: to the end\n").unwrap();
    let rest = thread::spawn(move || std::iter::from_fn(|| frame(&mut server)).collect::<Vec<_>>());
    assert_eq!(machine.drain(5000), ((8, 0), 0));
    assert_eq!(texts(&rest.join().unwrap()), ["to the end"]);
}

#[test]
fn util_linux_logger_is_understood() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let mut stream = BufReader::new(accept(&listener));
    let dir = machine.dir.path().to_owned();
    for (socket, format) in [("log", "--rfc3164"), ("log.stream", "--rfc5424"), ("log.stream", "--rfc3164")] {
        let mut logger = Command::new("logger");
        logger.args([format, "--id=4", "-t", "tool", "-p", "daemon.err", "-u"]).arg(dir.join(socket)).arg("it works");
        let status = match logger.status() {
            Ok(status) => status,
            Err(error) => {
                println!("skipped: logger: {error}");
                return;
            }
        };
        assert!(status.success());
        let seen = frame(&mut stream).unwrap();
        assert_eq!((seen.pri, seen.app.as_str()), (3 * 8 + 3, "tool"), "{socket} {format}");
        assert!(seen.text.ends_with("it works"), "{seen:?}");
    }
    drop(stream);
    machine.drain(100);
}

/// A descriptor beside the text must neither reach the logger nor push the stamp away.
#[test]
fn a_descriptor_does_not_hide_its_sender() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let sender = machine.sender();
    let gift = [sender.as_raw_fd(), sender.as_raw_fd()];
    let text = [IoSlice::new(b"<14>app: masked")];
    let rights = [ControlMessage::ScmRights(&gift)];
    sendmsg::<()>(sender.as_raw_fd(), &text, &rights, MsgFlags::empty(), None).unwrap();
    let seen = frames(accept(&listener), 1);
    let mark = format!(" uid=\"{}\" pid=\"{}\"]", nix::unistd::geteuid(), std::process::id());
    assert!(seen[0].text == "masked" && seen[0].data.contains(&mark), "{seen:?}");
    machine.drain(100);
}

#[test]
fn a_job_is_known_by_its_uid_and_by_nothing_that_it_says() {
    private_network();
    if cannot_name_others() {
        return;
    }
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    let sender = machine.sender();
    name(&mut machine, UID, "job-1", "/O=x/CN=\"Jan\"");
    // The name was said before it; that the two come by different ways must not matter.
    send_as(&sender, UID, "<86>sshd[1]: job=\"job-2\"");
    send_as(&sender, UID + 1, "<14>other: [ctxinit@32473 job=\"job-1\"]");
    let record = Record { job: Some("job-1".to_owned()), ..Record::now(6, "payload", "printed".to_owned()) };
    machine.control.send(&ToLogger::Record { number: 1, record }, b"").unwrap();
    let seen = frames(accept(&listener), 3);
    let of = |text: &str| seen.iter().find(|record| record.text == text).unwrap_or_else(|| panic!("{text}: {seen:?}"));
    let job = "job=\"job-1\" owner=\"/O=x/CN=\\\"Jan\\\"\"]";
    let (first, other) = (of("job=\"job-2\""), of("[ctxinit@32473 job=\"job-1\"]"));
    assert!(first.data.contains(&format!("uid=\"{UID}\"")) && first.data.contains("claimed=\"10\""), "{first:?}");
    assert!(first.data.contains(job) && of("printed").data.contains(job), "{seen:?}");
    assert!(first.pri == 14 && !other.data.contains("job="), "{seen:?}");
    machine.drain(100);
}

#[test]
fn what_the_site_does_not_want_is_not_sent() {
    private_network();
    let listener = listen(0);
    let mut machine = Machine::start(None);
    aim(&mut machine, listener.local_addr().unwrap().port(), ", \"severity\": \"warning\"");
    let stream = accept(&listener);
    let sender = machine.sender();
    for severity in 0..8 {
        sender.send(format!("<{}>app: severity {severity}", 8 + severity).as_bytes()).unwrap();
    }
    let info = Record::now(6, "ctxinit", "phase".to_owned());
    let audit = Record { msgid: Some("job-end".to_owned()), ..Record::now(5, "ctxinit", "job".to_owned()) };
    for (number, record) in (1..).zip([info, audit]) {
        machine.control.send(&ToLogger::Record { number, record }, b"").unwrap();
    }
    let seen = thread::spawn(move || frames(stream, usize::MAX));
    assert_eq!(machine.drain(5000), ((6, 0), 0));
    let mut seen = seen.join().unwrap();
    seen.sort_by_key(|record| record.text.clone());
    assert_eq!(texts(&seen), ["job", "severity 0", "severity 1", "severity 2", "severity 3", "severity 4"]);
}

/// As fast as it can: every audit record arrives, others are not touched, and the announced losses are the true ones.
#[test]
fn a_payload_that_floods_pushes_out_nobody_but_itself() {
    private_network();
    if cannot_name_others() {
        return;
    }
    const FLOOD: u64 = 60_000;
    const OTHERS: u64 = 300;
    let listener = listen(0);
    let mut machine = Machine::start(None);
    name(&mut machine, UID, "job-1", "/CN=Jan");
    aim(&mut machine, listener.local_addr().unwrap().port(), ", \"rate\": {\"records\": 500, \"secs\": 1}");
    let server = thread::spawn(move || frames(accept(&listener), usize::MAX));
    let sender = machine.sender();
    // The limit holds from the target on, and this says that it was heard.
    sender.send(b"<14>root: begin").unwrap();
    thread::sleep(Duration::from_millis(300));
    let flooder = machine.sender();
    let flood = thread::spawn(move || (0..FLOOD).for_each(|n| send_as(&flooder, UID, &format!("<8>job: {n}"))));
    for number in 1..=OTHERS {
        sender.send(format!("<15>root: {number}").as_bytes()).unwrap();
        let audit = Record { msgid: Some("job-end".to_owned()), ..Record::now(5, "ctxinit", number.to_string()) };
        machine.control.send(&ToLogger::Record { number, record: audit }, b"").unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    flood.join().unwrap();
    let ((delivered, undelivered), code) = machine.drain(30_000);
    let seen = server.join().unwrap();
    let count = |app: &str, msgid: &str| seen.iter().filter(|one| one.app == app && one.msgid == msgid).count() as u64;
    assert_eq!((count("root", "-"), count("ctxinit", "job-end")), (1 + OTHERS, OTHERS));
    let gaps: Vec<_> = seen.iter().filter(|record| record.msgid == "log-gap").collect();
    let told: u64 = gaps
        .iter()
        .map(|gap| {
            let begin = format!("[audit@32473 source=\"rate\" uid=\"{UID}\" job=\"job-1\" count=\"");
            let rest = gap.data.split_once(&begin).unwrap_or_else(|| panic!("{gap:?}")).1;
            rest.split_once('"').unwrap().0.parse::<u64>().unwrap()
        })
        .sum();
    assert!(told > FLOOD / 2, "the flood was to be too much: {told}");
    assert_eq!(count("job", "-") + told, FLOOD);
    assert_eq!((delivered, undelivered, code), (seen.len() as u64, told, 0));
}

/// The real one, in a machine of its own as far as it can see.
#[test]
fn what_journald_forwards_has_the_senders_stamp() {
    const JOURNALD: &str = "/lib/systemd/systemd-journald";
    private_network();
    let ready = Path::new(JOURNALD).exists() && Path::new("/etc/machine-id").exists();
    if cannot_name_others() || !ready {
        println!("skipped: no root, no {JOURNALD}, or no machine id");
        return;
    }
    // This thread alone sees what is mounted here.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    for place in ["/run", "/var/log"] {
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    }
    let journal = Path::new("/run/systemd/journal");
    for dir in [journal, Path::new("/run/systemd/journald.conf.d")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let config = "[Journal]\nStorage=none\nForwardToSyslog=yes\nReadKMsg=no\nAudit=no\n";
    std::fs::write("/run/systemd/journald.conf.d/test.conf", config).unwrap();
    let listener = listen(0);
    let sources = Sources::behind(journal, None).unwrap();
    let mut machine = Machine::with(tempfile::tempdir().unwrap(), sources);
    machine.target(listener.local_addr().unwrap().port(), "tcp");
    name(&mut machine, UID, "job-1", "");
    let mut journald = Command::new(JOURNALD).spawn().unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while sender.connect(journal.join("dev-log")).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    sender.send(b"<27>Nov 22 10:00:00 tool[1]: of root").unwrap();
    send_as(&sender, UID, "<35>Nov 22 10:00:00 sshd[1]: of a job");
    let mut stream = BufReader::new(accept(&listener));
    // It says some things of itself first.
    let mut of = |text: &str| std::iter::from_fn(|| frame(&mut stream)).find(|record| record.text == text).unwrap();
    let (root, job) = (of("of root"), of("of a job"));
    journald.kill().unwrap();
    journald.wait().unwrap();
    let pid = std::process::id().to_string();
    assert_eq!((root.pri, root.app.as_str(), &root.procid), (27, "tool", &pid), "{root:?}");
    assert!(root.data.contains(&format!("uid=\"0\" pid=\"{pid}\"]")), "{root:?}");
    assert_eq!((job.pri, job.app.as_str()), (8 + 3, "sshd"), "{job:?}");
    assert!(job.data.contains(&format!("uid=\"{UID}\" pid=\"{pid}\" claimed=\"4\" job=\"job-1\"]")), "{job:?}");
    drop(stream);
    machine.drain(100);
}
