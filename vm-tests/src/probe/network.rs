//! Sockets that are not for users, and places that are not for payloads.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use super::raw::call;
use super::{Attempt, Needs, Scene, Tried, any, attempt, denied, escaped};

/// Where it listens for the host.
pub const INBOUND: u16 = 7777;
/// What is said to whoever comes.
pub const GREETING: &str = "a payload listens here";
/// The host knocks this often within the wait below.
const WAIT: Duration = Duration::from_secs(5);

pub const ATTEMPTS: &[Attempt] = &[
    attempt("raw-socket", "a raw socket", |_| {
        any([(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)], |(family, protocol)| {
            socket(family, libc::SOCK_RAW, protocol)
        })
    }),
    attempt("packet-socket", "every packet of the machine", |_| {
        any([libc::SOCK_RAW, libc::SOCK_DGRAM], |kind| socket(libc::AF_PACKET, kind, 0x0300))
    }),
    attempt("af-alg", "the kernel's ciphers", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    attempt("af-vsock", "a socket to the host", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    attempt("rare-families", "sockets of protocols that nobody uses", |_| {
        // AX.25, X.25, RDS, PF_KEY, TIPC, CAN, Bluetooth, XDP: each has been a way into the kernel.
        any([3, 9, 21, 15, 30, 29, 31, 44], |family| {
            any([libc::SOCK_RAW, libc::SOCK_SEQPACKET, libc::SOCK_DGRAM], |kind| socket(family, kind, 0))
        })
    }),
    attempt("netfilter", "the machine's firewall", |_| {
        let fd = call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)?;
        // An empty batch: begin (16) and end (17) of nfnetlink. Without the right to it the kernel says EPERM.
        netlink(fd, 16, &[0x0a00_0000])
    }),
    attempt("link-down", "the machine's links", |_| {
        let fd = call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        // RTM_NEWLINK of interface 1, without a change: ifinfomsg has 16 bytes.
        netlink(fd, 16, &[0, 1, 0, 0])
    }),
    attempt("interface-ioctl", "the machine's links by ioctl", |_| {
        let fd = UdpSocket::bind("127.0.0.1:0")?;
        let mut request = [0u8; 40];
        request[..2].copy_from_slice(b"lo");
        // Up, as it is.
        request[16] = libc::IFF_UP as u8;
        call!(libc::SYS_ioctl, fd.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request[..])?;
        escaped("the flags of lo are set")
    }),
    attempt("socket-mark", "a mark that a firewall may go by", |_| {
        let fd = UdpSocket::bind("127.0.0.1:0")?;
        call!(libc::SYS_setsockopt, fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, &[1u64], 4)?;
        escaped("set")
    }),
    attempt("transparent", "packets with somebody else's address", |_| {
        let fd = UdpSocket::bind("127.0.0.1:0")?;
        call!(libc::SYS_setsockopt, fd.as_raw_fd(), libc::SOL_IP, libc::IP_TRANSPARENT, &[1u64], 4)?;
        escaped("set")
    }),
    attempt("low-port", "a port of the machine's services", |_| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?;
        escaped("it listens at 80")
    }),
    attempt("links", "a link to anywhere", links).needs(Needs::Alone),
    attempt("metadata", "the cloud's metadata server", |scene| told_connect(scene, "metadata")).needs(Needs::Host),
    attempt("mail", "sending mail by itself", |scene| told_connect(scene, "mail")).needs(Needs::Host),
    attempt("inbound", "it can be reached from outside", inbound).needs(Needs::Host),
    attempt("inbound-udp", "it can be reached from outside by datagrams", inbound_udp).needs(Needs::Host),
];

fn socket(family: i32, kind: i32, protocol: i32) -> Tried {
    call!(libc::SYS_socket, family, kind, protocol)?;
    escaped(format!("family {family}, kind {kind}"))
}

/// Sends one request that asks for an answer, and takes that.
fn netlink(fd: i64, kind: u64, body: &[u32]) -> Tried {
    let mut message = Vec::new();
    let length = 16 + 4 * body.len() as u32;
    const REQUEST_ACK: u16 = 1 | 4;
    message.extend(length.to_ne_bytes());
    message.extend((kind as u16).to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
    call!(libc::SYS_sendto, fd, &mut message[..], length, 0, 0, 0)?;
    let mut answer = [0u8; 64];
    call!(libc::SYS_recvfrom, fd, &mut answer[..], 64, libc::MSG_DONTWAIT, 0, 0)?;
    // nlmsgerr: the error follows the head.
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => escaped("done"),
        error => Err(Errno::from_raw(-error).into()),
    }
}

/// Where payloads have no network.
fn links(_: &Scene) -> Tried {
    let table = std::fs::read_to_string("/proc/net/dev")?;
    let names = table.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
    let more: Vec<&str> = names.filter(|name| *name != "lo").collect();
    if more.is_empty() { denied("lo alone") } else { super::seen(more.join(", ")) }
}

/// Somebody answers there, so that silence means a wall.
fn told_connect(scene: &Scene, key: &str) -> Tried {
    let Some(address) = scene.told.get(key).and_then(|address| address.parse::<SocketAddr>().ok()) else {
        return denied(format!("the host has not said {key}="));
    };
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    // QEMU takes a connection before its other end has: only words count.
    stream.set_read_timeout(Some(WAIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 16];
    match stream.read(&mut answer)? {
        0 => denied("hung up"),
        _ => escaped(format!("{address} answers")),
    }
}

fn inbound(_: &Scene) -> Tried {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, INBOUND))?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + WAIT;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((mut stream, from)) => {
                let _ = stream.write_all(GREETING.as_bytes());
                return escaped(format!("{from} came"));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_millis(20)),
            Err(error) => return Err(error.into()),
        }
    }
    denied(format!("nobody came in {} s", WAIT.as_secs()))
}

fn inbound_udp(_: &Scene) -> Tried {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, INBOUND))?;
    socket.set_read_timeout(Some(WAIT))?;
    match socket.recv_from(&mut [0; 16]) {
        Ok((_, from)) => escaped(format!("{from} came")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => denied(format!("nobody came in {} s", WAIT.as_secs())),
        Err(error) => Err(error.into()),
    }
}
