//! The option field of a DHCP message: taken apart, and the values of the options we use. Pure.

use std::net::Ipv4Addr;

use super::Route;

/// The options of a message in their order.
pub struct Options<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Options<'a> {
    /// `None` if an option is longer than its field.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut options = Self(Vec::new());
        options.field(bytes.get(240..)?)?;
        // Option 52: the unused header fields `file` and `sname` hold more options, in this order (RFC 3396 5).
        let overload = options.get(52).map_or(0, |data| data.first().copied().unwrap_or(0));
        if overload & 1 != 0 {
            options.field(bytes.get(108..236)?)?;
        }
        if overload & 2 != 0 {
            options.field(bytes.get(44..108)?)?;
        }
        Some(options)
    }

    fn field(&mut self, mut bytes: &'a [u8]) -> Option<()> {
        while let Some((&code, rest)) = bytes.split_first() {
            match code {
                0 => bytes = rest,
                255 => break,
                _ => {
                    let (&length, rest) = rest.split_first()?;
                    let (data, rest) = rest.split_at_checked(usize::from(length))?;
                    self.0.push((code, data));
                    bytes = rest;
                }
            }
        }
        Some(())
    }

    /// The value; the parts of a long one are put together (RFC 3396).
    pub fn get(&self, code: u8) -> Option<Vec<u8>> {
        let mut parts = self.0.iter().filter(|(c, _)| *c == code).map(|(_, data)| *data).peekable();
        parts.peek()?;
        Some(parts.flatten().copied().collect())
    }

    /// A four-byte number.
    pub fn number(&self, code: u8) -> Option<u32> {
        self.get(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// One address, whatever it is.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.number(code).map(Ipv4Addr::from_bits)
    }
}

/// Whether a machine can have this address.
pub fn is_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets(), [0 | 127 | 224..=255, ..])
}

/// A list of addresses that machines can have.
pub fn addresses(data: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let (chunks, rest) = data.as_chunks::<4>();
    let all: Vec<_> = chunks.iter().map(|octets| Ipv4Addr::from(*octets)).collect();
    (rest.is_empty() && !all.is_empty() && all.iter().all(|a| is_host(*a))).then_some(all)
}

/// RFC 3442: prefix length, that many bits in whole octets, gateway; a gateway of 0.0.0.0 means "on this link".
pub fn classless_routes(mut data: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = data.split_first() {
        let (given, rest) = rest.split_at_checked(usize::from(prefix).div_ceil(8))?;
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        let mut octets = [0; 4];
        octets.get_mut(..given.len())?.copy_from_slice(given);
        // Bits behind the prefix mean nothing, and the kernel refuses a route that has them.
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let destination = Ipv4Addr::from_bits(u32::from_be_bytes(octets) & mask);
        let gateway = Some(Ipv4Addr::from(*gateway)).filter(|gateway| !gateway.is_unspecified());
        if !gateway.is_none_or(is_host) {
            return None;
        }
        routes.push(Route { destination, prefix, gateway });
        data = rest;
    }
    (!routes.is_empty()).then_some(routes)
}

/// The text of an option.
pub fn text_of(data: &[u8]) -> Option<String> {
    // RFC 2132 2: a receiver must be ready for a NUL at the end.
    let end = data.iter().rposition(|byte| *byte != 0)?;
    std::str::from_utf8(data.get(..=end)?).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes.extend(options);
        bytes
    }

    #[test]
    fn long_options_are_put_together() {
        let bytes = message(&[6, 2, 10, 0, 0, 0, 12, 1, b'a', 6, 2, 0, 53, 255, 6, 1, 9]);
        let options = Options::read(&bytes).unwrap();
        assert_eq!(options.get(6), Some(vec![10, 0, 0, 53]), "and nothing counts behind the end");
        assert_eq!(options.get(3), None);
        assert_eq!((options.number(12), options.address(6)), (None, Some([10, 0, 0, 53].into())));
    }

    #[test]
    fn header_fields_may_hold_options() {
        for (overload, expected) in [(0, None), (1, Some(vec![1])), (2, Some(vec![2])), (3, Some(vec![1, 2]))] {
            let mut bytes = message(&[52, 1, overload, 255]);
            bytes[108..112].copy_from_slice(&[6, 1, 1, 255]);
            bytes[44..48].copy_from_slice(&[6, 1, 2, 255]);
            assert_eq!(Options::read(&bytes).unwrap().get(6), expected, "{overload}");
        }
        let mut bytes = message(&[52, 1, 2, 255]);
        bytes[44..46].copy_from_slice(&[6, 63]);
        assert!(Options::read(&bytes).is_none(), "one option longer than sname");
    }

    #[test]
    fn truncated_ones_are_seen() {
        assert!(Options::read(&message(&[])).is_some());
        assert!(Options::read(&message(&[0, 0])).is_some());
        assert!(Options::read(&message(&[6])).is_none());
        assert!(Options::read(&message(&[6, 1])).is_none());
        assert!(Options::read(&[0; 239]).is_none());
    }

    #[test]
    fn routes_are_read() {
        let route = |destination: [u8; 4], prefix, gateway: Option<[u8; 4]>| Route {
            destination: destination.into(),
            prefix,
            gateway: gateway.map(Ipv4Addr::from),
        };
        for (data, expected) in [
            (&[0, 10, 0, 0, 1][..], Some(vec![route([0; 4], 0, Some([10, 0, 0, 1]))])),
            (
                &[24, 192, 168, 7, 10, 0, 0, 2, 32, 169, 254, 169, 254, 0, 0, 0, 0],
                Some(vec![route([192, 168, 7, 0], 24, Some([10, 0, 0, 2])), route([169, 254, 169, 254], 32, None)]),
            ),
            (&[12, 172, 31, 10, 0, 0, 1], Some(vec![route([172, 16, 0, 0], 12, Some([10, 0, 0, 1]))])),
            (&[], None),
            (&[33, 1, 2, 3, 4, 5, 10, 0, 0, 1], None),
            (&[255, 1, 2, 3, 4, 5, 10, 0, 0, 1], None),
            (&[24, 192, 168, 7, 10, 0, 0], None),
            (&[24, 192], None),
            (&[0, 127, 0, 0, 1], None),
            (&[0, 10, 0, 0, 1, 8], None),
        ] {
            assert_eq!(classless_routes(data), expected, "{data:?}");
        }
    }

    #[test]
    fn texts_may_end_in_nul() {
        for (data, expected) in [
            (&b"a.b"[..], Some("a.b")),
            (b"a\0\0", Some("a")),
            (b"", None),
            (b"\0", None),
            (b"\xff", None),
            (b"a\0b", Some("a\0b")),
        ] {
            assert_eq!(text_of(data).as_deref(), expected, "{data:?}");
        }
    }
}
