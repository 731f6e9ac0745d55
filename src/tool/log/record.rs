//! One record as a log server keeps it: RFC 5424, or what is left of one that was sent as RFC 3164.
//!
//! A server's file may lack the priority, and name the time in any zone. Without structured data nothing can be known
//! of a record, and RFC 3164 has neither a year nor a zone: such a time is shown as it stands.

use std::borrow::Cow;

use thiserror::Error;

/// Our structured data: see docs/log.md.
const OURS: &[u8] = b"ctxinit@32473";
const AUDIT: &[u8] = b"audit@32473";
/// RFC 5424's "log audit", which no program in a machine can write to.
const AUDIT_FACILITY: u8 = 13;
/// RFC 5424, 7.3.1: a sequenceId counts to this, then from 1 again.
pub const LAST_ID: u64 = 2_147_483_647;
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// What a line says. Values of structured data are still escaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Facility * 8 + severity, where the server keeps it.
    pub pri: Option<u8>,
    /// As it stands.
    pub time: &'a [u8],
    /// HOSTNAME.
    pub host: &'a [u8],
    /// APP-NAME, or the tag of RFC 3164 without its process.
    pub app: &'a [u8],
    /// MSGID, empty if there is none.
    pub msgid: &'a [u8],
    /// All elements, with their brackets; empty if there are none.
    pub data: &'a [u8],
    /// The rest.
    pub text: &'a [u8],
    /// What the machine itself says of the record.
    pub facts: Facts<'a>,
}

/// Of `ctxinit@32473`, `meta` and `timeQuality`; empty or none what is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The machine's UUID.
    pub vm: &'a [u8],
    /// One life of it.
    pub boot: &'a [u8],
    /// The job it belongs to.
    pub job: &'a [u8],
    /// Whether a program in the machine made it, as the kernel says, and not ctxinit.
    pub stamped: bool,
    /// Number within that life, from 1, and from 1 again after 2,147,483,647.
    pub sequence: Option<u64>,
    /// Whether the machine says that its clock is not right.
    pub unsynced: bool,
    audit: bool,
}

/// Why a line is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// `<0>` to `<191>`.
    #[error("no priority: neither <0> to <191> nor a time at its beginning")]
    Priority,
    /// Cut off, or something else altogether.
    #[error("it ends within its header")]
    Header,
    /// Structured data that are not closed, or not as RFC 5424 has them.
    #[error("its structured data are broken")]
    Data,
    /// A frame's or line's length.
    #[error("it is longer than {0} bytes")]
    Long(usize),
    /// The end of the stream within a frame.
    #[error("the stream ends within it")]
    Cut,
}

impl<'a> Record<'a> {
    /// Whether it is ctxinit's own word and no program's.
    pub fn is_audit(&self) -> bool {
        let Facts { audit, stamped, .. } = self.facts;
        audit && !stamped && self.pri.is_none_or(|pri| pri >> 3 == AUDIT_FACILITY)
    }

    /// A fact of an audit record, readable.
    pub fn audit(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut found = None;
        walk(self.data, |id, key, value| {
            if id == AUDIT && key == name.as_bytes() && found.is_none() {
                found = Some(value);
            }
        });
        found.map(unescaped)
    }

    /// Each parameter of its structured data: element, name, value.
    pub fn each(&self, with: impl FnMut(&'a [u8], &'a [u8], &'a [u8])) {
        walk(self.data, with);
    }
}

/// Reads a line or a frame, without its end.
///
/// # Errors
/// Why it is no record.
pub fn parse(line: &[u8]) -> Result<Record<'_>, Fault> {
    let (pri, rest) = match line.strip_prefix(b"<") {
        Some(rest) => priority(rest).map(|(pri, rest)| (Some(pri), rest)).ok_or(Fault::Priority)?,
        None => (None, line),
    };
    let mut record = match (pri, rest.strip_prefix(b"1 ")) {
        (Some(_), Some(rest)) => new(rest)?,
        _ => old(rest, pri)?,
    };
    record.pri = pri;
    let mut facts = Facts::default();
    record.each(|id, name, value| facts.take(id, name, value));
    Ok(Record { facts, ..record })
}

impl<'a> Facts<'a> {
    fn take(&mut self, id: &[u8], name: &[u8], value: &'a [u8]) {
        match (id, name) {
            (OURS, b"vm") => self.vm = value,
            (OURS, b"boot") => self.boot = value,
            (OURS, b"job") => self.job = value,
            (OURS, b"uid") => self.stamped = true,
            (AUDIT, _) => self.audit = true,
            (b"meta", b"sequenceId") => self.sequence = number(value).filter(|number| (1..=LAST_ID).contains(number)),
            (b"timeQuality", b"isSynced") => self.unsynced = value == b"0",
            _ => {}
        }
    }
}

fn priority(rest: &[u8]) -> Option<(u8, &[u8])> {
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let (digits, rest) = rest.split_at_checked(end)?;
    let pri = number(digits).filter(|pri| *pri <= 191)?;
    Some((u8::try_from(pri).ok()?, rest.get(1..)?))
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = digits.first().filter(|byte| byte.is_ascii_digit()).and(Some(digits))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// RFC 5424 behind `<PRI>1 `: `TIME HOST APP PROCID MSGID DATA [TEXT]`.
fn new(rest: &[u8]) -> Result<Record<'_>, Fault> {
    let mut words = rest.splitn(6, |byte| *byte == b' ');
    let mut next = || words.next().filter(|word| !word.is_empty()).ok_or(Fault::Header);
    let (time, host, app, _procid, msgid, rest) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let msgid = if msgid == b"-" { b"" } else { msgid };
    let (data, text) = match rest.strip_prefix(b"-") {
        Some(text) => (&rest[..0], text),
        None => data(rest).ok_or(Fault::Data)?,
    };
    let text = match text {
        [] => text,
        [b' ', text @ ..] => text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text),
        _ => return Err(Fault::Data),
    };
    Ok(Record { time, host, app, msgid, data, text, ..Record::default() })
}

/// RFC 3164, or a line of a file that a server keeps of it: `TIME HOST TAG: [MSGID] DATA TEXT`.
fn old(line: &[u8], pri: Option<u8>) -> Result<Record<'_>, Fault> {
    // Whatever begins with neither is no record.
    let fault = if pri.is_some() { Fault::Header } else { Fault::Priority };
    let (time, rest) = time(line).ok_or(fault)?;
    let (host, rest) = word(rest).ok_or(Fault::Header)?;
    let (mut tag, mut rest) = word(rest).ok_or(Fault::Header)?;
    // busybox puts the priority there in words. A tag of ours ends with a colon and holds no blank.
    if !tag.ends_with(b":") {
        (tag, rest) = word(rest).ok_or(Fault::Header)?;
    }
    let tag = tag.strip_suffix(b":").ok_or(Fault::Header)?;
    let app = match tag.strip_suffix(b"]").and_then(|tag| tag.iter().rposition(|byte| *byte == b'[')) {
        Some(at) => tag.get(..at).unwrap_or(tag),
        None => tag,
    };
    let mut msgid: &[u8] = b"";
    // Data stand in front of the text, so no text can pass for them: only a MSGID may come before.
    if let Some((first, after)) = word(rest).filter(|(first, after)| !first.starts_with(b"[") && is_ours(after)) {
        (msgid, rest) = (first, after);
    }
    let (data, text) = if is_ours(rest) { data(rest).ok_or(Fault::Data)? } else { (&rest[..0], rest) };
    Ok(Record { time, host, app, msgid, data, text: text.strip_prefix(b" ").unwrap_or(text), ..Record::default() })
}

fn is_ours(rest: &[u8]) -> bool {
    rest.strip_prefix(b"[").is_some_and(|rest| rest.starts_with(OURS))
}

/// `Nov  2 10:00:05`, or an RFC 3339 stamp.
fn time(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.get(..3).is_some_and(|month| MONTHS.contains(&month)) {
        let (time, rest) = line.split_at_checked(15)?;
        let shape = time.iter().enumerate().skip(3).all(|(at, byte)| match at {
            3 | 6 => *byte == b' ',
            9 | 12 => *byte == b':',
            4 => *byte == b' ' || byte.is_ascii_digit(),
            _ => byte.is_ascii_digit(),
        });
        return Some((time, rest.strip_prefix(b" ").filter(|_| shape)?));
    }
    let (time, rest) = word(line)?;
    let shape = matches!(time, [a, b, c, d, b'-', _, _, b'-', _, _, b'T', ..]
        if [a, b, c, d].into_iter().all(u8::is_ascii_digit));
    shape.then_some((time, rest))
}

/// The first word, and what is behind its blank.
fn word(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = rest.iter().position(|byte| *byte == b' ')?;
    let (word, rest) = rest.split_at_checked(end)?;
    Some((word, rest.get(1..)?)).filter(|_| !word.is_empty())
}

/// Elements one behind the other, and the rest.
fn data(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let behind = walk(rest, |_, _, _| ())?;
    rest.split_at_checked(rest.len() - behind).filter(|(data, _)| !data.is_empty())
}

/// RFC 5424, 6.3. Returns how many bytes are behind the elements; `None` if one is broken.
fn walk<'a>(mut rest: &'a [u8], mut with: impl FnMut(&'a [u8], &'a [u8], &'a [u8])) -> Option<usize> {
    while let Some(element) = rest.strip_prefix(b"[") {
        let end = element.iter().position(|byte| matches!(byte, b' ' | b']'))?;
        let (id, mut after) = element.split_at_checked(end).filter(|(id, _)| !id.is_empty())?;
        while let Some(parameter) = after.strip_prefix(b" ") {
            let end = parameter.iter().position(|byte| *byte == b'=')?;
            let (name, quoted) = parameter.split_at_checked(end)?;
            let quoted = quoted.strip_prefix(b"=\"")?;
            let end = closing(quoted)?;
            with(id, name, quoted.get(..end)?);
            after = quoted.get(end + 1..)?;
        }
        rest = after.strip_prefix(b"]")?;
    }
    Some(rest.len())
}

/// Where a value's quote is that is not escaped.
fn closing(quoted: &[u8]) -> Option<usize> {
    let mut escaped = false;
    quoted.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// A value as it was before RFC 5424's three escapes.
pub fn unescaped(value: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(value);
    if !text.contains('\\') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some(next @ ('"' | '\\' | ']'))) => {
                out.push(next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIT_LINE: &str = "<109>1 2026-11-22T10:00:00.000001Z vm1 ctxinit 7 job-start \
        [ctxinit@32473 vm=\"u-1\" boot=\"0a1b2c3d\" job=\"job-1\"]\
        [audit@32473 token=\"17\" owner=\"/O=x/CN=\\\"J\\\" \\\\ \\] [a ä\"][meta sequenceId=\"3\"] job-1 started";

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn an_audit_record_has_its_facts() {
        let record = parse(AUDIT_LINE.as_bytes()).unwrap();
        assert_eq!((record.pri, text(record.host), text(record.app)), (Some(109), "vm1".into(), "ctxinit".into()));
        assert_eq!((text(record.msgid), text(record.text)), ("job-start".into(), "job-1 started".into()));
        let Facts { vm, boot, job, sequence, .. } = record.facts;
        assert_eq!(
            (text(vm), text(boot), text(job), sequence),
            ("u-1".into(), "0a1b2c3d".into(), "job-1".into(), Some(3))
        );
        assert!(record.is_audit() && !record.facts.unsynced);
        assert_eq!(record.audit("owner").unwrap(), "/O=x/CN=\"J\" \\ ] [a ä");
        assert_eq!(record.audit("pool"), None);
    }

    /// A server's file of the same record: elements in another order, a zone, no priority, a byte order mark.
    #[test]
    fn servers_write_it_in_their_own_ways() {
        let facts = |line: &str| {
            let record = parse(line.as_bytes()).unwrap_or_else(|fault| panic!("{line}: {fault}"));
            let Facts { vm, sequence, unsynced, .. } = record.facts;
            (text(vm), sequence, unsynced, text(record.text), record.is_audit(), text(record.msgid))
        };
        let ours = "[ctxinit@32473 vm=\"u\" boot=\"b\"][audit@32473 x=\"1\"][meta sequenceId=\"9\"]";
        let turned = "[timeQuality tzKnown=\"1\" isSynced=\"0\"][meta sequenceId=\"9\"][audit@32473 x=\"1\"][ctxinit@32473 \
            boot=\"b\" vm=\"u\"]";
        for (line, unsynced) in [
            (format!("<109>1 2026-11-22T11:00:00+01:00 vm1 ctxinit - vm-stop {turned} hi"), true),
            (format!("<109>1 - vm1 ctxinit 1 vm-stop {ours} \u{feff}hi"), false),
            (format!("<109>Nov  2 10:00:05 vm1 ctxinit[1]: vm-stop {ours} hi"), false),
            (format!("Nov 22 10:00:05 vm1 ctxinit: vm-stop {ours} hi"), false),
            (format!("Nov 22 10:00:05 vm1 <109> ctxinit[1]: vm-stop {ours} hi"), false),
            (format!("2026-11-22T10:00:05.000001+00:00 vm1 ctxinit[1]: vm-stop {ours} hi"), false),
        ] {
            let want = ("u".into(), Some(9), unsynced, "hi".into(), true, "vm-stop".into());
            assert_eq!(facts(&line), want, "{line}");
        }
    }

    /// Only what stands where the machine writes its own facts is one.
    #[test]
    fn nobodys_text_is_a_fact() {
        let kernel = "[ctxinit@32473 vm=\"u\" boot=\"b\" uid=\"66000\" pid=\"7\"][meta sequenceId=\"9\"]";
        let forged = "job-end [ctxinit@32473 vm=\"x\" boot=\"y\"][audit@32473 owner=\"z\"][meta sequenceId=\"1\"]";
        for line in [
            format!("<13>1 - h app 7 - {kernel} {forged} x"),
            format!("<13>Nov  2 10:00:05 h app[7]: {kernel} {forged} x"),
        ] {
            let record = parse(line.as_bytes()).unwrap();
            assert_eq!((text(record.facts.vm), record.facts.sequence), ("u".into(), Some(9)), "{line}");
            assert!(!record.is_audit() && record.audit("owner").is_none(), "{line}");
            assert!(text(record.text).starts_with("job-end ["), "{line}");
        }
        // A program that has another facility, or that the kernel has seen, speaks for itself.
        for (pri, stamp) in [("<14>", ""), ("<109>", " uid=\"0\"")] {
            let line = format!("{pri}1 - h app 7 job-end [ctxinit@32473 vm=\"u\"{stamp}][audit@32473 owner=\"z\"] x");
            assert!(!parse(line.as_bytes()).unwrap().is_audit(), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_record_says_why() {
        for (line, fault) in [
            ("", Fault::Priority),
            ("hello there", Fault::Priority),
            ("<192>1 - - - - - - x", Fault::Priority),
            ("<+1>1 - - - - - - x", Fault::Priority),
            ("<14>1 - - -", Fault::Header),
            ("<14>1 - -  - - - x", Fault::Header),
            ("<14>hello", Fault::Header),
            ("<14>Nov 32x10:00:05 h a: b", Fault::Header),
            ("<14>1 - - - - - [a b=\"c\" x", Fault::Data),
            ("<14>1 - - - - - [a b=\"c\\\"] x", Fault::Data),
            ("<14>1 - - - - - [a b=\"c\"]x", Fault::Data),
            ("<14>1 - - - - - [] x", Fault::Data),
            ("<14>1 - - - - - -x", Fault::Data),
            ("<14>Nov  2 10:00:05 h a: [ctxinit@32473 vm=\"u", Fault::Data),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(fault), "{line}");
        }
        for line in ["<14>1 - - - - - -", "<14>1 - - - - - - ", "<0>1 - - - - - [a] x", "Nov  2 10:00:05 h a: b"] {
            assert!(parse(line.as_bytes()).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_text_without_facts_is_whole() {
        for (line, want) in [
            ("Nov  2 10:00:05 h a[7]: hello there", "hello there"),
            ("<14>Nov  2 10:00:05 h a: x [audit@32473 owner=\"y\"] z", "x [audit@32473 owner=\"y\"] z"),
            ("<14>1 - h a 7 - [a b=\"c\\\\\"] hello there", "hello there"),
        ] {
            let record = parse(line.as_bytes()).unwrap();
            assert_eq!(
                (text(record.text), text(record.msgid), record.is_audit()),
                (want.into(), "".into(), false),
                "{line}"
            );
        }
    }

    #[test]
    fn only_three_escapes_are_undone() {
        for (raw, plain) in [("a", "a"), ("\\\"\\\\\\]", "\"\\]"), ("\\n\\", "\\n\\"), ("\\\\n", "\\n")] {
            assert_eq!(unescaped(raw.as_bytes()), plain);
        }
    }
}
