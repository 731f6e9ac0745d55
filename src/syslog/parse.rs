//! What senders write: datagrams of `/dev/log` and lines of `/dev/kmsg`. Pure, and every input has a reading.
//!
//! Time stamps, host names and MSGIDs of senders are passed over: the collector's clock and the machine's
//! name are true, theirs need not be. Nothing else of a message is lost: what fits no pattern is its text.

use std::borrow::Cow;

/// user.notice: what RFC 3164 (4.3.3) and the syslog(3) of every libc assume where nothing is said.
const DEFAULT_PRI: u8 = 13;
/// The highest PRI, local7.debug.
const MAX_PRI: u8 = 191;
/// RFC 5424: APP-NAME has 48 characters at most. A longer word before a colon is no tag but text.
const MAX_TAG: usize = 48;
const BOM: &[u8] = b"\xef\xbb\xbf";
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A message as its sender put it; nothing of it is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// 0-23.
    pub facility: u8,
    /// 0-7.
    pub severity: u8,
    /// Empty where there is none.
    pub tag: &'a [u8],
    /// The number in `tag[pid]:`.
    pub pid: Option<u32>,
    /// The rest, as raw as it came.
    pub text: &'a [u8],
}

/// One record of the kernel's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kmsg<'a> {
    /// Grows by one a record, so a gap tells how many were overwritten.
    pub sequence: u64,
    /// Microseconds since boot.
    pub micros: u64,
    /// The kernel's own have facility 0, which no writer of `/dev/kmsg` can give itself.
    pub message: Message<'a>,
}

/// Reads one datagram of `/dev/log`: RFC 5424, RFC 3164, or less.
pub fn datagram(raw: &[u8]) -> Message<'_> {
    // Python's handler ends its messages by NUL, others by a newline; neither says anything.
    let end = raw.iter().rposition(|b| !b"\0\n\r".contains(b)).map_or(0, |last| last + 1);
    let raw = raw.get(..end).unwrap_or_default();
    let (pri, rest) = pri(raw).unwrap_or((DEFAULT_PRI, raw));
    let (tag, pid, text) = rfc5424(rest).unwrap_or_else(|| rfc3164(rest));
    Message { facility: pri >> 3, severity: pri & 7, tag, pid, text }
}

/// Reads one record of `/dev/kmsg`: `pri,sequence,micros,flags[,more];text`, then lines ` KEY=value`.
///
/// The dictionary behind the text is left out: it names the device, and so does the text.
pub fn kmsg(raw: &[u8]) -> Option<Kmsg<'_>> {
    let line = raw.split(|&b| b == b'\n').next()?;
    let semicolon = line.iter().position(|&b| b == b';')?;
    let (prefix, text) = (line.get(..semicolon)?, line.get(semicolon + 1..)?);
    let mut numbers = prefix.split(|&b| b == b',').map(number);
    let (pri, sequence, micros) = (numbers.next()??, numbers.next()??, numbers.next()??);
    // The kernel keeps seven bits of facility for its writers; those that syslog does not know become user(1).
    let (facility, severity) = (u8::try_from(pri >> 3).ok().filter(|f| *f <= 23).unwrap_or(1), (pri & 7) as u8);
    let (tag, pid, text) = if facility == 0 { (b"kernel".as_slice(), None, text) } else { split_tag(text) };
    Some(Kmsg { sequence, micros, message: Message { facility, severity, tag, pid, text } })
}

/// Undoes the kernel's `\xNN`, so that the text is escaped once, and in one style for all senders.
pub fn unescape_kmsg(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { rest.get(4..).unwrap_or_default() } else { after };
    }
    Cow::Owned(plain)
}

/// `<PRI>`: one to three digits, no leading zero, 191 at most.
fn pri(raw: &[u8]) -> Option<(u8, &[u8])> {
    let digits = raw.strip_prefix(b"<")?;
    let end = digits.iter().take(4).position(|&b| b == b'>')?;
    let (digits, rest) = (digits.get(..end)?, digits.get(end + 1..)?);
    if digits.len() > 1 && digits.starts_with(b"0") {
        return None;
    }
    let pri = u8::try_from(number(digits)?).ok().filter(|pri| *pri <= MAX_PRI)?;
    Some((pri, rest))
}

/// Tag, pid and text behind `VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID`.
fn rfc5424(raw: &[u8]) -> Option<(&[u8], Option<u32>, &[u8])> {
    let (stamp, rest) = word(raw.strip_prefix(b"1 ")?)?;
    let dated = stamp.len() > 4 && stamp.iter().take(4).all(u8::is_ascii_digit) && stamp.get(4) == Some(&b'-');
    if stamp != b"-" && !dated {
        return None;
    }
    let (_host, rest) = word(rest)?;
    let (app, rest) = word(rest)?;
    let (pid, rest) = word(rest)?;
    let (_msgid, rest) = word(rest)?;
    let text = match rest {
        b"-" => b"",
        [b'-', b' ', text @ ..] => text.strip_prefix(BOM).unwrap_or(text),
        // Structured data of a sender stays in front of the text: as structured data it could pass for ours.
        [b'[', ..] => rest,
        _ => return None,
    };
    let app = if app == b"-" { b"" } else { app };
    Some((app, number(pid).and_then(|pid| u32::try_from(pid).ok()), text))
}

/// Tag, pid and text of everything else: `[STAMP [HOST]] tag[pid]: text`.
fn rfc3164(raw: &[u8]) -> (&[u8], Option<u32>, &[u8]) {
    let Some(rest) = after_stamp(raw) else { return split_tag(raw) };
    // Few put a host name into a local message (Rust's `syslog` by default). It is one only if a tag with a pid
    // follows: otherwise it may as well be the text's first word.
    if let Some((host, tagged)) = word(rest)
        && host.iter().all(|&b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        && let split @ (_, Some(_), _) = split_tag(tagged)
    {
        return split;
    }
    split_tag(rest)
}

/// What follows the time, if one is there: RFC 3164's, or what others write in its place.
fn after_stamp(raw: &[u8]) -> Option<&[u8]> {
    match raw.first()? {
        b'A'..=b'Z' => old_stamp(raw),
        // RFC 3339, as new C libraries and rsyslog write it.
        b'1'..=b'9' if raw.get(10) == Some(&b'T') => new_stamp(raw),
        // Cisco counts its messages, and has a mark for a clock that nobody set.
        b'0'..=b'9' | b'*' | b'.' => {
            let counted = raw.iter().position(|byte| !byte.is_ascii_digit()).and_then(|end| raw.split_at_checked(end));
            let rest = counted
                .and_then(|(digits, rest)| if digits.is_empty() { Some(raw) } else { rest.strip_prefix(b": ") })?;
            old_stamp(rest.strip_prefix(b"*").or_else(|| rest.strip_prefix(b".")).unwrap_or(rest))
        }
        _ => None,
    }
}

/// `Mmm dd [yyyy] hh:mm:ss[.fraction][ ZONE:][:] `; a day below ten is padded with a blank, a zero, or not at all.
fn old_stamp(raw: &[u8]) -> Option<&[u8]> {
    let (month, rest) = raw.split_at_checked(3)?;
    let rest = rest.strip_prefix(b" ").filter(|_| MONTHS.contains(&month))?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let rest = shape(rest, b"00 ").or_else(|| shape(rest, b"0 "))?;
    let rest = shape(rest, b"0000 ").unwrap_or(rest);
    let rest = after_fraction(shape(rest, b"00:00:00")?);
    let rest = after_zone(rest).unwrap_or(rest);
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    rest.strip_prefix(b" ")
}

/// `yyyy-mm-ddThh:mm:ss[.fraction][Z|+hh:mm|+hhmm] `.
fn new_stamp(raw: &[u8]) -> Option<&[u8]> {
    let rest = after_fraction(shape(raw, b"0000-00-00T00:00:00")?);
    let rest = match rest.first()? {
        b'Z' => rest.get(1..)?,
        b'+' | b'-' => rest.get(1..).and_then(|zone| shape(zone, b"00:00").or_else(|| shape(zone, b"0000")))?,
        _ => rest,
    };
    rest.strip_prefix(b" ")
}

/// What follows something of this shape, in which a 0 stands for any digit.
fn shape<'a>(raw: &'a [u8], shape: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = raw.split_at_checked(shape.len())?;
    let fits = |(byte, want): (&u8, &u8)| if *want == b'0' { byte.is_ascii_digit() } else { byte == want };
    head.iter().zip(shape).all(fits).then_some(rest)
}

fn after_fraction(raw: &[u8]) -> &[u8] {
    let Some(digits) = raw.strip_prefix(b".") else { return raw };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 { raw } else { digits.get(end..).unwrap_or_default() }
}

/// ` UTC:` is a zone; ` UTC ` may be a text's first word.
fn after_zone(raw: &[u8]) -> Option<&[u8]> {
    let rest = raw.strip_prefix(b" ")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_uppercase())?;
    let zone = rest.get(end..).filter(|rest| (2..=5).contains(&end) && rest.starts_with(b": "))?;
    Some(zone)
}

/// Splits `tag: text` and `tag[pid]: text`.
fn split_tag(raw: &[u8]) -> (&[u8], Option<u32>, &[u8]) {
    let none = (b"".as_slice(), None, raw);
    let (head, text) = word(raw).unwrap_or((raw, b""));
    let Some(head) = head.strip_suffix(b":") else { return none };
    let (tag, pid) = match head.iter().position(|&b| b == b'[').map(|at| head.split_at(at)) {
        Some((tag, [b'[', pid @ .., b']'])) => match number(pid).map(u32::try_from) {
            Some(Ok(pid)) => (tag, Some(pid)),
            _ => return none,
        },
        Some(_) => return none,
        None => (head, None),
    };
    if tag.len() > MAX_TAG || !tag.iter().all(u8::is_ascii_graphic) {
        return none;
    }
    (tag, pid, text)
}

/// What stands before the first space, and what behind it.
fn word(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = raw.iter().position(|&b| b == b' ')?;
    Some((raw.get(..space)?, raw.get(space + 1..)?))
}

fn number(digits: &[u8]) -> Option<u64> {
    // `parse` alone would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &[u8]) -> (u8, u8, &str, Option<u32>, &[u8]) {
        let m = datagram(raw);
        (m.facility, m.severity, std::str::from_utf8(m.tag).unwrap(), m.pid, m.text)
    }

    #[test]
    fn datagrams_of_known_senders() {
        let cases: [(&[u8], _); 13] = [
            // glibc and musl
            (b"<38>Nov  2 09:00:00 sshd[812]: Accepted", (4, 6, "sshd", Some(812), b"Accepted".as_slice())),
            (b"<13>Nov 22 10:00:00 su: x: y", (1, 5, "su", None, b"x: y")),
            (b"<13>Nov 22 10:00:00 : no name", (1, 5, "", None, b"no name")),
            (b"<13>Nov 22 10:00:00 vm-1.site app[7]: x", (1, 5, "app", Some(7), b"x")),
            (b"<13>Nov 22 10:00:00 see su: x", (1, 5, "", None, b"see su: x")),
            // Python
            (b"<14>hello: there\0", (1, 6, "hello", None, b"there")),
            (b"<14>plain words\n", (1, 6, "", None, b"plain words")),
            // no PRI
            (b"cron[7]: tick", (1, 5, "cron", Some(7), b"tick")),
            // RFC 5424
            (b"<165>1 2026-11-22T10:00:00Z host app 42 ID1 - text", (20, 5, "app", Some(42), b"text")),
            (b"<165>1 - - - - - - \xef\xbb\xbftext", (20, 5, "", None, b"text")),
            (b"<165>1 - - app - - -", (20, 5, "app", None, b"")),
            (
                b"<165>1 - h app x - [ctxinit@32473 uid=\"0\"] text",
                (20, 5, "app", None, b"[ctxinit@32473 uid=\"0\"] text"),
            ),
            (b"", (1, 5, "", None, b"")),
        ];
        for (raw, want) in cases {
            assert_eq!(read(raw), want, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn times_of_all_kinds_are_passed_over() {
        let stamps = [
            "Nov 22 10:00:00 ",
            "Nov  2 10:00:00 ",
            "Nov 02 10:00:00 ",
            "Nov 2 10:00:00 ",
            "Nov 22 2026 10:00:00 ",
            "Nov 22 2026 10:00:00: ",
            "Nov 22 10:00:00.123 ",
            "*Nov 22 10:00:00.123: ",
            ".Nov  2 10:00:00.123 UTC: ",
            "29: *Nov 22 10:00:00.123 CEST: ",
            "000029: Nov 22 2026 10:00:00: ",
            "2026-11-22T10:00:00Z ",
            "2026-11-22T10:00:00.123456+01:00 ",
            "2026-11-22T10:00:00-0100 ",
            "2026-11-22T10:00:00 ",
            "",
        ];
        for stamp in stamps {
            for (tagged, tag, pid, text) in [
                ("app[7]: x y", "app", Some(7), "x y"),
                ("%SYS-5-CONFIG_I: x", "%SYS-5-CONFIG_I", None, "x"),
                ("no tag here", "", None, "no tag here"),
            ] {
                let raw = format!("<13>{stamp}{tagged}");
                assert_eq!(read(raw.as_bytes()), (1, 5, tag, pid, text.as_bytes()), "{raw}");
            }
        }
    }

    #[test]
    fn what_is_nearly_a_time_is_text() {
        for text in [
            "Nov 222 10:00:00 x",
            "Nov 22 10:00 x",
            "Nov 22 10:00:00x",
            "Nov 22 10:00:00. x",
            "nov 22 10:00:00 x",
            "29 Nov 22 10:00:00 x",
            "29: x",
            "*x",
            "2026-11-22T10:00:00+1 x",
            "2026-11-22 10:00:00 x",
            "2026-11-22T10:00:00",
        ] {
            let got = datagram(text.as_bytes());
            assert!(got.tag.is_empty() || text == "29: x", "{text}");
            assert!(
                text.ends_with(std::str::from_utf8(got.text).unwrap())
                    && (got.text.len() == text.len() || text == "29: x")
            );
        }
        // A word that may be a zone is one only where Cisco has it.
        assert_eq!(datagram(b"<13>Nov 22 10:00:00 UTC is the zone").text, b"UTC is the zone");
    }

    #[test]
    fn what_fits_no_pattern_is_text() {
        let long = [b"<13>".as_slice(), &[b'a'; 49], b": x"].concat();
        let cases: [&[u8]; 13] = [
            b"<192>x",
            b"<013>x",
            b"<+1>x",
            b"<1",
            b"<1234>x",
            b"<>x",
            b"http://host x",
            b"t[x]: y",
            b"t[4294967296]: y",
            b"t[: y",
            b"a\x01b: y",
            b"1 2026-11-22 too few",
            b"1 - - - - - broken",
        ];
        for raw in cases {
            assert_eq!(read(raw), (1, 5, "", None, raw), "{}", raw.escape_ascii());
        }
        assert_eq!(datagram(&long).text, &long[4..]);
        assert_eq!(datagram(b"<13>Nov 22 1x:00:00 a b").text, b"Nov 22 1x:00:00 a b");
        assert_eq!(datagram(b"<13>Nox 22 10:00:00 a b").text, b"Nox 22 10:00:00 a b");
    }

    #[test]
    fn a_second_line_stays_in_the_text() {
        let m = datagram(b"<14>a: one\n<0>1 - - kernel - - - two\n\0\n");
        assert_eq!((m.severity, m.text), (6, b"one\n<0>1 - - kernel - - - two".as_slice()));
    }

    #[test]
    fn kernel_records() {
        let line = kmsg(b"6,339,5140900,-;NET: Registered; 10\n SUBSYSTEM=net\n").unwrap();
        assert_eq!((line.sequence, line.micros), (339, 5_140_900));
        let text = b"NET: Registered; 10".as_slice();
        assert_eq!(line.message, Message { facility: 0, severity: 6, tag: b"kernel", pid: None, text });

        let line = kmsg(b"30,7,9,-,caller=T1;ctxinit[1]: up").unwrap().message;
        assert_eq!(line, Message { facility: 3, severity: 6, tag: b"ctxinit", pid: Some(1), text: b"up" });
        assert_eq!(kmsg(b"1023,7,9,-;x").unwrap().message.facility, 1);
        for bad in [b"".as_slice(), b"6,1,2,-", b"6;x", b"6,a,2,-;x", b"-6,1,2,-;x", b";", b"\n6,1,2,-;x"] {
            assert_eq!(kmsg(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn kernel_escapes_are_undone() {
        assert_eq!(unescape_kmsg(b"a\\x0ab\\x5cx0a \\xc3\\xa9").as_ref(), b"a\nb\\x0a \xc3\xa9");
        assert_eq!(unescape_kmsg(b"\\x\\x1\\xg0\\").as_ref(), b"\\x\\x1\\xg0\\");
    }
}
