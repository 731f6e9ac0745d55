//! Messages of servers and readings of our own, for the tests.

use std::net::Ipv4Addr;

use super::frame::Mac;
use super::{Lease, Route};

pub const MAC: Mac = [2, 0, 0, 0, 0, 1];
pub const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub const ADDRESS: [u8; 4] = [10, 0, 0, 5];
pub const SERVER: [u8; 4] = [10, 0, 0, 1];
pub const OTHER_SERVER: [u8; 4] = [10, 0, 0, 2];

/// Mask /24, lease 3600 s.
pub const LEASE: &[u8] = &[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16];

/// A server's message with these options behind type and server; no end option.
pub fn reply(xid: u32, kind: u8, address: [u8; 4], server: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0];
    bytes.extend(xid.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(address);
    bytes.extend([0; 8]);
    bytes.extend(MAC);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind, 54, 4]);
    bytes.extend(server);
    bytes.extend(options);
    bytes
}

/// `message` in a frame from SERVER_MAC, sent to everybody.
pub fn from_server(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&(length + 28).to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [[0, 67], [0, 68], (length + 8).to_be_bytes(), [0, 0]].concat();
    [&[0xff; 6][..], &SERVER_MAC, &[8, 0], &ip, &udp, message].concat()
}

/// What [`server_bytes`] says.
pub fn lease() -> Lease {
    Lease {
        address: ADDRESS.into(),
        prefix: 24,
        routes: vec![
            Route { destination: [10, 9, 0, 0].into(), prefix: 16, gateway: Some([10, 0, 0, 2].into()) },
            Route { destination: [0; 4].into(), prefix: 0, gateway: Some([10, 0, 0, 1].into()) },
        ],
        dns: vec![[10, 0, 0, 53].into(), [10, 0, 0, 54].into()],
        domain: Some(String::from("grid.example.org").try_into().unwrap()),
        hostname: Some(String::from("wn-7").try_into().unwrap()),
        mtu: Some(1450),
        server: SERVER.into(),
        lease_secs: 7200,
        t1_secs: 3600,
        t2_secs: 6300,
    }
}

/// An acknowledgement of transaction 0x01020304 with all parameters, end and padding.
pub fn server_bytes() -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, 5, 54, 4, 10, 0, 0, 1]);
    bytes.extend([51, 4, 0, 0, 0x1c, 0x20, 58, 4, 0, 0, 0x0e, 0x10, 59, 4, 0, 0, 0x18, 0x9c]);
    bytes.extend([1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 7, 6, 8, 10, 0, 0, 53, 10, 0, 0, 54]);
    bytes.extend(b"\x0c\x04wn-7\x0f\x10grid.example.org\x1a\x02\x05\xaa");
    bytes.extend([121, 12, 16, 10, 9, 10, 0, 0, 2, 0, 10, 0, 0, 1, 43, 1, 0, 255, 0, 0, 0]);
    bytes
}

/// Our own messages, read without the code that made them.
pub mod asked {
    use super::{Ipv4Addr, Mac};

    #[derive(Debug)]
    pub struct Asked {
        pub kind: u8,
        pub xid: u32,
        pub secs: u16,
        pub from: Ipv4Addr,
        pub to: (Mac, Ipv4Addr),
        pub current: Ipv4Addr,
        pub requested: Option<Ipv4Addr>,
        pub server: Option<Ipv4Addr>,
        pub hostname: Option<String>,
    }

    pub fn read(frame: &[u8]) -> Asked {
        let address = |at: usize| Ipv4Addr::from_octets(frame[at..at + 4].try_into().unwrap());
        let message = &frame[42..];
        let option = |code: u8| {
            let mut rest = &message[240..];
            while rest[0] != 255 {
                let data = &rest[2..2 + usize::from(rest[1])];
                if rest[0] == code {
                    return Some(data);
                }
                rest = &rest[2 + data.len()..];
            }
            None
        };
        let option_address = |code| option(code).map(|data| Ipv4Addr::from_octets(data.try_into().unwrap()));
        Asked {
            kind: option(53).unwrap()[0],
            xid: u32::from_be_bytes(message[4..8].try_into().unwrap()),
            secs: u16::from_be_bytes(message[8..10].try_into().unwrap()),
            from: address(26),
            to: (frame[..6].try_into().unwrap(), address(30)),
            current: address(42 + 12),
            requested: option_address(50),
            server: option_address(54),
            hostname: option(12).map(|data| String::from_utf8(data.to_vec()).unwrap()),
        }
    }
}
