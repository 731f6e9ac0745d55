//! Kernel uevents: what was added, and which driver it wants.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket};

/// The kernel's own events; group 2 is where udev speaks.
const KERNEL_GROUP: u32 = 1;

/// What one event says, as far as we look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    /// The device's driver key, where it has one.
    pub modalias: Option<String>,
}

/// The kernel's event socket.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }
}

/// The events that are queued now.
impl Iterator for Uevents {
    type Item = Uevent;

    fn next(&mut self) -> Option<Uevent> {
        let mut buffer = [0; 8192];
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                // A process could send us a forged event; only the kernel's comes from port 0.
                Ok((_, Some(from))) if from.pid() != 0 => {}
                Ok((length, _)) => return Some(parse(buffer.get(..length).unwrap_or_default())),
                // The socket's buffer ran over: events are lost, those behind are still good.
                Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads `action@devpath\0KEY=value\0...`.
pub fn parse(message: &[u8]) -> Uevent {
    let mut event = Uevent::default();
    for field in message.split(|&byte| byte == 0) {
        let field = String::from_utf8_lossy(field);
        if let Some(modalias) = field.strip_prefix("MODALIAS=") {
            event.modalias = Some(modalias.to_owned());
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_and_modalias_are_read() {
        let message =
            b"add@/devices/pci0000:00/virtio0\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000002v00001AF4\0";
        let wanted = Uevent { modalias: Some("virtio:d00000002v00001AF4".to_owned()) };
        assert_eq!(parse(message), wanted);
        assert_eq!(parse(b"libudev\0\xfe\xed"), Uevent::default());
    }
}
