use std::net::TcpListener;
use std::thread::sleep;
use std::time::Instant;

use super::*;

fn tcp() -> (Link, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ours = TcpStream::connect(address).unwrap();
    ours.set_nonblocking(true).unwrap();
    (Link::new(address, Wire::Tcp(ours)), listener.accept().unwrap().0)
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_end_in_order_is_not_a_reset() {
    let (mut link, mut theirs) = tcp();
    assert!(link.listen().unwrap());
    assert_eq!(link.write(b"abc").unwrap(), 3);
    until(|| link.acknowledged() == 3);
    let mut bytes = [0; 3];
    theirs.read_exact(&mut bytes).unwrap();
    drop(theirs);
    until(|| !link.listen().unwrap());

    let (mut link, theirs) = tcp();
    link.write(b"abc").unwrap();
    until(|| link.acknowledged() == 3);
    drop(theirs);
    until(|| link.listen().is_err());
}

#[test]
fn a_server_that_talks_is_heard_for_a_while() {
    let (mut link, mut theirs) = tcp();
    theirs.set_nonblocking(true).unwrap();
    while theirs.write(&[0; 65536]).is_ok() {}
    assert!(link.listen().unwrap());
    // There is more, and the end is not missed.
    theirs.shutdown(Shutdown::Write).unwrap();
    until(|| !link.listen().unwrap());
}

#[test]
fn a_full_server_is_known_from_a_dead_one() {
    let (mut link, mut theirs) = tcp();
    assert!(!link.is_stalled());
    until(|| link.write(&[0; 65536]).is_err());
    until(|| link.is_stalled());
    assert!(link.acknowledged() < link.sent());
    let mut bytes = vec![0; 1024 * 1024];
    until(|| {
        let _ = theirs.read(&mut bytes).unwrap();
        !link.is_stalled()
    });
}

#[test]
fn the_end_comes_behind_the_last_byte() {
    let (mut link, mut theirs) = tcp();
    link.write(b"abc").unwrap();
    link.finish().unwrap();
    let mut bytes = Vec::new();
    theirs.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"abc");
    // Its own end counts as a byte that is to be acknowledged.
    until(|| link.acknowledged() == 3);
    drop(theirs);
    until(|| !link.listen().unwrap());
}

#[test]
fn what_a_datagram_server_says_is_taken_away() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.set_nonblocking(true).unwrap();
    ours.connect(server.local_addr().unwrap()).unwrap();
    let there = ours.local_addr().unwrap();
    let check = ours.try_clone().unwrap();
    let mut link = Link::new(server.local_addr().unwrap(), Wire::Udp(ours));
    server.send_to(b"", there).unwrap();
    server.send_to(b"thanks", there).unwrap();
    assert!(link.listen().unwrap());
    assert_eq!(check.recv(&mut [0; 10]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    // Nobody is there any more: ICMP says so behind what was sent.
    drop(server);
    assert_eq!(link.write(b"abc").unwrap(), 3);
    assert_eq!((link.sent(), link.acknowledged()), (3, 3));
    until(|| link.listen().is_err());
}
