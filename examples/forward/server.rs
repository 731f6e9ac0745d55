//! The server that counts.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};

use crate::Outcome;

/// In a network where nothing else is.
pub const PORT: u16 = 514;
/// A burst waits here; the kernel counts twice what it is asked for.
const BUFFER: usize = 64 << 20;

/// Counts records from now on, of every connection and every datagram, until the process ends.
pub fn start() -> Outcome<Arc<AtomicU64>> {
    let count = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let by_stream = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&by_stream);
            thread::spawn(move || read(stream, &count));
        }
    });
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, PORT))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    let by_datagram = Arc::clone(&count);
    thread::spawn(move || {
        let mut buffer = [0; 9000];
        while socket.recv(&mut buffer).is_ok() {
            by_datagram.fetch_add(1, Ordering::Release);
        }
    });
    Ok(count)
}

/// Octet-counted records: a length in front of each. That of one is all that is looked at.
fn read(mut stream: impl Read, count: &AtomicU64) {
    let mut buffer = vec![0; 256 * 1024];
    // What is to be skipped, and the length as far as it was read.
    let (mut skip, mut length) = (0_usize, 0_usize);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let (mut at, mut whole) = (0, 0);
        while at < read {
            if skip > 0 {
                let step = skip.min(read - at);
                (at, skip) = (at + step, skip - step);
                whole += u64::from(skip == 0);
                continue;
            }
            match buffer[at] {
                b' ' => (skip, length) = (length, 0),
                digit => length = length * 10 + usize::from(digit.wrapping_sub(b'0')),
            }
            at += 1;
        }
        count.fetch_add(whole, Ordering::Release);
    }
}
