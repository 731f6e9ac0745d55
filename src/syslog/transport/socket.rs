//! Sockets as a log wants them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};

use super::connection::PATIENCE;

/// A packet a minute notices a dead server, or firewall state, before there is something to say.
const KEEPALIVE_SECS: u32 = 60;
/// What the kernel may hold unsent; 64 KiB (which it doubles) still fill a site's network.
const SEND_BUFFER: usize = 64 * 1024;

/// Begins a connection: it is there, or has failed, when the socket can be written to.
pub fn tcp(address: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER)?;
    setsockopt(&socket, sockopt::TcpUserTimeout, &(PATIENCE.as_millis() as u32))?;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &KEEPALIVE_SECS)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &(KEEPALIVE_SECS / 4))?;
    // What is written is a batch already: waiting for more only delays it.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno),
    }
}

/// Takes no part in anything but sending to this address, and hearing what ICMP says of that.
pub fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}
