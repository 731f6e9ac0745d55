//! A network of one's own, and servers in it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::machine::PATIENCE;

/// A network with nothing but loopback, for this thread and those that it starts.
pub fn private_network() {
    if nix::unistd::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()
}

pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("no connection: {error}"),
        }
    }
}

/// Answers each question for an address with this one; 0.0.0.0 is "no such name".
pub fn name_server(address: Ipv4Addr) -> Arc<Mutex<Ipv4Addr>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
    let now = Arc::new(Mutex::new(address));
    let answer = Arc::clone(&now);
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut question) {
            let address = *answer.lock().unwrap();
            let mut reply = question[..length].to_vec();
            (reply[2], reply[3]) = (0x81, if address.is_unspecified() { 0x83 } else { 0x80 });
            // AAAA is 28, and there is none.
            if question[length - 3] == 1 && !address.is_unspecified() {
                reply[7] = 1;
                reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04");
                reply.extend(address.octets());
            }
            let _ = socket.send_to(&reply, peer);
        }
    });
    now
}
