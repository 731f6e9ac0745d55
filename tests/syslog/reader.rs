//! What a server reads, by an independent reader of RFC 5424.

use std::io::{BufReader, Read};
use std::time::SystemTime;

#[derive(Debug, PartialEq)]
pub struct Seen {
    pub pri: u8,
    pub stamp: SystemTime,
    pub host: String,
    pub app: String,
    pub procid: String,
    pub msgid: String,
    /// But for `timeQuality`.
    pub data: String,
    /// What that says: whether the clock goes by a reference.
    pub synced: bool,
    pub text: String,
}

pub fn parse(line: &str) -> Seen {
    let mut words = line.splitn(7, ' ');
    let mut next = || words.next().unwrap_or_else(|| panic!("{line:?}")).to_owned();
    let (pri, stamp, host, app, procid, msgid, rest) = (next(), next(), next(), next(), next(), next(), next());
    let (data, text) = rest.split_once("] ").unwrap();
    let (before, rest) = data.split_once("[timeQuality tzKnown=\"1\" isSynced=\"").unwrap();
    let (synced, after) = rest.split_once("\"]").unwrap();
    Seen {
        pri: pri.strip_prefix('<').unwrap().strip_suffix(">1").unwrap().parse().unwrap(),
        stamp: humantime::parse_rfc3339(&stamp).unwrap(),
        host,
        app,
        procid,
        msgid,
        data: format!("{before}{after}]"),
        synced: synced == "1",
        text: text.to_owned(),
    }
}

/// The next octet-counted frame; `None` at the end of the connection, be it in the middle of a frame.
pub fn frame(stream: &mut impl Read) -> Option<Seen> {
    let mut length = 0;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        match byte[0] {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit.checked_sub(b'0').filter(|d| *d < 10).unwrap()),
        }
    }
    let mut record = vec![0; length];
    stream.read_exact(&mut record).ok()?;
    Some(parse(&String::from_utf8(record).unwrap()))
}

pub fn frames(stream: impl Read, count: usize) -> Vec<Seen> {
    let mut stream = BufReader::new(stream);
    (0..count).map_while(|_| frame(&mut stream)).collect()
}
pub fn texts(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|record| record.text.as_str()).collect()
}
