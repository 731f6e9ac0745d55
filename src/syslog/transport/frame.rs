//! Records as a server takes them: cut out of a stream, and in an old server's words.

use std::io::Write;
use std::time::UNIX_EPOCH;

use crate::context::syslog::{Format, Framing};
use crate::sys::local_time::{self, Local};
use crate::syslog::store::Stored;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Appends a record. Without a framing, as a datagram.
pub fn push(out: &mut Vec<u8>, record: &Stored<'_>, host: &str, format: Format, framing: Option<Framing>) {
    let (head, tail) = record.bytes.split_at_checked(record.host_at.into()).unwrap_or_default();
    match old(head, tail).filter(|_| format == Format::Rfc3164) {
        Some(Old { pri, secs, app, pid, rest }) => {
            let stamp = stamp(&local_time::at(secs));
            let [open, pid, close]: [&[u8]; 3] = if pid == b"-" { [b"", b"", b""] } else { [b"[", pid, b"]"] };
            framed(out, framing, &[pri, stamp.as_bytes(), host.as_bytes(), b" ", app, open, pid, close, b": ", rest]);
        }
        None => framed(out, framing, &[head, host.as_bytes(), tail]),
    }
}

fn framed(out: &mut Vec<u8>, framing: Option<Framing>, pieces: &[&[u8]]) {
    if framing == Some(Framing::Octets) {
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{length} ");
    }
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    if framing == Some(Framing::Lf) {
        out.push(b'\n');
    }
}

/// RFC 3164, 4.1.2: no year, no zone, the day padded with a blank.
fn stamp(time: &Local) -> String {
    let Local { month, day, hour, minute, second } = time;
    let month = MONTHS.get(usize::from(*month)).unwrap_or(&"Jan");
    format!("{month} {day:2} {hour:02}:{minute:02}:{second:02} ")
}

/// Of one of our own records, what RFC 3164 has a place for.
struct Old<'a> {
    pri: &'a [u8],
    secs: i64,
    app: &'a [u8],
    pid: &'a [u8],
    /// An audit record's MSGID, the structured data and the text: all of it is text there. The data stand first, so no
    /// text can pass for them.
    rest: &'a [u8],
}

/// `<PRI>1 TIME ` and ` APP-NAME PROCID MSGID DATA TEXT`.
fn old<'a>(head: &'a [u8], tail: &'a [u8]) -> Option<Old<'a>> {
    let pri_end = head.iter().position(|byte| *byte == b'>')? + 1;
    let (pri, time) = head.split_at_checked(pri_end)?;
    let time = std::str::from_utf8(time.strip_prefix(b"1 ")?).ok()?.trim_end();
    let since = humantime::parse_rfc3339(time).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let mut words = tail.strip_prefix(b" ")?.splitn(3, |byte| *byte == b' ');
    let (app, pid, rest) = (words.next()?, words.next()?, words.next()?);
    Some(Old { pri, secs: since.as_secs() as i64, app, pid, rest: rest.strip_prefix(b"- ").unwrap_or(rest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"<14>1 2026-11-02T10:00:05.000001Z ";

    fn written(tail: &[u8], format: Format, framing: Option<Framing>) -> String {
        let bytes = [HEAD, tail].concat();
        let mut out = Vec::new();
        push(&mut out, &Stored { number: 1, host_at: HEAD.len() as u8, bytes: &bytes }, "vm1", format, framing);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_frame_counts_its_octets_or_ends_its_line() {
        let tail = " app 7 - [meta sequenceId=\"1\"] caf\u{e9}".as_bytes();
        let record = "<14>1 2026-11-02T10:00:05.000001Z vm1 app 7 - [meta sequenceId=\"1\"] caf\u{e9}";
        assert_eq!(written(tail, Format::Rfc5424, None), record);
        assert_eq!(written(tail, Format::Rfc5424, Some(Framing::Lf)), format!("{record}\n"));
        assert_eq!(written(tail, Format::Rfc5424, Some(Framing::Octets)), format!("{} {record}", record.len()));
    }

    #[test]
    fn an_old_server_gets_its_own_form() {
        let hour = local_time::at(1_793_613_605).hour;
        let day = local_time::at(1_793_613_605).day;
        for (tail, want) in [
            (" app 7 - [meta sequenceId=\"1\"] hi", "app[7]: [meta sequenceId=\"1\"] hi"),
            (" app - - [meta sequenceId=\"1\"] - hi", "app: [meta sequenceId=\"1\"] - hi"),
            (" ctxinit 1 job-end [a x=\"1\"] hi", "ctxinit[1]: job-end [a x=\"1\"] hi"),
        ] {
            let want = format!("<14>Nov {day:2} {hour:02}:00:05 vm1 {want}");
            assert_eq!(written(tail.as_bytes(), Format::Rfc3164, None), want);
        }
        let framed = written(b" a - - [m] x", Format::Rfc3164, Some(Framing::Octets));
        let (length, record) = framed.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), record.len());
    }
}
