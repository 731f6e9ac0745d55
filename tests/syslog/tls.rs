//! Servers by TLS, good ones and bad ones.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ctxinit::protocol::Credentials;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::machine::{Machine, PATIENCE};
use super::network::{accept, listen, private_network};
use super::reader::{Seen, frame, frames};
use super::sessions::{check, number};

/// A server's side for this address, and the file that makes a client believe it.
fn identity(name: &str) -> (Arc<ServerConfig>, Credentials) {
    let mut params = CertificateParams::new(vec!["site".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    (Arc::new(config), Credentials { ca: Some(authority.pem()), ..Credentials::default() })
}

fn agreed(listener: &TcpListener, config: &Arc<ServerConfig>) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), accept(listener))
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

fn context(port: u16, more: &str) -> String {
    format!("{{\"server\": \"127.0.0.1\", \"port\": {port}, \"ca\": \"ca.pem\"{more}}}")
}

#[test]
fn disconnects_lose_nothing() {
    private_network();
    const COUNT: usize = 6000;
    let (config, credentials) = identity("127.0.0.1");
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.aim(&context(port(&listener), ""), &credentials, &[]);
    let sender = machine.sender();
    for n in 1..=COUNT {
        sender.send(format!("<14>app: {n} {}", "x".repeat(n % 7 * 100)).as_bytes()).unwrap();
    }
    let mut sessions: Vec<Vec<Seen>> = Vec::new();
    for round in 0..5 {
        let mut stream = agreed(&listener, &config);
        let mut session: Vec<_> = (0..900).map(|_| frame(&mut stream).unwrap()).collect();
        match round % 3 {
            // A reset: the rest is unread.
            0 => {}
            // In order, by TLS's word and by TCP's alone.
            kind => {
                if kind == 1 {
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                }
                stream.sock.shutdown(Shutdown::Write).unwrap();
                session.extend(std::iter::from_fn(|| frame(&mut stream)));
            }
        }
        let last = session.last().map_or(0, number);
        sessions.push(session);
        if last == COUNT {
            break;
        }
    }
    if sessions.iter().flatten().map(number).max() < Some(COUNT) {
        let mut stream = agreed(&listener, &config);
        let mut session = Vec::new();
        while session.last().map_or(0, number) < COUNT {
            session.push(frame(&mut stream).unwrap());
        }
        sessions.push(session);
    }
    println!("{} connections, {} twice", sessions.len(), check(&sessions, COUNT));
    assert!(sessions.len() > 1);
}

/// A server may take its leave by TLS's word and read no more: what its kernel has is gone with it.
#[test]
fn what_was_not_read_before_the_servers_last_word_comes_again() {
    private_network();
    const COUNT: usize = 500;
    let (config, credentials) = identity("127.0.0.1");
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.aim(&context(port(&listener), ""), &credentials, &[]);
    let sender = machine.sender();
    for n in 1..=COUNT {
        sender.send(format!("<14>app: {n} {}", "x".repeat(200)).as_bytes()).unwrap();
    }
    let mut stream = agreed(&listener, &config);
    let mut sessions = vec![vec![frame(&mut stream).unwrap()]];
    thread::sleep(Duration::from_millis(500));
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    thread::sleep(Duration::from_millis(500));
    drop(stream);
    let mut stream = agreed(&listener, &config);
    let mut session = Vec::new();
    while session.last().map_or(0, number) < COUNT {
        session.push(frame(&mut stream).unwrap());
    }
    sessions.push(session);
    check(&sessions, COUNT);
}

#[test]
fn the_end_waits_for_a_slow_server() {
    private_network();
    for count in (140..=420).step_by(40).chain([3000]) {
        end_with(count);
    }
}

fn end_with(count: usize) {
    let (config, credentials) = identity("127.0.0.1");
    let listener = listen(0);
    let mut machine = Machine::start(None);
    machine.aim(&context(port(&listener), ""), &credentials, &[]);
    let sender = machine.sender();
    for n in 1..=count {
        sender.send(format!("<14>app: {n} {}", "x".repeat(1000)).as_bytes()).unwrap();
    }
    let slow = thread::spawn(move || {
        let mut stream = agreed(&listener, &config);
        let mut all = vec![frame(&mut stream).unwrap()];
        thread::sleep(Duration::from_millis(400));
        all.extend((1..count).map(|_| frame(&mut stream).unwrap()));
        // Its end is TLS's own: rustls fails where there is only TCP's.
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
        all
    });
    assert_eq!(machine.drain(20_000), ((count as u64, 0), 0));
    assert_eq!(check(&[slow.join().unwrap()], count), 0);
}

#[test]
fn no_record_reaches_a_server_that_is_not_the_sites() {
    private_network();
    let (other, _) = identity("127.0.0.1");
    let (wrong, credentials) = identity("127.0.0.9");
    // Another authority's, another name's; one that speaks no TLS, one that hangs up, and one that says nothing.
    let listeners = [(); 5].map(|()| listen(0));
    let ports = listeners.each_ref().map(port);
    let good = listen(0);
    let (config, good_authority) = identity("127.0.0.1");
    let both = [credentials.ca.unwrap(), good_authority.ca.unwrap()].concat();
    let credentials = Credentials { ca: Some(both), ..Credentials::default() };
    let others: Vec<_> = ports[1..].iter().chain([&port(&good)]).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let [stranger, misnamed, plain, hangs_up, silent] = listeners;
    let servers = thread::spawn(move || {
        let mut seen = Vec::new();
        for (listener, config) in [(&stranger, &other), (&misnamed, &wrong)] {
            let mut stream = agreed(listener, config);
            seen.extend(frames(&mut stream, 1));
        }
        let mut stream = accept(&plain);
        stream.write_all(b"220 mail.site ESMTP\r\n").unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        drop(accept(&hangs_up));
        let mut stream = accept(&silent);
        let _ = stream.read_to_end(&mut bytes);
        assert!(!String::from_utf8_lossy(&bytes).contains("app"));
        // They still listen, so that nobody gets past them faster a second time.
        (seen, [stranger, misnamed, plain, hangs_up, silent])
    });
    let mut machine = Machine::start(None);
    machine.aim(&context(ports[0], &format!(", \"fallback\": [{}]", others.join(", "))), &credentials, &[]);
    machine.sender().send(b"<14>app: 1").unwrap();
    let start = Instant::now();
    let (seen, listeners) = servers.join().unwrap();
    assert_eq!(seen, []);
    let mut stream = agreed(&good, &config);
    assert_eq!(check(&[vec![frame(&mut stream).unwrap()]], 1), 0);
    // The silent one has 15 s; nobody else keeps it waiting.
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    drop((stream, listeners));
}
