//! UDP over IPv4 over Ethernet, from and to the DHCP ports.
//!
//! A DHCP client talks before it has an address, so it makes whole frames itself.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Everybody on the link.
pub const BROADCAST: Mac = [0xff; 6];

/// Where a frame comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// This machine.
    pub from: (Mac, Ipv4Addr),
    /// The server, or everybody.
    pub to: (Mac, Ipv4Addr),
}

/// A frame that carries `message` to a DHCP server.
pub fn wrap(path: Path, message: &[u8]) -> Vec<u8> {
    let sums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: DHCP_CLIENT_PORT, dst_port: DHCP_SERVER_PORT };
    let ip = Ipv4Repr {
        src_addr: path.from.1,
        dst_addr: path.to.1,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + message.len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(path.from.0),
        dst_addr: EthernetAddress(path.to.0),
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &sums);
    let fill = |payload: &mut [u8]| payload.copy_from_slice(message);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    udp.emit(&mut datagram, &path.from.1.into(), &path.to.1.into(), message.len(), fill, &sums);
    bytes
}

/// The sender's Ethernet address and the message, if `frame` is a whole datagram to our DHCP port.
///
/// The UDP checksum is not looked at: on a virtual network the sender leaves it to a device that does not exist,
/// so what arrives is a partial sum. The IPv4 header's own sum is always made in software, and is checked.
pub fn unwrap(frame: &[u8], mac: Mac) -> Option<(Mac, &[u8])> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 || ![mac, BROADCAST].contains(&frame.dst_addr().0) {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let fragment = packet.more_frags() || packet.frag_offset() != 0;
    if packet.version() != 4 || fragment || packet.next_header() != IpProtocol::Udp || !packet.verify_checksum() {
        return None;
    }
    let datagram = UdpPacket::new_checked(packet.payload()).ok()?;
    (datagram.dst_port() == DHCP_CLIENT_PORT).then(|| (frame.src_addr().0, datagram.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const SERVER: Mac = [2, 0, 0, 0, 0, 2];

    /// 10.0.0.1:67 to 10.0.0.5:68, message "hi", UDP checksum absent; the IP sum was worked out by hand.
    #[rustfmt::skip]
    const FRAME: [u8; 44] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00,
        0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0x66, 0xca, 10, 0, 0, 1, 10, 0, 0, 5,
        0, 67, 0, 68, 0, 10, 0, 0, b'h', b'i',
    ];

    #[test]
    fn takes_what_is_for_us() {
        assert_eq!(unwrap(&FRAME, US), Some((SERVER, &b"hi"[..])));
        let mut padded = FRAME.to_vec();
        padded.resize(60, 0xee);
        assert_eq!(unwrap(&padded, US), Some((SERVER, &b"hi"[..])), "Ethernet pads to 60 bytes");
        let mut partial = FRAME;
        partial[40] = 0x12;
        assert!(unwrap(&partial, US).is_some(), "offloaded UDP checksum");
    }

    #[test]
    fn leaves_everything_else() {
        for (at, value, why) in [
            (5, 9, "to somebody else"),
            (13, 6, "ARP"),
            (14, 0x46, "header length that breaks the sum"),
            (14, 0x4f, "header longer than the packet"),
            (17, 200, "total length longer than the frame"),
            (20, 0x20, "fragment"),
            (23, 6, "TCP"),
            (24, 0, "wrong sum"),
            (37, 67, "other port"),
            (39, 40, "UDP length longer than the packet"),
        ] {
            let mut frame = FRAME;
            frame[at] = value;
            assert_eq!(unwrap(&frame, US), None, "{why}");
        }
        for length in 0..FRAME.len() {
            assert_eq!(unwrap(&FRAME[..length], US), None, "{length} bytes");
        }
    }

    #[test]
    fn what_is_sent_has_right_sums() {
        let path = Path { from: (US, Ipv4Addr::UNSPECIFIED), to: (BROADCAST, Ipv4Addr::BROADCAST) };
        let frame = wrap(path, b"hello");
        assert_eq!(frame.len(), 14 + 20 + 8 + 5);
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0]);
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
        let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
        assert_ne!(datagram.checksum(), 0);
        assert!(datagram.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
        assert_eq!((datagram.src_port(), datagram.dst_port(), datagram.payload()), (68, 67, &b"hello"[..]));
    }
}
