//! Both roles against a server that answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use super::shelf::Trust;
use super::words::{FromReader, FromWriter, ToReader, ToWriter};
use super::{Platform, reader, writer};
use crate::clock::Deadline;
use crate::context::mjf::Heartbeat;
use crate::mjf::keys::{self, Value};
use crate::mjf::place::Place;
use crate::protocol::channel::Channel;

/// Of the path of each request, whose answer this makes: a status, and a body.
type Answers = fn(&str, &str) -> (u16, &'static str);

/// A server, and what it was asked: `PUT /jo/x`, a blank, the body.
fn serve(round: Receiver<Answers>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, asked): (Sender<String>, _) = channel();
    thread::spawn(move || {
        let mut answers: Answers = |_, _| (404, "");
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            while let Ok(next) = round.try_recv() {
                answers = next;
            }
            let mut request = BufReader::new(&stream);
            let mut head = String::new();
            request.read_line(&mut head).unwrap();
            let mut length = 0;
            loop {
                let mut line = String::new();
                if request.read_line(&mut line).unwrap_or(0) <= 2 {
                    break;
                }
                if let Some(("content-length", value)) = line.to_lowercase().trim().split_once(": ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            request.read_exact(&mut body).unwrap();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (status, text) = answers(method, path);
            let _ = told.send(format!("{method} {path} {}", String::from_utf8_lossy(&body)));
            let _ = write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    (url, asked)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

#[test]
fn a_reader_tells_what_it_reads_and_what_it_cannot() {
    let (rounds, round) = channel();
    let (url, asked) = serve(round);
    rounds
        .send(
            (|_, path| match path {
                "/mf/shutdowntime" => (200, "1700000000\n"),
                "/mf/log_cores" => (200, "8"),
                "/jf/hs06_job" => (200, "<html>"),
                _ => (404, "<html>"),
            }) as Answers,
        )
        .unwrap();
    let (mut agent, theirs) = Channel::pair().unwrap();
    let place = |name: &str| Some(Place::try_from(format!("{url}/{name}")).unwrap());
    let config = reader::Config {
        machine: place("mf"),
        job: place("jf"),
        has_outputs: true,
        metadata: false,
        trust: Trust::default(),
    };
    let role = thread::spawn(|| reader::run(config, theirs));
    let mut heard = || agent.recv::<FromReader>(soon()).unwrap().unwrap().0;
    let FromReader::Read(first) = heard() else { panic!("nothing was read") };
    let value = |read: &[(String, Value)], name: &str| read.iter().find(|each| each.0 == name).unwrap().1.clone();
    assert_eq!(value(&first, "shutdowntime").number(), Some(1_700_000_000));
    assert_eq!(value(&first, "shutdowntime_job"), Value::Absent);
    assert_eq!(value(&first, "total_cpu"), Value::Good("8".to_owned()));
    assert!(matches!(value(&first, "hs06_job"), Value::Odd(_)));

    rounds.send(|_, _| (503, "")).unwrap();
    agent.send(&ToReader::Now, b"").unwrap();
    let heard = agent.recv::<FromReader>(soon()).unwrap().unwrap().0;
    assert_eq!(heard, FromReader::Missed(format!("GET {url}/mf/shutdowntime: 503")));

    asked.try_iter().for_each(drop);
    rounds.send(|_, _| (404, "")).unwrap();
    agent.send(&ToReader::Now, b"").unwrap();
    let absent = |name: &str| (name.to_owned(), Value::Absent);
    let heard = agent.recv::<FromReader>(soon()).unwrap().unwrap().0;
    assert_eq!(heard, FromReader::Read(vec![absent("shutdowntime"), absent("shutdowntime_job")]));
    let asked: Vec<_> = asked.try_iter().collect();
    assert_eq!(asked, ["GET /mf/shutdowntime ", "GET /jf/shutdowntime_job "]);
    drop(agent);
    assert_eq!(role.join().unwrap(), 1);
}

#[test]
fn a_writer_beats_first_and_answers_for_each_file() {
    let (rounds, round) = channel();
    let (url, asked) = serve(round);
    rounds
        .send(
            (|method, path| match (method, path) {
                ("PUT", "/jo/beat") => (201, ""),
                ("PUT", "/jo/good") => (200, ""),
                ("PUT", "/jo/forbidden") => (403, ""),
                ("PUT", "/jo/unknown") => (404, ""),
                ("PUT", "/jo/elsewhere") => (302, ""),
                _ => (500, ""),
            }) as Answers,
        )
        .unwrap();
    let (mut agent, theirs) = Channel::pair().unwrap();
    let heartbeat = Heartbeat { file: "beat".to_owned().try_into().unwrap(), secs: 3600 };
    let place = Place::try_from(format!("{url}/jo")).unwrap();
    let config = writer::Config { place, heartbeat: Some(heartbeat), trust: Trust::default() };
    let role = thread::spawn(|| writer::run(config, theirs));
    let names = ["good", "forbidden", "unknown", "elsewhere", "ill"];
    for name in names {
        agent.send(&ToWriter::Put { name: name.to_owned(), millis: 30_000 }, name.as_bytes()).unwrap();
    }
    let answers: Vec<_> = names.iter().map(|_| agent.recv::<FromWriter>(soon()).unwrap().unwrap().0).collect();
    let done = |name: &str, why: Option<&str>, refused| {
        let why = why.map(|why| format!("PUT {url}/jo/{name}: {why}"));
        FromWriter::Done { name: name.to_owned(), why, refused }
    };
    let expected = [
        done("good", None, false),
        done("forbidden", Some("403: the site does not take it from this machine"), true),
        done("unknown", Some("404: the site does not know this machine"), true),
        done("elsewhere", Some("302"), false),
        done("ill", Some("500"), false),
    ];
    assert_eq!(answers, expected);
    let asked: Vec<_> = asked.try_iter().collect();
    assert!(asked[0].starts_with("PUT /jo/beat ") && asked[0].split_whitespace().count() == 6, "{asked:?}");
    assert_eq!(asked[1], "PUT /jo/good good");
    drop(agent);
    assert_eq!(role.join().unwrap(), 1);
}

#[test]
fn nothing_is_written_after_the_last_word() {
    let dir = tempfile::tempdir().unwrap();
    let (mut agent, theirs) = Channel::pair().unwrap();
    let heartbeat = Heartbeat { file: "beat".to_owned().try_into().unwrap(), secs: 1 };
    let place = Place::Directory(dir.path().display().to_string());
    let config = writer::Config { place, heartbeat: Some(heartbeat), trust: Trust::default() };
    let role = thread::spawn(|| writer::run(config, theirs));
    let mut put = |name: &str| {
        agent.send(&ToWriter::Put { name: name.to_owned(), millis: 30_000 }, b"x").unwrap();
        let FromWriter::Done { why, .. } = agent.recv(soon()).unwrap().unwrap().0;
        assert_eq!(why, None);
    };
    put("report.json");
    assert!(dir.path().join("beat").exists());
    put("shutdown_message");
    std::fs::remove_file(dir.path().join("beat")).unwrap();
    // Longer than between two heartbeats.
    thread::sleep(Duration::from_millis(2500));
    assert!(!dir.path().join("beat").exists());
    drop(agent);
    assert_eq!(role.join().unwrap(), 1);
}

#[test]
fn a_directory_for_root_is_not_the_networks_to_name() {
    let mut platform = Platform::default();
    platform.site.metadata = true;
    platform.outputs_named(Place::Directory("/etc/cron.d".to_owned()));
    assert_eq!(platform.site.joboutputs, None);
    let [first, second] = ["http://h/jo", "http://h/more"].map(|url| Place::Url(url.to_owned()));
    platform.outputs_named(first.clone());
    platform.outputs_named(second.clone());
    assert_eq!(platform.site.joboutputs, Some(first));
    let mut unasked = Platform::default();
    unasked.outputs_named(second);
    assert_eq!(unasked.site.joboutputs, None);
}

#[test]
fn what_never_changes_is_not_unsaid() {
    let mut platform = Platform::default();
    let wall = |value: Value| vec![(keys::WALL_LIMIT_SECS.name.to_owned(), value)];
    platform.take(wall(Value::Good("600".to_owned())));
    for later in [Value::Absent, Value::Odd("a web page".to_owned())] {
        platform.take(wall(later));
        assert_eq!(platform.said(&keys::WALL_LIMIT_SECS).number(), Some(600));
    }
    platform.take(wall(Value::Good("700".to_owned())));
    assert_eq!(platform.said(&keys::WALL_LIMIT_SECS).number(), Some(700));
    // An end may well be called off.
    let end = |value: Value| vec![(keys::SHUTDOWNTIME.name.to_owned(), value)];
    platform.take(end(Value::Good("2000000000".to_owned())));
    platform.take(end(Value::Absent));
    assert_eq!(platform.said(&keys::SHUTDOWNTIME).number(), None);
}
