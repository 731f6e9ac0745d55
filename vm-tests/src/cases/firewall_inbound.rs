//! Whom a host reaches: the service of the site's on the port that the context opens, and no payload, also on a port
//! that is open.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::process::interrupted;
use crate::services::GREETING;
use crate::site::{HOST, Site};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case::new("firewall-inbound", host).with_payload(guest);

/// In the machine: the site's, which is open; the payload's, of which the second is open too.
const SERVICE: u16 = 4000;
const CLOSED: u16 = 4001;
const OPEN: u16 = 4002;

/// The service listens when the script is over.
const EPILOG: &str = "[ $1 = start ] || exit 0\nvm-tests guest listen 4000 &\n\
                      until vm-tests guest fetch 127.0.0.1:4000; do sleep 0.2; done\n";

/// QEMU takes every connection by itself, so one that no machine answers is silent.
const SILENCE: Duration = Duration::from_secs(4);
/// For one that is answered, by a machine that is slow.
const ANSWER: Duration = Duration::from_secs(60);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let go = listen()?;
    let port = go.local_addr().map_err(|error| error.to_string())?.port();
    site.fill(&[&format!("{} {port}", stage.case.name)])?;
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    context["firewall"] = json!({"inbound": [SERVICE, OPEN]});
    let cd = stage.cd(&[("context.json", &context.to_string()), ("epilog.sh", EPILOG)])?;
    let [service, closed, open] = [SERVICE, CLOSED, OPEN].map(|port| format!("hostfwd=tcp:127.0.0.1:0-:{port}"));
    let net = format!("user,id=n0,{service},{closed},{open}");
    let machine = stage.tiny(&policy())?.cd(&cd).words(["--no-net"]);
    let machine = machine.qemu(["-netdev", &net, "-device", "virtio-net-pci,netdev=n0,romfile="]).boot()?;

    site.wait_record(machine.patience(), "listening")?;
    let mut job = come(&go, machine.patience())?;
    let port = |inside| machine.host_port("TCP", inside);
    let heard = [says(port(SERVICE)?, ANSWER), says(port(CLOSED)?, SILENCE), says(port(OPEN)?, SILENCE)];
    job.write_all(b"x").map_err(|error| format!("payload: {error}"))?;
    let ended = machine.end()?;
    if heard != [Some(GREETING.to_owned()), None, None] {
        return Err(format!("expected the site's service to greet, and no payload, heard {heard:?}"));
    }
    let note = "input open: tcp/4000 tcp/4002; payloads: all hosts but metadata and mail";
    ended.expect_in_phase("firewall", "/note", note)?;
    site.expect_record("payload", &stage.marker())?;
    ended.expect_end("200 1 tokens completed")
}

fn listen() -> Result<TcpListener, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("a port of this host: {error}"))
}

/// The one who comes to a port of this host.
fn come(listener: &TcpListener, limit: Duration) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("the payload does not come: {error}");
    listener.set_nonblocking(true).map_err(failed)?;
    let deadline = Instant::now() + limit;
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(error)),
            Err(error) if interrupted() || Instant::now() > deadline => return Err(failed(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What is heard on a port of this host within this time, if anything.
fn says(port: u16, limit: Duration) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    let mut text = [0; 64];
    let length = stream.read(&mut text).ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Greets everybody, until the host half has tried what it can.
fn guest(job: &Job) -> Result<ExitCode, String> {
    let [go] = job.words.as_slice() else { return Err(format!("expected a port, got {:?}", job.words)) };
    let listener = |port: u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).map_err(|error| error.to_string());
    let listeners = [listener(CLOSED)?, listener(OPEN)?];
    println!("listening");
    let mut go = TcpStream::connect(format!("{HOST}:{go}")).map_err(|error| format!("the host half: {error}"))?;
    go.set_nonblocking(true).map_err(|error| error.to_string())?;
    for listener in &listeners {
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    }
    let mut callers = Vec::new();
    while matches!(go.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock) {
        for (mut stream, from) in listeners.iter().filter_map(|listener| listener.accept().ok()) {
            let _ = stream.write_all(GREETING.as_bytes());
            callers.push(from);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if callers.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(format!("{callers:?} came in")) }
}
