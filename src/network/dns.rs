//! DNS messages (RFC 1035): a question for addresses, and the answer to it. Pure.
//!
//! No EDNS, no TCP: the addresses of a server fit into 512 bytes, or as many as fit will do.

use std::net::IpAddr;

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData, DnsRepr,
};

/// More CNAMEs in one answer are a loop or a mistake; resolvers of the world stop between 8 and 17.
const MAX_ALIASES: usize = 12;

/// What a server says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its addresses, one at least.
    Addresses(Vec<IpAddr>),
    /// The name exists, but not with addresses of this kind.
    NoAddress,
    /// NXDOMAIN.
    NoSuchName,
    /// The server could not or would not say: SERVFAIL (2), REFUSED (5) ...; 0 for an answer that makes no sense.
    Failed(u8),
}

/// The form of a name inside messages, lower case: a length before each label, 0 at the end.
/// `None` if it cannot be one.
pub fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        // 64 and more would be a pointer.
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

/// A question to a recursive server for the addresses `kind` (A or AAAA) of an encoded `name`.
pub fn question(id: u16, name: &[u8], kind: DnsQueryType) -> Vec<u8> {
    let message = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name, type_: kind },
    };
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut DnsPacket::new_unchecked(&mut bytes));
    bytes
}

/// What `bytes` says, if it answers this very question; `None` for anything else, which is to be ignored.
pub fn answer(bytes: &[u8], id: u16, name: &[u8], kind: DnsQueryType) -> Option<Answer> {
    let packet = DnsPacket::new_checked(bytes).ok()?;
    let ours = packet.transaction_id() == id
        && packet.flags().contains(DnsFlags::RESPONSE)
        && packet.opcode() == DnsOpcode::Query
        && packet.question_count() == 1;
    if !ours {
        return None;
    }
    let (rest, question) = DnsQuestion::parse(packet.payload()).ok()?;
    if question.type_ != kind || decode(&packet, question.name)? != name {
        return None;
    }
    Some(match packet.rcode() {
        DnsRcode::NoError => addresses(&packet, rest, name).unwrap_or(Answer::Failed(0)),
        DnsRcode::NXDomain => Answer::NoSuchName,
        other => Answer::Failed(other.into()),
    })
}

/// The addresses of `name` in the answer section, over its CNAMEs; `None` if the section is broken.
fn addresses(packet: &DnsPacket<&[u8]>, mut rest: &[u8], name: &[u8]) -> Option<Answer> {
    let mut records = Vec::new();
    for _ in 0..packet.answer_record_count() {
        match DnsRecord::parse(rest) {
            Ok((behind, record)) => {
                records.push((decode(packet, record.name)?, record.data));
                rest = behind;
            }
            // A truncated answer may end anywhere; what came before holds.
            Err(_) if packet.flags().contains(DnsFlags::TRUNCATED) => break,
            Err(_) => return None,
        }
    }
    let mut name = name.to_vec();
    for _ in 0..=MAX_ALIASES {
        let here = || records.iter().filter(|(owner, _)| *owner == name).map(|(_, data)| data);
        let found: Vec<IpAddr> = here()
            .filter_map(|data| match data {
                DnsRecordData::A(address) => Some((*address).into()),
                DnsRecordData::Other(DnsQueryType::Aaaa, data) => <[u8; 16]>::try_from(*data).ok().map(IpAddr::from),
                _ => None,
            })
            .collect();
        if !found.is_empty() {
            return Some(Answer::Addresses(found));
        }
        let alias = here().find_map(|data| match data {
            DnsRecordData::Cname(target) => Some(*target),
            _ => None,
        });
        match alias {
            Some(target) => name = decode(packet, target)?,
            // Cut off before the address: another server may send less beside it.
            None if packet.flags().contains(DnsFlags::TRUNCATED) => return None,
            None => return Some(Answer::NoAddress),
        }
    }
    None
}

/// A name as [`encode`] writes it. Every pointer of smoltcp's reader leads towards the front, so it comes to an end.
fn decode(packet: &DnsPacket<&[u8]>, name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in packet.parse_name(name) {
        let label = label.ok()?;
        bytes.push(label.len() as u8);
        bytes.extend(label.iter().map(u8::to_ascii_lowercase));
        if bytes.len() > 254 {
            return None;
        }
    }
    bytes.push(0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: DnsQueryType = DnsQueryType::A;

    /// An answer to question 0x0102 for www.x.org, with these flags and answer records.
    fn message(flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, 2];
        bytes.extend(flags.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(count.to_be_bytes());
        bytes.extend(b"\0\0\0\0\x03wWw\x01x\x03org\0\0\x01\0\x01");
        bytes.extend(records);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Answer> {
        answer(bytes, 0x0102, b"\x03www\x01x\x03org\0", A)
    }

    fn found(addresses: &[&str]) -> Option<Answer> {
        Some(Answer::Addresses(addresses.iter().map(|address| address.parse().unwrap()).collect()))
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("Www.x.ORG").unwrap(), b"\x03www\x01x\x03org\0");
        assert_eq!(encode("x.").unwrap(), b"\x01x\0");
        let label = "n".repeat(63);
        assert_eq!(encode(&label).unwrap().len(), 65);
        assert_eq!(encode(&[label.as_str(); 4].join(".")[..253]).unwrap().len(), 255);
        for bad in ["", ".", "a..b", ".a", "a..", &format!("{label}n"), &[label.as_str(); 4].join(".")] {
            assert_eq!(encode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_question_is_built() {
        let bytes = question(0x0102, &encode("x.org").unwrap(), DnsQueryType::Aaaa);
        assert_eq!(bytes, b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x01x\x03org\0\0\x1c\0\x01");
    }

    #[test]
    fn addresses_are_read() {
        let two = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x02";
        assert_eq!(read(&message(0x8180, 2, two)), found(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(read(&message(0x8180, 1, two)), found(&["10.0.0.1"]), "the authority section is not an answer");
        assert_eq!(read(&message(0x8180, 0, b"")), Some(Answer::NoAddress));
        assert_eq!(read(&message(0x8183, 0, b"")), Some(Answer::NoSuchName));
        assert_eq!(read(&message(0x8182, 0, b"")), Some(Answer::Failed(2)));
        assert_eq!(read(&message(0x8185, 0, b"")), Some(Answer::Failed(5)));
        assert_eq!(read(&message(0x8180, 2, &two[..20])), Some(Answer::Failed(0)), "cut off");
        assert_eq!(read(&message(0x8380, 2, &two[..20])), found(&["10.0.0.1"]), "cut off, and said so");
        assert_eq!(read(&message(0x8380, 0, b"")), Some(Answer::Failed(0)), "cut off before any");
        assert_eq!(read(&message(0x8180, 1, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x03\x0a\0\0")), Some(Answer::Failed(0)));
        let stranger = b"\x01y\0\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01";
        assert_eq!(read(&message(0x8180, 1, stranger)), Some(Answer::NoAddress), "of another name");
    }

    #[test]
    fn six_is_read() {
        let mut bytes =
            message(0x8180, 1, b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07");
        assert_eq!(read(&bytes), found(&["2001:db8::7"]));
        bytes[24] = 0x1c;
        assert_eq!(read(&bytes), None, "not what was asked");
        assert_eq!(answer(&bytes, 0x0102, b"\x03www\x01x\x03org\0", DnsQueryType::Aaaa), found(&["2001:db8::7"]));
    }

    #[test]
    fn aliases_are_followed() {
        // c.x.org (offset 39) is the target; its address stands first.
        let records =
            b"\x01c\xc0\x10\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x03\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x1b";
        assert_eq!(read(&message(0x8180, 2, records)), found(&["10.0.0.3"]));
        assert_eq!(read(&message(0x8180, 1, &records[18..])), Some(Answer::Failed(0)), "pointer to nothing");
        let alone = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01d\xc0\x10";
        assert_eq!(read(&message(0x8180, 1, alone)), Some(Answer::NoAddress), "alias of a name without address");
        let circle = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";
        assert_eq!(read(&message(0x8180, 1, circle)), Some(Answer::Failed(0)));
    }

    #[test]
    fn pointer_loops_end() {
        for owner in [&b"\xc0\x1b"[..], b"\xc0\x1c\xc0\x1b", b"\x01a\xc0\x1b", b"\xff\xff", b"\x80", b"\xc0"] {
            let records = [owner, b"\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01"].concat();
            assert_eq!(read(&message(0x8180, 1, &records)), Some(Answer::Failed(0)), "{owner:?}");
        }
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let good = message(0x8180, 1, b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x01");
        assert!(read(&good).is_some());
        for (at, value, why) in [
            (0, 9, "another id"),
            (2, 0x01, "a question"),
            (2, 0x90, "another operation"),
            (5, 0, "no question"),
            (5, 2, "two questions"),
            (13, b'v', "another name"),
            (24, 2, "another type"),
            (26, 3, "another class"),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(read(&bytes), None, "{why}");
        }
        for length in 0..27 {
            assert_eq!(read(&good[..length]), None, "{length} bytes");
        }
    }
}
