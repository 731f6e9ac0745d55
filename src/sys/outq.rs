//! What a peer has not acknowledged, and what it has no room for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

/// Bytes of a TCP connection that were written and that the peer's kernel has not acknowledged, its end included: SIOCOUTQ
/// of tcp(7).
///
/// # Errors
/// Those of ioctl(2); EINVAL on a listener.
pub fn unacknowledged(stream: impl AsFd) -> io::Result<u64> {
    ask(&stream, libc::TIOCOUTQ)
}

/// Of these, the bytes that were not even sent: SIOCOUTQNSD of linux/sockios.h.
///
/// # Errors
/// Those of ioctl(2); EINVAL on a listener.
pub fn unsent(stream: impl AsFd) -> io::Result<u64> {
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    ask(&stream, SIOCOUTQNSD)
}

fn ask(stream: &impl AsFd, request: libc::Ioctl) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is to a live int, which is what both requests write.
    Errno::result(unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), request, &raw mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_nobody_has_room_for_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(unacknowledged(&stream).unwrap(), 0);
        while stream.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged(&stream).unwrap() > 0);
        // The window is closed: what is left was acknowledged or not sent.
        let deadline = Instant::now() + Duration::from_secs(10);
        while unsent(&stream).unwrap() != unacknowledged(&stream).unwrap() {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(5));
        }
    }
}
