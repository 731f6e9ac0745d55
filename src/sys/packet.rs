//! Packet sockets: whole Ethernet frames of one interface.
//!
//! nix can open such a socket but cannot make the address that it must be bound to.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// A non-blocking socket that takes the incoming IPv4 frames of interface `index` which `filter` (classic BPF)
/// lets through, and sends whole frames there. Closes on exec.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2): `EPERM` without CAP_NET_RAW, `ENODEV` for no such interface.
pub fn open(index: u32, filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Protocol 0 hears nothing: no frame of another interface slips in before filter and bind are in place.
    // SAFETY: socket takes three integers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the call succeeded, so fd is a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    let length = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel only reads the program; the pointer is mutable by the accident of a C type.
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: program and the instructions it points to live through the call, and their lengths are right.
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;

    // SAFETY: sockaddr_ll is a C struct of integers, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: address is a live sockaddr_ll and size is its size.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
    Ok(socket)
}
