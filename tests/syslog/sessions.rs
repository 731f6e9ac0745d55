//! What a server has read of each connection, and whether that is all that was promised.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpStream;

use super::reader::Seen;

/// The number of a record.
pub fn number(record: &Seen) -> usize {
    let (_, rest) = record.data.split_once("[meta sequenceId=\"").unwrap();
    rest.split('"').next().unwrap().parse().unwrap()
}

/// None of the numbers from 1 to this one is missing, each connection has them in order and goes on no later than the one
/// before ended, and what came twice is the same both times. Returns how many did.
pub fn check(sessions: &[Vec<Seen>], last: usize) -> usize {
    let mut all: BTreeMap<usize, &Seen> = BTreeMap::new();
    let mut again = 0;
    for session in sessions {
        let numbers: Vec<_> = session.iter().map(number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap within a connection");
        let highest = all.keys().next_back().copied().unwrap_or(0);
        assert!(numbers.first().is_none_or(|first| *first <= highest + 1), "{highest} and then {:?}", numbers.first());
        for (number, record) in numbers.into_iter().zip(session) {
            if let Some(before) = all.insert(number, record) {
                assert_eq!(before, record);
                again += 1;
            }
        }
    }
    assert!(all.into_keys().eq(1..=last));
    again
}

/// Bytes of a connection until the end, or until so many reads of so many bytes.
pub fn read(stream: &mut TcpStream, reads: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; size];
    for _ in 0..reads {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    bytes
}
