//! DHCP messages (RFC 2131, options of RFC 2132, 3396 and 3442): built and parsed, no I/O.
//!
//! Strict where a wrong value would break the machine's network: the message is refused. An optional parameter
//! that makes no sense is left out and reported, as a machine with a bad MTU option can still work.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress};
use thiserror::Error;

use super::frame::Mac;
use super::options::{Options, addresses, classless_routes, is_host, text_of};
use super::{Lease, Route};
use crate::context::site::Host;
use crate::network::names;

/// What a server may send, IP header included: one Ethernet frame.
const MAX_SIZE: u16 = 1500;
/// Relays and old servers drop what is shorter than a BOOTP message (RFC 1542 2.1).
const MIN_LENGTH: usize = 300;
/// Wanted parameters; 121 stands before 3, as RFC 3442 asks.
const WANTED: [u8; 11] = [1, 121, 3, 6, 12, 15, 26, 51, 54, 58, 59];
/// Shorter leases would keep the link busy with renewals; no server that means well gives them.
const MIN_LEASE: u32 = 10;
/// RFC 791: every host takes datagrams of this size, so no link needs less. Linux turns IPv4 off below 68.
pub const MIN_MTU: u16 = 576;

/// What this machine says.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// `Discover` or `Request`.
    pub kind: DhcpMessageType,
    /// Number of the transaction.
    pub xid: u32,
    /// Seconds since it began.
    pub secs: u16,
    /// Our Ethernet address.
    pub mac: Mac,
    /// The address in use, when it is to be renewed; else 0.0.0.0.
    pub current: Ipv4Addr,
    /// The address and the server of the offer that is taken.
    pub chosen: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The name that the server may register.
    pub hostname: Option<&'a str>,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An address can be had.
    Offer(Lease),
    /// The address is ours.
    Ack(Lease),
    /// It is not.
    Nak {
        /// The server that says so.
        server: Ipv4Addr,
    },
}

/// A message that is not used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Rejected {
    /// Another machine's, or of an earlier transaction.
    #[error("not for this machine")]
    Foreign,
    /// Says what is wrong with it.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The bytes of `query`.
pub fn build(query: &Query<'_>) -> Vec<u8> {
    // RFC 1035 names have at most 253 bytes, so a hostname always fits into an option of 255.
    let name =
        query.hostname.filter(|name| name.len() <= 253).map(|name| DhcpOption { kind: 12, data: name.as_bytes() });
    let message = DhcpRepr {
        message_type: query.kind,
        transaction_id: query.xid,
        secs: query.secs,
        client_hardware_address: EthernetAddress(query.mac),
        client_ip: query.current,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        // Whole frames are read, so a server need not broadcast because we have no address yet.
        broadcast: false,
        requested_ip: query.chosen.map(|(address, _)| address),
        client_identifier: Some(EthernetAddress(query.mac)),
        server_identifier: query.chosen.map(|(_, server)| server),
        parameter_request_list: Some(&WANTED),
        dns_servers: None,
        max_size: Some(MAX_SIZE),
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: name.as_slice(),
    };
    let mut bytes = vec![0; message.buffer_len().max(MIN_LENGTH)];
    // Fails only if the buffer is too short, which buffer_len rules out.
    let _ = message.emit(&mut DhcpPacket::new_unchecked(&mut bytes));
    bytes
}

/// A server's message to `mac` in transaction `xid`, and the codes of the options that made no sense.
///
/// # Errors
/// [`Rejected`]: nothing in it is to be used.
pub fn parse(bytes: &[u8], xid: u32, mac: Mac) -> Result<(Reply, Vec<u8>), Rejected> {
    use Rejected::{Foreign, Malformed};
    let packet = DhcpPacket::new_checked(bytes).map_err(|_| Malformed("truncated header"))?;
    if bytes.get(..3) != Some(&[2, 1, 6]) || packet.transaction_id() != xid || packet.client_hardware_address().0 != mac
    {
        return Err(Foreign);
    }
    if packet.magic_number() != 0x6382_5363 {
        return Err(Malformed("no DHCP message"));
    }
    let options = Options::read(bytes).ok_or(Malformed("truncated option"))?;
    let server = options.address(54).filter(|a| is_host(*a)).ok_or(Malformed("no usable server identifier"))?;
    match options.get(53).as_deref() {
        Some([2]) => lease(packet.your_ip(), server, &options).map(|(lease, odd)| (Reply::Offer(lease), odd)),
        Some([5]) => lease(packet.your_ip(), server, &options).map(|(lease, odd)| (Reply::Ack(lease), odd)),
        Some([6]) => Ok((Reply::Nak { server }, Vec::new())),
        _ => Err(Malformed("not an offer, acknowledgement or refusal")),
    }
}

fn lease(address: Ipv4Addr, server: Ipv4Addr, options: &Options<'_>) -> Result<(Lease, Vec<u8>), Rejected> {
    use Rejected::Malformed;
    let mask = options.address(1).ok_or(Malformed("no subnet mask"))?.to_bits();
    let prefix = mask.leading_ones() as u8;
    if prefix == 0 || mask.count_ones() != u32::from(prefix) {
        return Err(Malformed("impossible subnet mask"));
    }
    // RFC 3021: a /31 has neither a network nor a broadcast address; nor has a /32.
    let host = address.to_bits() & !mask;
    if !is_host(address) || prefix < 31 && (host == 0 || host == !mask) {
        return Err(Malformed("impossible address"));
    }
    let lease_secs = options.number(51).ok_or(Malformed("no lease time"))?;
    if lease_secs < MIN_LEASE {
        return Err(Malformed("impossible lease time"));
    }
    let (t1_secs, t2_secs) = renewal(lease_secs, options.number(58), options.number(59));

    let mut optional = Optional { options, odd: Vec::new() };
    let routers = optional.take(3, addresses).unwrap_or_default();
    let routes = optional.take(121, classless_routes).unwrap_or_else(|| {
        // The first is the preferred one (RFC 2132 3.5), and Linux would not use the others.
        let gateway = routers.first().copied();
        gateway.map(|_| Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway }).into_iter().collect()
    });
    let lease = Lease {
        address,
        prefix,
        routes,
        dns: optional.take(6, addresses).unwrap_or_default(),
        domain: optional.take(15, |text| Host::try_from(text_of(text)?).ok()),
        hostname: optional.take(12, |text| names::hostname(&text_of(text)?)),
        mtu: optional.take(26, |data| Some(u16::from_be_bytes(data.try_into().ok()?)).filter(|mtu| *mtu >= MIN_MTU)),
        server,
        lease_secs,
        t1_secs,
        t2_secs,
    };
    Ok((lease, optional.odd))
}

/// T1 and T2 (RFC 2131 4.4.5): the server's if they are in order, else a half and seven eighths of the lease.
fn renewal(lease: u32, t1: Option<u32>, t2: Option<u32>) -> (u32, u32) {
    let t2 = t2.filter(|t2| (2..lease).contains(t2)).unwrap_or(lease - lease / 8);
    let t1 = t1.filter(|t1| (1..t2).contains(t1)).unwrap_or((lease / 2).min(t2 - 1));
    (t1, t2)
}

/// The optional parameters, and the codes of those that made no sense.
struct Optional<'a> {
    options: &'a Options<'a>,
    odd: Vec<u8>,
}

impl Optional<'_> {
    fn take<T>(&mut self, code: u8, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let data = self.options.get(code)?;
        let value = read(&data);
        if value.is_none() {
            self.odd.push(code);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::dhcp::samples::{ADDRESS, LEASE, MAC, SERVER, lease, reply, server_bytes};

    const XID: u32 = 0x1234_5678;

    fn read(options: &[u8]) -> Result<(Reply, Vec<u8>), Rejected> {
        parse(&reply(XID, 5, ADDRESS, SERVER, options), XID, MAC)
    }

    /// The lease of an acknowledgement with these options behind mask and lease time.
    fn ack(more: &[u8]) -> (Lease, Vec<u8>) {
        match read(&[LEASE, more].concat()) {
            Ok((Reply::Ack(lease), odd)) => (lease, odd),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_acknowledgement_is_read() {
        let (Reply::Ack(read), odd) = parse(&server_bytes(), 0x0102_0304, MAC).unwrap() else { panic!() };
        assert_eq!(read, lease());
        assert!(odd.is_empty());
    }

    #[test]
    fn bits_of_the_lease_are_optional() {
        let (lease, odd) = ack(&[]);
        assert_eq!((lease.prefix, lease.lease_secs, lease.t1_secs, lease.t2_secs), (24, 3600, 1800, 3150));
        assert_eq!(
            (lease.routes, lease.dns, lease.domain, lease.hostname, lease.mtu),
            (vec![], vec![], None, None, None)
        );
        assert!(odd.is_empty());
    }

    #[test]
    fn what_would_break_the_network_is_refused() {
        for (options, why) in [
            (&[51, 4, 0, 0, 14, 16][..], "no subnet mask"),
            (&[1, 4, 255, 0, 255, 0, 51, 4, 0, 0, 14, 16], "impossible subnet mask"),
            (&[1, 4, 0, 0, 0, 0, 51, 4, 0, 0, 14, 16], "impossible subnet mask"),
            (&[1, 3, 255, 255, 255, 51, 4, 0, 0, 14, 16], "no subnet mask"),
            (&[1, 4, 255, 255, 255, 0], "no lease time"),
            (&[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 0, 9], "impossible lease time"),
            (&[1, 4, 255, 255, 255, 0, 51, 2, 14, 16], "no lease time"),
            (&[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 6, 4, 1, 1], "truncated option"),
            (&[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 6], "truncated option"),
            (&[52, 1, 1, 53, 1, 1], "not an offer, acknowledgement or refusal"),
        ] {
            assert_eq!(read(options), Err(Rejected::Malformed(why)), "{options:?}");
        }
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 9], [255; 4], [10, 0, 0, 0], [10, 0, 0, 255]] {
            let message = reply(XID, 2, address, SERVER, LEASE);
            assert_eq!(parse(&message, XID, MAC), Err(Rejected::Malformed("impossible address")), "{address:?}");
        }
        for server in [[0, 0, 0, 0], [255; 4]] {
            let message = reply(XID, 2, ADDRESS, server, LEASE);
            assert_eq!(parse(&message, XID, MAC), Err(Rejected::Malformed("no usable server identifier")));
        }
        for (at, value) in [(0, 1), (1, 2), (2, 16), (5, 0), (30, 9)] {
            let mut message = reply(XID, 2, ADDRESS, SERVER, LEASE);
            message[at] = value;
            assert_eq!(parse(&message, XID, MAC), Err(Rejected::Foreign), "byte {at}");
        }
        let mut bootp = reply(XID, 2, ADDRESS, SERVER, LEASE);
        bootp[239] = 0;
        assert_eq!(parse(&bootp, XID, MAC), Err(Rejected::Malformed("no DHCP message")));
        for length in 0..273 {
            assert!(parse(&server_bytes()[..length], 0x0102_0304, MAC).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn point_to_point_addresses_are_hosts() {
        for (last, mask) in [(0, 254), (1, 254), (0, 255), (255, 255)] {
            let options = [1, 4, 255, 255, 255, mask, 51, 4, 0, 0, 14, 16];
            assert!(parse(&reply(XID, 5, [10, 0, 0, last], SERVER, &options), XID, MAC).is_ok(), "{last} {mask}");
        }
    }

    #[test]
    fn odd_parameters_are_left_out_and_named() {
        let (lease, odd) =
            ack(&[3, 4, 0, 0, 0, 0, 6, 3, 1, 1, 1, 12, 4, b'a', b'\n', b'b', b'c', 15, 2, b'.', b'.', 26, 2, 0, 68]);
        assert_eq!(
            (lease.routes, lease.dns, lease.domain, lease.hostname, lease.mtu),
            (vec![], vec![], None, None, None)
        );
        assert_eq!(odd, [3, 6, 15, 12, 26]);
    }

    #[test]
    fn classless_routes_win_over_routers() {
        let default = |gateway| vec![Route { destination: [0; 4].into(), prefix: 0, gateway: Some(gateway) }];
        let routers = [3, 8, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(ack(&routers).0.routes, default([10, 0, 0, 1].into()));
        let classless = [121, 5, 0, 10, 0, 0, 9];
        assert_eq!(ack(&[&classless[..], &routers].concat()).0.routes, default([10, 0, 0, 9].into()));
        let (lease, odd) = ack(&[&[121, 3, 24, 1, 1][..], &routers].concat());
        assert_eq!((lease.routes, odd), (default([10, 0, 0, 1].into()), vec![121]), "a broken one does not");
    }

    #[test]
    fn renewal_times_are_in_order() {
        for ((lease, t1, t2), expected) in [
            ((3600, None, None), (1800, 3150)),
            ((3600, Some(600), Some(900)), (600, 900)),
            ((3600, Some(900), Some(600)), (599, 600)),
            ((3600, Some(0), Some(4000)), (1800, 3150)),
            ((10, None, Some(1)), (5, 9)),
            ((u32::MAX, None, None), (u32::MAX / 2, 3_758_096_384)),
        ] {
            assert_eq!(renewal(lease, t1, t2), expected, "{lease} {t1:?} {t2:?}");
        }
    }

    #[test]
    fn a_question_is_built() {
        let query = Query {
            kind: DhcpMessageType::Request,
            xid: XID,
            secs: 7,
            mac: MAC,
            current: Ipv4Addr::UNSPECIFIED,
            chosen: Some((ADDRESS.into(), SERVER.into())),
            hostname: Some("wn-7"),
        };
        let bytes = build(&query);
        assert_eq!(bytes.len(), MIN_LENGTH);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 7, 0, 0]);
        assert_eq!(bytes[12..28], [0; 16]);
        assert_eq!(bytes[28..44], [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        #[rustfmt::skip]
        let options = [
            99, 130, 83, 99, 53, 1, 3, 61, 7, 1, 2, 0, 0, 0, 0, 1, 54, 4, 10, 0, 0, 1, 50, 4, 10, 0, 0, 5,
            57, 2, 0x05, 0xdc, 55, 11, 1, 121, 3, 6, 12, 15, 26, 51, 54, 58, 59, 12, 4, b'w', b'n', b'-', b'7', 255,
        ];
        assert_eq!(bytes[236..236 + options.len()], options);
        assert!(build(&Query { hostname: Some(&"n".repeat(254)), ..query }).len() == MIN_LENGTH);
    }
}
