//! Attributes of netlink messages: length, type, value, and padding to 4 bytes (netlink(7)).
//!
//! neli has types for them, whose every nesting may fail for what cannot happen here: a rule has five levels.

/// Numbers of nf_tables are big-endian, whatever the machine is.
#[derive(Debug, Default)]
pub struct Attributes(Vec<u8>);

/// NLA_F_NESTED and the two flag bits' complement NLA_TYPE_MASK.
const NESTED: u16 = 0x8000;
const TYPE: u16 = 0x3fff;
const HEAD: usize = 4;

/// For what goes into another attribute.
pub fn nested() -> Attributes {
    Attributes::default()
}

impl Attributes {
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // The longest are the expressions of one rule, some hundred bytes.
        let length = (HEAD + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(HEAD), 0);
        self
    }

    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// The kernel takes names with a NUL behind them.
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub fn nest(self, kind: u16, value: Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The value of the first attribute of this type; `None` also where the bytes are no attributes.
pub fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (head, _) = bytes.split_first_chunk::<HEAD>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE;
        let value = bytes.get(HEAD..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(HEAD)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found() {
        let inner = nested().number(1, 7).text(2, "abcd");
        let bytes = Attributes::default().bytes(9, &[1]).nest(3, inner).into_bytes();
        assert_eq!(bytes.len(), 8 + 4 + 8 + 12);
        assert_eq!(bytes[..8], [5, 0, 9, 0, 1, 0, 0, 0]);
        let inner = find(&bytes, 3).unwrap();
        assert_eq!(find(inner, 1), Some(&[0, 0, 0, 7][..]));
        assert_eq!(find(inner, 2), Some(&b"abcd\0"[..]));
        assert_eq!(find(&bytes, 4), None);
    }

    #[test]
    fn what_is_no_attribute_is_nothing() {
        for bytes in [&[][..], &[4], &[0; 4], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4], &[255; 8]] {
            assert_eq!(find(bytes, 1), None, "{bytes:?}");
        }
    }
}
