use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::panic;

use super::collect::Sources;
use super::*;

fn texts(lasting: &Lasting) -> Vec<String> {
    let (mut store, _) = lasting.map().unwrap();
    let mut texts = Vec::new();
    while let Some(record) = store.send() {
        let record = String::from_utf8(record.bytes.to_vec()).unwrap();
        texts.push(record.split_once("\"] ").unwrap().1.to_owned());
    }
    texts
}

fn begin(lasting: &Lasting) -> Log {
    let (store, ledger) = lasting.map().unwrap();
    Log::new(store, ledger, Writer::new(record::origin("vm", "boot")))
}

/// Runs something that ends in the middle of itself.
fn killed(act: impl FnOnce()) {
    let dies = || {
        act();
        panic::resume_unwind(Box::new(()));
    };
    assert!(panic::catch_unwind(panic::AssertUnwindSafe(dies)).is_err());
}

fn dropped(lasting: &Lasting) -> Vec<String> {
    texts(lasting).into_iter().filter(|text| text.starts_with("dropped")).collect()
}

#[test]
fn what_was_delivered_when_a_logger_was_killed_is_not_taken_for_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let lasting = Lasting::in_memory(Sources::open(&dir.path().join("log"), None).unwrap()).unwrap();
    let mut log = begin(&lasting);
    ["one", "two", "three"].into_iter().for_each(|text| log.push_own(text));
    killed(|| {
        log.deliver(|store| {
            (0..2).for_each(|_| assert!(store.send().is_some()));
            store.acknowledge(2);
            panic::resume_unwind(Box::new(()))
        });
    });
    drop(log);
    let log = begin(&lasting);
    assert_eq!((log.ledger.get(Count::Delivered), log.ledger.get(Count::Dropped)), (2, 0));
    drop(log);
    assert_eq!(dropped(&lasting), [""; 0]);
}

fn origin() -> Origin {
    Origin { vm: "vm".to_owned(), boot: "boot".to_owned() }
}

#[test]
fn drops_are_announced_when_there_is_room_for_that() {
    let dir = tempfile::tempdir().unwrap();
    let mut lasting = Lasting::in_memory(Sources::open(&dir.path().join("log"), None).unwrap()).unwrap();
    let (_agent, control) = Channel::pair().unwrap();
    let mut logger = Logger::begin(&mut lasting, &origin(), control).unwrap();
    let text = "x".repeat(7000);
    while !logger.log.store.has_drops() {
        logger.log.push_own(&text);
        while logger.log.store.send().is_some() {}
    }
    // A server that has stalled has everything, and nothing of it may go.
    let last = logger.log.ledger.get(Count::Last);
    (0..9).for_each(|_| logger.announce());
    assert_eq!((logger.log.ledger.get(Count::Last), logger.announcement()), (last, None));
    logger.log.store.rewind();
    logger.announce();
    assert_eq!((logger.log.ledger.get(Count::Last), logger.log.ledger.get(Count::Dropped)), (last + 1, 1));
}

#[test]
fn whose_a_uid_is_was_said_before_it_speaks_whatever_else_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut lasting = Lasting::in_memory(Sources::open(&path, None).unwrap()).unwrap();
    let (agent, control) = Channel::pair().unwrap();
    let mut logger = Logger::begin(&mut lasting, &origin(), control).unwrap();
    let words = (1..900).map(|_| ToLogger::Hostname("a".to_owned()));
    let job = ToLogger::Job { uid: nix::unistd::geteuid().as_raw(), job: "job-7".to_owned(), owner: String::new() };
    // In few writes, as an agent's are that had to wait for us.
    let mut bytes = Vec::new();
    for word in words.chain([job]) {
        let json = serde_json::to_vec(&word).unwrap();
        bytes.extend((json.len() as u64).rotate_left(32).to_be_bytes());
        bytes.extend(json);
    }
    let agent = std::os::unix::net::UnixStream::from(agent.as_fd().try_clone_to_owned().unwrap());
    (&agent).write_all(&bytes).unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"<14>sender: text", &path).unwrap();
    logger.collect(Ready::EVERYTHING);
    let record = logger.log.store.send().unwrap().bytes.to_vec();
    assert!(String::from_utf8(record).unwrap().contains(" job=\"job-7\""));
}

#[test]
fn drops_are_announced_once_by_loggers_that_are_killed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let lasting = Lasting::in_memory(Sources::open(&dir.path().join("log"), None).unwrap()).unwrap();
    let log = begin(&lasting);
    // Seven records that nobody has.
    log.ledger.set(Count::Last, 7);
    drop(log);
    let mut log = begin(&lasting);
    assert_eq!(log.ledger.get(Count::Dropped), 7);
    log.ledger.add(Count::Last, 2);
    killed(|| log.told(2, |_| panic::resume_unwind(Box::new(()))));
    drop(log);
    let mut log = begin(&lasting);
    assert_eq!(log.ledger.get(Count::Dropped), 9);
    log.ledger.add(Count::Last, 1);
    killed(|| {
        log.told(1, |log| {
            log.push_gap(1, 1, 1, "dropped this one");
            panic::resume_unwind(Box::new(()))
        });
    });
    drop(log);
    assert_eq!(begin(&lasting).ledger.get(Count::Dropped), 10);
    let before = "records before number";
    let texts = dropped(&lasting);
    let texts: Vec<_> = texts.iter().map(|text| text.split(&format!(" {before}")).next().unwrap()).collect();
    assert_eq!(texts, ["dropped 7", "dropped 2", "dropped this one"]);
}

#[test]
fn what_a_killed_logger_had_read_is_stored_once_and_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut lasting = Lasting::in_memory(Sources::open(&path, None).unwrap()).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(path).unwrap();
    let say = |text: &str| assert!(sender.send(format!("<14>sender: {text}").as_bytes()).is_ok());
    ["one", "two", "three"].into_iter().for_each(say);

    // One that was killed behind a record and before the word that it is there.
    let (store, ledger) = lasting.map().unwrap();
    let mut log = Log::new(store, ledger, Writer::new(record::origin("vm", "boot")));
    let mut collector = Collector::new(&mut lasting.sources, 0).unwrap();
    assert!(collector.receive(0));
    collector.messages(log.clock.now(), |number, record| match number {
        1 => log.of_mail(1, |log| log.push(&record)),
        2 => {
            once::MAIL.begin(&log.ledger, 2);
            log.push(&record);
        }
        _ => {}
    });
    drop((collector, log));
    say("four");

    let (mut agent, control) = Channel::pair().unwrap();
    agent.send(&ToLogger::Drain { millis: 0 }, b"").unwrap();
    assert_eq!(run(&mut lasting, &origin(), control), 0);
    let restart = "the logger was started again after number 2: 2 records may come twice";
    assert_eq!(texts(&lasting), ["one", "two", restart, "three", "four"]);
}
