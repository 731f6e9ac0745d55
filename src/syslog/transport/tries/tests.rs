use std::net::{Ipv6Addr, TcpListener};

use super::*;

fn refusing(ip: &str) -> (Host, u16) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    (Host::try_from(ip.to_owned()).unwrap(), listener.local_addr().unwrap().port())
}

fn listening(ip: &str) -> Option<(TcpListener, (Host, u16))> {
    let listener = TcpListener::bind((ip, 0)).ok()?;
    let port = listener.local_addr().ok()?.port();
    Some((listener, (Host::try_from(ip.to_owned()).unwrap(), port)))
}

/// Steps until something is found, or until all pause.
fn run(tries: &mut Tries) -> Option<SocketAddr> {
    let deadline = Deadline::after(Duration::from_secs(10));
    loop {
        match tries.step() {
            Some(Found::Stream(_, address, _) | Found::Datagrams(_, address)) => return Some(address),
            None if matches!(tries.state, State::Pausing(_)) => return None,
            None => assert!(!deadline.passed() && (tries.timer().is_some() || tries.interest().is_some())),
        }
    }
}

fn closed(address: SocketAddr) -> TryError {
    TryError::Closed { address }
}

#[test]
fn servers_are_tried_in_their_order_and_then_all_pause() {
    let (_first, one) = listening("127.0.0.1").unwrap();
    let (_second, two) = listening("127.0.0.1").unwrap();
    let at = |server: &(Host, u16)| SocketAddr::new(server.0.get().parse().unwrap(), server.1);
    let (first, second) = (at(&one), at(&two));
    let mut tries = Tries::new(vec![refusing("127.0.0.1"), one, two, refusing("127.0.0.1")], Vec::new(), false);
    assert_eq!(run(&mut tries), Some(first));
    assert_eq!(tries.said, 1);
    // It never took a record, or not for long.
    tries.lost(&closed(first), None);
    assert_eq!(run(&mut tries), Some(second));
    tries.lost(&closed(second), Some(FAIR));
    assert_eq!((run(&mut tries), tries.failures), (None, 1));
    assert!(tries.timer().is_some());
    tries.hurry();
    assert_eq!(run(&mut tries), Some(first));
    // A good one: its restart is awaited.
    tries.lost(&closed(first), Some(GOOD));
    assert_eq!((tries.turn, tries.failures, tries.said), (0, 1, 1));
    assert!(matches!(tries.state, State::Pausing(_)));
    tries.again();
    assert_eq!(run(&mut tries), Some(first));
    // A deaf one: it would only take more.
    let deaf = TryError::at(first, "write")(io::ErrorKind::TimedOut.into());
    tries.lost(&deaf, Some(GOOD));
    assert_eq!(run(&mut tries), Some(second));
}

#[test]
fn pauses_grow_while_nobody_is_good() {
    let mut tries = Tries::new(vec![refusing("127.0.0.1")], Vec::new(), false);
    for round in 1..=5 {
        assert_eq!((run(&mut tries), tries.failures), (None, round));
        tries.state = State::Server;
    }
    let address = ([127, 0, 0, 1], 1).into();
    tries.lost(&closed(address), Some(FAIR));
    assert_eq!((run(&mut tries), tries.failures), (None, 1));
}

#[test]
fn a_hurried_try_gives_up_soon() {
    // Nobody answers there: TEST-NET-1, or a network that says so at once.
    let nobody = (Host::try_from("192.0.2.1".to_owned()).unwrap(), 514);
    let mut tries = Tries::new(vec![nobody], Vec::new(), false);
    assert!(tries.step().is_none());
    tries.hurry();
    assert!(tries.timer().is_none_or(|timer| timer.left() <= HURRY));
}

#[test]
fn six_is_as_good() {
    let Some((_listener, server)) = listening("::1") else { return };
    for udp in [false, true] {
        let mut tries = Tries::new(vec![server.clone()], Vec::new(), udp);
        assert_eq!(run(&mut tries), Some(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), server.1)));
        assert!(tries.timer().is_none());
    }
}

#[test]
fn an_unknown_name_is_a_failure_of_that_server_alone() {
    let (_listener, server) = listening("127.0.0.1").unwrap();
    let unknown = (Host::try_from("log.invalid".to_owned()).unwrap(), 514);
    let mut tries = Tries::new(vec![unknown, server], Vec::new(), false);
    assert!(run(&mut tries).is_some());
    assert_eq!((tries.said, tries.turn), (1, 1));
}
