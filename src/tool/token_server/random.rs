//! Names that cannot be guessed.

use std::fs::File;
use std::io::{self, Read};

/// Bytes that nobody can guess: a pool's name and a lock's UUID are all the protection that they have.
///
/// # Errors
/// Those of `/dev/urandom`.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A UUID that begins with its time (RFC 9562, version 7), and cannot be guessed: 74 of its bits are random.
///
/// A lock's start so needs no column, and new locks stand together in the index.
pub(super) fn timed_uuid(unix: i64, mut bytes: [u8; 16]) -> String {
    let millis = u64::try_from(unix).unwrap_or(0).saturating_mul(1000);
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = bytes[6] & 0x0f | 0x70;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The Unix second of such a UUID; none of any other, as an older server's locks are random.
pub(super) fn time_of(uuid: &str) -> Option<i64> {
    if uuid.len() != 36 || uuid.as_bytes()[14] != b'7' {
        return None;
    }
    let millis = i64::from_str_radix(&format!("{}{}", uuid.get(..8)?, uuid.get(9..13)?), 16).ok()?;
    Some(millis / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_say_when_they_were_made() {
        let uuid = timed_uuid(1_700_000_000, [0xff; 16]);
        assert_eq!(uuid, "018bcfe5-6800-7fff-bfff-ffffffffffff");
        assert_eq!(time_of(&uuid), Some(1_700_000_000));
        assert_eq!(timed_uuid(0, [0; 16]), "00000000-0000-7000-8000-000000000000");
        assert_eq!(time_of("6ccd780c-baba-4026-9564-5b8c656024db"), None);
        assert_eq!(time_of("6ccd780c-baba-7026-9564"), None);
        assert_eq!(time_of("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}7xxxxxxxxxxxxxxxxxxxxx"), None);
        assert_ne!(random::<16>().unwrap(), random::<16>().unwrap());
    }
}
