//! Records as the site gets them: RFC 5424, one line each, whatever the sender wrote.
//!
//! Only what the kernel or the agent says stands in the header and the structured data; a sender has the
//! APP-NAME, in a narrow alphabet, and the text, in which nothing is left that could end a line.

use std::borrow::Cow;
use std::io::Write;
use std::time::{Duration, SystemTime};

use super::parse::Message;
use super::store::Entry;

/// Longest record in bytes: RFC 5425 wants every receiver to take 8192, and more is rsyslog's to cut by default.
pub const LIMIT: usize = 8192;
/// RFC 5424. The name is filled in when a record is sent; its place is kept free.
const MAX_HOST: usize = 255;
const MAX_APP: usize = 48;
/// A job's name comes from a pool; the agent's own are far shorter.
const MAX_JOB: usize = 64;
/// A UUID; where there is none, the boot id stands for it.
const MAX_VM: usize = 36;
/// Of the boot id as much as tells one life of a machine from the others.
const MAX_BOOT: usize = 8;
/// RFC 5424's longest MSGID.
const MAX_MSGID: usize = 32;
/// Of one value of an audit record, bytes: a person's name is never cut, a command may be.
const MAX_VALUE: usize = 1280;
/// Where the audit record's values end at the latest; the text still has room then.
const MAX_DATA: usize = 6000;
/// Room for ` [cut, 18446744073709551615 bytes]`.
const MAX_MARK: usize = 34;
/// The last second of year 9999: RFC 3339 has four digits.
const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);
/// RFC 5424, 7.3.1: counts from 1 to this, then from 1 again.
const MAX_SEQUENCE: u64 = 2_147_483_647;
const USER: u8 = 1;
/// RFC 5424's "log audit".
pub const AUDIT: u8 = 13;
/// What a site's alarms listen to: kern, auth, authpriv, log audit.
const RESERVED: [u8; 4] = [0, 4, 10, AUDIT];

/// The kernel's stamp on a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Effective when the message was sent.
    pub uid: u32,
    /// 0 for a process that this pid namespace does not show.
    pub pid: u32,
}

/// One record on its way into the queue.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When it was collected.
    pub time: SystemTime,
    /// 0-23.
    pub facility: u8,
    /// 0-7.
    pub severity: u8,
    /// The facility that the sender had no right to.
    pub claimed: Option<u8>,
    /// APP-NAME; empty if unknown.
    pub app: &'a [u8],
    /// PROCID.
    pub pid: Option<u32>,
    /// Where the kernel told.
    pub sender: Option<Sender>,
    /// Where the agent told.
    pub job: Option<&'a str>,
    /// MSGID and facts of an audit record. Only the agent makes them: no text of anybody's is ever read for them.
    pub audit: Option<Audit<'a>>,
    /// Raw.
    pub text: Cow<'a, [u8]>,
    /// The message's whole length in bytes, where `text` is only its beginning.
    pub cut: Option<usize>,
}

/// What makes a record one that a site can go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit<'a> {
    /// MSGID.
    pub id: &'a str,
    /// Name and value; names are ours, values may be anybody's.
    pub data: &'a [(String, String)],
}

impl<'a> Record<'a> {
    /// A message of the kernel or of ourselves, taken at its word.
    pub fn trusted(message: Message<'a>, time: SystemTime) -> Self {
        let Message { facility, severity, tag: app, pid, text } = message;
        let text = Cow::Borrowed(text);
        Self {
            time,
            facility,
            severity,
            claimed: None,
            app,
            pid,
            sender: None,
            job: None,
            audit: None,
            text,
            cut: None,
        }
    }

    /// A message of `/dev/log` with the kernel's word on who sent it; whoever is not known to be root is not.
    pub fn from_sender(message: Message<'a>, sender: Option<Sender>, time: SystemTime) -> Self {
        let mut record = Self::trusted(message, time);
        if RESERVED.contains(&record.facility) && sender.is_none_or(|sender| sender.uid != 0) {
            record.claimed = Some(record.facility);
            record.facility = USER;
        }
        record.sender = sender;
        record.pid = sender.map(|sender| sender.pid).filter(|pid| *pid != 0);
        record
    }
}

/// The machine's own parameters, which every record has.
pub fn origin(vm: &str, boot: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_param(&mut out, "vm", vm, MAX_VM);
    push_param(&mut out, "boot", boot, MAX_BOOT);
    out
}

/// Writes a record down; `scratch` spares the growing of a new buffer for each. `origin` is as [`origin`] has it.
pub fn render<'a>(record: &Record<'_>, origin: &[u8], number: u64, scratch: &'a mut Vec<u8>) -> Entry<'a> {
    let out = scratch;
    out.clear();
    // Writing to a Vec cannot fail, and the time is in the range that humantime formats.
    let pri = u32::from(record.facility.min(23)) * 8 + u32::from(record.severity.min(7));
    let time = record.time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST_SECOND);
    let _ = write!(out, "<{pri}>1 {} ", humantime::format_rfc3339_micros(time));
    let host_at = out.len() as u8;
    out.push(b' ');
    push_name(out, record.app, MAX_APP);
    let _ = match record.pid {
        Some(pid) => write!(out, " {pid} "),
        None => write!(out, " - "),
    };
    push_name(out, record.audit.map_or(b"", |audit| audit.id.as_bytes()), MAX_MSGID);
    out.push(b' ');
    push_data(out, record, origin, number);
    out.push(b' ');
    push_text(out, &record.text, record.cut, LIMIT - MAX_HOST);
    let (severity, audit) = (record.severity.min(7), record.audit.is_some());
    Entry { severity, audit, host_at, bytes: out }
}

/// A host name fit for the header, `-` if there is none.
pub fn host_name(name: &str) -> String {
    let mut out = Vec::with_capacity(name.len().max(1));
    push_name(&mut out, name.as_bytes(), MAX_HOST);
    out.into_iter().map(char::from).collect()
}

fn push_name(out: &mut Vec<u8>, name: &[u8], max: usize) {
    if name.is_empty() {
        out.push(b'-');
    }
    out.extend(name.iter().take(max).map(|b| if b.is_ascii_graphic() { *b } else { b'_' }));
}

/// Our element and `meta`. 32473 is the enterprise number for examples (RFC 5612): the project has none of its own.
fn push_data(out: &mut Vec<u8>, record: &Record<'_>, origin: &[u8], number: u64) {
    if !origin.is_empty() || record.sender.is_some() || record.job.is_some() {
        out.extend_from_slice(b"[ctxinit@32473");
        out.extend_from_slice(origin);
        if let Some(Sender { uid, pid }) = record.sender {
            let _ = write!(out, " uid=\"{uid}\" pid=\"{pid}\"");
        }
        if let Some(facility) = record.claimed {
            let _ = write!(out, " claimed=\"{facility}\"");
        }
        if let Some(job) = record.job {
            push_param(out, "job", job, MAX_JOB);
        }
        out.push(b']');
    }
    if let Some(Audit { data, .. }) = record.audit {
        out.extend_from_slice(b"[audit@32473");
        for (name, value) in data {
            // Escaped, a value takes four times its length at most.
            let room = MAX_DATA.saturating_sub(out.len()) / 4;
            push_param(out, name, value, MAX_VALUE.min(room));
        }
        out.push(b']');
    }
    let _ = write!(out, "[meta sequenceId=\"{}\"]", (number.max(1) - 1) % MAX_SEQUENCE + 1);
}

/// ` name="value"`, the value at most so many bytes of it. RFC 5424, 6.3.3: three characters are escaped there.
fn push_param(out: &mut Vec<u8>, name: &str, value: &str, most: usize) {
    let _ = write!(out, " {name}=\"");
    let kept = value.char_indices().take_while(|(at, c)| at + c.len_utf8() <= most);
    for (_, c) in kept {
        match c {
            '"' | '\\' | ']' => out.extend_from_slice(&[b'\\', c as u8]),
            c if !dangerous(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_octal(out, byte)),
        }
    }
    out.push(b'"');
}

/// Appends the text, escaped, as far as `end`.
///
/// No byte order mark, though RFC 5424 asks for one before UTF-8: rsyslog keeps it as three bytes of the
/// message and sends none itself, so files would be full of it and searches for a text's beginning would fail.
///
/// Control characters and bytes that are no UTF-8 become `#ooo` in octal. That is how rsyslog would write them,
/// so a site sees one style; with backslashes, the paths and JSON in the text would have to be doubled.
fn push_text(out: &mut Vec<u8>, text: &[u8], whole: Option<usize>, end: usize) {
    // Nearly every line is of this kind, and a flood of them is to cost little.
    if whole.is_none() && out.len() + text.len() <= end && text.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        out.extend_from_slice(text);
        return;
    }
    let mut kept = out.len();
    let mut full = false;
    'text: for chunk in text.utf8_chunks() {
        let valid = chunk.valid().chars().map(Ok);
        let invalid = chunk.invalid().iter().map(|byte| Err(*byte));
        for piece in valid.chain(invalid) {
            let mut utf8 = [0; 4];
            match piece {
                Ok(c) if !dangerous(c) => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
                Ok(c) => c.encode_utf8(&mut utf8).bytes().for_each(|byte| push_octal(out, byte)),
                Err(byte) => push_octal(out, byte),
            }
            full = out.len() > end;
            if full {
                break 'text;
            }
            if out.len() <= end - MAX_MARK {
                kept = out.len();
            }
        }
    }
    if full || whole.is_some() {
        out.truncate(kept);
        let _ = write!(out, " [cut, {} bytes]", whole.unwrap_or(text.len()));
    }
}

/// Controls (with C1, which terminals obey), other line ends, and marks that turn the reading direction.
fn dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_octal(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[b'#', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]);
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const TIME: SystemTime = SystemTime::UNIX_EPOCH;

    fn line(record: &Record<'_>, number: u64) -> String {
        let mut out = Vec::new();
        let mut scratch = Vec::new();
        let Entry { host_at, bytes, .. } = render(record, b"", number, &mut scratch);
        let (head, tail) = bytes.split_at(host_at.into());
        out.extend([head, b"vm1", tail].concat());
        String::from_utf8(out).unwrap()
    }

    fn sent(raw: &[u8], uid: u32) -> String {
        line(&Record::from_sender(parse::datagram(raw), Some(Sender { uid, pid: 77 }), TIME), 1)
    }

    /// RFC 5424's grammar read anew, without our parser: (PRI, app, procid, data, text).
    fn check(line: &str) -> (u8, String, String, String, String) {
        assert!(line.len() <= LIMIT && !line.contains(char::is_control), "{line:?}");
        let (pri, rest) = line.strip_prefix('<').unwrap().split_once('>').unwrap();
        let mut words = rest.splitn(7, ' ');
        let mut next = || words.next().unwrap().to_owned();
        assert_eq!(next(), "1");
        let stamp = next();
        assert_eq!((stamp.len(), stamp.chars().last()), (27, Some('Z')));
        assert_eq!(next(), "vm1");
        let (app, procid, msgid, rest) = (next(), next(), next(), next());
        assert_eq!(msgid, "-");
        assert!((1..=48).contains(&app.len()) && app.bytes().all(|b| (33..=126).contains(&b)));
        // Structured data ends at the first `]` outside a value that no `[` follows.
        let (mut quoted, mut escaped, mut end) = (false, false, 0);
        let bytes = rest.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b']' if !quoted && bytes.get(at + 1) != Some(&b'[') => {
                    end = at + 1;
                    break;
                }
                _ => {}
            }
        }
        let (data, text) = rest.split_at(end);
        let text = text.strip_prefix(' ').unwrap();
        (pri.parse().unwrap(), app, procid, data.to_owned(), text.to_owned())
    }

    #[test]
    fn a_record_in_full() {
        let mut record = Record::from_sender(parse::datagram(b"<14>app: hi"), Some(Sender { uid: 5, pid: 6 }), TIME);
        record.time += Duration::from_micros(1_795_341_600_000_001);
        assert_eq!(
            line(&record, 3),
            "<14>1 2026-11-22T10:00:00.000001Z vm1 app 6 - [ctxinit@32473 uid=\"5\" pid=\"6\"][meta sequenceId=\"3\"] hi"
        );
    }

    #[test]
    fn clocks_out_of_range_are_clamped() {
        let mut record = Record::from_sender(parse::datagram(b"x"), None, TIME);
        record.time = TIME - Duration::from_secs(9);
        assert!(line(&record, 1).contains(" 1970-01-01T00:00:00.000000Z "));
        record.time = TIME + LAST_SECOND * 2;
        assert!(line(&record, 1).contains(" 9999-12-31T23:59:59.000000Z "));
    }

    #[test]
    fn sequence_wraps_as_the_rfc_says() {
        let record = Record::from_sender(parse::datagram(b"x"), None, TIME);
        for (number, id) in [(1, "1"), (MAX_SEQUENCE, "2147483647"), (MAX_SEQUENCE + 1, "1")] {
            assert!(line(&record, number).contains(&format!("[meta sequenceId=\"{id}\"]")), "{number}");
        }
    }

    #[test]
    fn hostile_text_stays_text() {
        let cases: [(&[u8], &str); 9] = [
            (b"a: x\n<0>1 - - kernel - - - y", "x#012<0>1 - - kernel - - - y"),
            (b"a: x\0y\tz\x7f", "x#000y#011z#177"),
            (b"a: \x1b[31mred\x1b[0m", "#033[31mred#033[0m"),
            (b"a: caf\xe9 \xff\xfe", "caf#351 #377#376"),
            ("a: \u{9b}31m \u{85}".as_bytes(), "#302#23331m #302#205"),
            ("a: \u{2028} \u{202e}".as_bytes(), "#342#200#250 #342#200#256"),
            ("a: žluťoučký 馬 😀".as_bytes(), "žluťoučký 馬 😀"),
            (b"a: [meta sequenceId=\"9\"] \\\"]", "[meta sequenceId=\"9\"] \\\"]"),
            (b"a: \xc3", "#303"),
        ];
        for (raw, text) in cases {
            let (pri, app, procid, data, written) = check(&sent(raw, 1000));
            assert_eq!((pri, app.as_str(), procid.as_str(), written.as_str()), (13, "a", "77", text));
            assert_eq!(data, "[ctxinit@32473 uid=\"1000\" pid=\"77\"][meta sequenceId=\"1\"]");
        }
    }

    #[test]
    fn identity_is_the_kernels() {
        let (_, app, procid, ..) = check(&sent(b"<14>sshd[1]: x", 1000));
        assert_eq!((app.as_str(), procid.as_str()), ("sshd", "77"));
        for (claim, uid, pri, mark) in
            [(0, 1000, 14, true), (4, 1000, 14, true), (10, 9, 14, true), (13, 9, 14, true), (4, 0, 38, false)]
        {
            let (got, _, _, data, _) = check(&sent(format!("<{}>x", claim * 8 + 6).as_bytes(), uid));
            assert_eq!((got, data.contains(&format!(" claimed=\"{claim}\""))), (pri, mark), "{claim} {uid}");
        }
        let unseen = Record::from_sender(parse::datagram(b"a[5]: x"), Some(Sender { uid: 1, pid: 0 }), TIME);
        assert_eq!(check(&line(&unseen, 1)).2, "-");
    }

    #[test]
    fn fields_hold_only_what_they_may() {
        let mut record = Record::from_sender(parse::datagram(b"x"), None, TIME);
        let app = "two words\n".repeat(9);
        record.app = app.as_bytes();
        record.job = Some("a\"] b\\\n\u{e9}");
        let (_, app, procid, data, _) = check(&line(&record, 1));
        assert_eq!((app.as_str(), procid.as_str()), ("two_words_two_words_two_words_two_words_two_word", "-"));
        assert_eq!(data, "[ctxinit@32473 job=\"a\\\"\\] b\\\\#012é\"][meta sequenceId=\"1\"]");
        assert_eq!((host_name(""), host_name("a b\n")), ("-".to_owned(), "a_b_".to_owned()));
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        for piece in ["x", "é", "\t"] {
            let text = piece.repeat(150_000);
            let mut scratch = Vec::new();
            let entry =
                render(&Record::from_sender(parse::datagram(text.as_bytes()), None, TIME), b"", 1, &mut scratch);
            let length = entry.bytes.len() + MAX_HOST;
            assert!((LIMIT - 40..=LIMIT).contains(&length), "{length} {piece:?}");
        }
        let (.., text) = check(&sent("é".repeat(150_000).as_bytes(), 1));
        assert!(text.ends_with("é [cut, 300000 bytes]"), "{text}");

        let mut record = Record::from_sender(parse::datagram(b"short"), None, TIME);
        record.cut = Some(300_000);
        assert_eq!(check(&line(&record, 1)).4, "short [cut, 300000 bytes]");
    }

    #[test]
    fn a_text_that_just_fits_is_whole() {
        let mut record = Record::from_sender(parse::datagram(b""), None, TIME);
        let room = LIMIT - MAX_HOST - render(&record, b"", 1, &mut Vec::new()).bytes.len();
        for (length, whole) in [(room, true), (room + 1, false)] {
            record.text = vec![b'x'; length].into();
            assert_eq!(check(&line(&record, 1)).4.len() == length, whole, "{length}");
        }
    }

    fn audit_line(data: &[(String, String)], text: &str) -> String {
        let message = Message { facility: AUDIT, severity: 5, tag: b"ctxinit", pid: Some(7), text: text.as_bytes() };
        let audit = Some(Audit { id: "job-start", data });
        line(&Record { audit, job: Some("job-1"), ..Record::trusted(message, TIME) }, 1)
    }

    #[test]
    fn an_audit_record_has_an_id_and_facts() {
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let facts = [fact("token", "17"), fact("owner", "/O=x/CN=\"J\" \\ ] [a\n\u{202e}ä")];
        assert_eq!(
            audit_line(&facts, "job-1 started"),
            "<109>1 1970-01-01T00:00:00.000000Z vm1 ctxinit 7 job-start [ctxinit@32473 job=\"job-1\"]\
             [audit@32473 token=\"17\" owner=\"/O=x/CN=\\\"J\\\" \\\\ \\] [a#012#342#200#256ä\"]\
             [meta sequenceId=\"1\"] job-1 started"
        );
    }

    #[test]
    fn facts_of_any_length_leave_room_for_the_text() {
        let facts: Vec<_> = (0..40).map(|number| (format!("f{number}"), "\n".repeat(2000))).collect();
        let line = audit_line(&facts, &"x".repeat(9000));
        assert!(line.len() <= LIMIT && line.ends_with("x [cut, 9000 bytes]"), "{}", line.len());
        assert!(line.contains(" f39=\"\"]"));
    }

    /// What a program says of itself is text, whatever it looks like, and the facility is not to be had.
    #[test]
    fn nobody_else_makes_audit_records() {
        let raw = b"<109>1 - - ctxinit 1 job-end [audit@32473 owner=\"/CN=somebody\"] job-1 ended";
        let got = sent(raw, 66_000);
        assert!(got.starts_with("<13>1 ") && got.contains(" 77 - [ctxinit@32473 uid=\"66000\""), "{got}");
        assert!(!got.split("[meta ").next().unwrap().contains("audit@"), "{got}");
    }
}
