//! What the network says: DHCP and DNS.

use std::net::IpAddr;

use ctxinit::network::dhcp::message;
use ctxinit::network::dns::{self, Answer};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use smoltcp::wire::DnsQueryType;

use crate::{bytes, damaged, holds};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// An offer with every option that is looked at; behind them comes `more`.
fn offer(more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 1, 6, 0, 0, 0, 0, 7];
    bytes.extend([0; 8]);
    bytes.extend([10, 0, 0, 5]);
    bytes.extend([0; 8]);
    bytes.extend(MAC);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, 2, 54, 4, 10, 0, 0, 1, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16]);
    bytes.extend([3, 4, 10, 0, 0, 1, 6, 4, 10, 0, 0, 1, 12, 2, b'v', b'm', 15, 2, b'x', b'y', 26, 2, 5, 220]);
    bytes.extend([121, 5, 0, 10, 0, 0, 1, 58, 4, 0, 0, 7, 8, 59, 4, 0, 0, 12, 78]);
    bytes.extend(more);
    bytes.push(255);
    bytes
}

/// Whatever is taken is usable: an address of a host within its network, names that are names.
fn taken(bytes: &[u8]) -> TestCaseResult {
    if let Ok((message::Reply::Offer(lease) | message::Reply::Ack(lease), _)) = message::parse(bytes, 7, MAC) {
        prop_assert!((1..=32).contains(&lease.prefix), "{:?}", lease);
        prop_assert!(!lease.address.is_loopback() && !lease.address.is_unspecified() && !lease.address.is_multicast());
        prop_assert!(lease.t1_secs < lease.t2_secs && lease.t2_secs < lease.lease_secs, "{:?}", lease);
        prop_assert!(lease.mtu.is_none_or(|mtu| mtu >= message::MIN_MTU), "{:?}", lease);
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        prop_assert!(lease.hostname.as_ref().is_none_or(|name| plain(name.get())), "{:?}", lease);
    }
    Ok(())
}

#[test]
fn any_dhcp_message_is_taken_or_refused() {
    assert!(message::parse(&offer(&[]), 7, MAC).is_ok());
    holds(bytes(600), |bytes| taken(&bytes));
    holds(damaged(offer(&[])), |bytes| taken(&bytes));
    // Options of any length behind, which may break off and may come a second time.
    holds(bytes(64), |more| taken(&offer(&more)));
}

/// The answer to a question for www.x.org: an alias, and the address of that.
fn answer() -> Vec<u8> {
    let mut bytes = b"\x01\x02\x81\x80\0\x01\0\x02\0\0\0\0\x03www\x01x\x03org\0\0\x01\0\x01".to_vec();
    bytes.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01c\xc0\x10\xc0\x27\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x03");
    bytes
}

#[test]
fn any_dns_message_is_an_answer_or_none() {
    let name = dns::encode("www.x.org").unwrap();
    let read = |bytes: &[u8]| dns::answer(bytes, 0x0102, &name, DnsQueryType::A);
    assert_eq!(read(&answer()), Some(Answer::Addresses(vec![IpAddr::from([10, 0, 0, 3])])));
    let said = |bytes: &[u8]| {
        if let Some(Answer::Addresses(addresses)) = read(bytes) {
            prop_assert!(!addresses.is_empty());
        }
        Ok(())
    };
    holds(damaged(answer()), |bytes| said(&bytes));
    holds(bytes(80), |records| {
        let head = answer();
        said(&[&head[..27], &records].concat())
    });
}

/// The name comes back from the question as it went into it.
#[test]
fn any_name_is_encoded_or_refused() {
    holds(prop_oneof!["[a-zA-Z0-9-]{1,70}(\\.[a-z0-9-]{0,20}){0,4}\\.?", any::<String>()], |name| {
        let Some(encoded) = dns::encode(&name) else { return Ok(()) };
        prop_assert!(encoded.len() <= 255 && encoded.last() == Some(&0), "{:?}", encoded);
        let mut reply = dns::question(9, &encoded, DnsQueryType::A);
        reply[2] |= 0x80;
        prop_assert_eq!(dns::answer(&reply, 9, &encoded, DnsQueryType::A), Some(Answer::NoAddress));
        Ok(())
    });
}
