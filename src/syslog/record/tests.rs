use super::super::parse;
use std::time::Duration;

use super::data::MAX_SEQUENCE;
use super::stamp::LAST_SECOND;
use super::*;

const TIME: SystemTime = SystemTime::UNIX_EPOCH;
/// The end of the structured data of a record that is the first.
const FIRST: &str = "[timeQuality tzKnown=\"1\" isSynced=\"0\"][meta sequenceId=\"1\"]";

fn line(record: &Record<'_>, number: u64) -> String {
    let mut out = Vec::new();
    let mut writer = Writer::default();
    let Entry { host_at, bytes, .. } = writer.write(record, number, false);
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
        "<14>1 2026-11-22T10:00:00.000001Z vm1 app 6 - [ctxinit@32473 uid=\"5\" pid=\"6\"]\
         [timeQuality tzKnown=\"1\" isSynced=\"0\"][meta sequenceId=\"3\"] hi"
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
        assert_eq!(data, format!("[ctxinit@32473 uid=\"1000\" pid=\"77\"]{FIRST}"));
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
    let job = job("a\"] b\\\n\u{e9}", "/O=x/CN=\"J\"]");
    record.job = Some(&job);
    let (_, app, procid, data, _) = check(&line(&record, 1));
    assert_eq!((app.as_str(), procid.as_str()), ("two_words_two_words_two_words_two_words_two_word", "-"));
    let want = "[ctxinit@32473 job=\"a\\\"\\] b\\\\#012é\" owner=\"/O=x/CN=\\\"J\\\"\\]\"]";
    assert_eq!(data, format!("{want}{FIRST}"));
    assert_eq!((host_name(""), host_name("a b\n")), ("-".to_owned(), "a_b_".to_owned()));
}

#[test]
fn long_text_is_cut_with_a_mark() {
    for piece in ["x", "é", "\t"] {
        let text = piece.repeat(150_000);
        let mut writer = Writer::default();
        let entry = writer.write(&Record::from_sender(parse::datagram(text.as_bytes()), None, TIME), 1, true);
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
    let room = LIMIT - MAX_HOST - Writer::default().write(&record, 1, true).bytes.len();
    for (length, whole) in [(room, true), (room + 1, false)] {
        record.text = vec![b'x'; length].into();
        assert_eq!(check(&line(&record, 1)).4.len() == length, whole, "{length}");
    }
}

fn audit_line(data: &[(String, String)], text: &str) -> String {
    let message = Message { facility: AUDIT, severity: 5, tag: b"ctxinit", pid: Some(7), text: text.as_bytes() };
    let audit = Some(Audit { id: "job-start", data });
    let job = job("job-1", "");
    line(&Record { audit, job: Some(&job), ..Record::trusted(message, TIME) }, 1)
}

#[test]
fn an_audit_record_has_an_id_and_facts() {
    let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let facts = [fact("token", "17"), fact("owner", "/O=x/CN=\"J\" \\ ] [a\n\u{202e}ä")];
    assert_eq!(
        audit_line(&facts, "job-1 started"),
        "<109>1 1970-01-01T00:00:00.000000Z vm1 ctxinit 7 job-start [ctxinit@32473 job=\"job-1\"]\
         [audit@32473 token=\"17\" owner=\"/O=x/CN=\\\"J\\\" \\\\ \\] [a#012#342#200#256ä\"]\
         [timeQuality tzKnown=\"1\" isSynced=\"0\"][meta sequenceId=\"1\"] job-1 started"
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

#[test]
fn a_clock_that_somebody_keeps_right_is_said_to_be() {
    let record = Record::from_sender(parse::datagram(b"x"), None, TIME);
    let mut writer = Writer::default();
    for (synced, mark) in [(true, "1"), (false, "0")] {
        let text = String::from_utf8(writer.write(&record, 1, synced).bytes.to_vec()).unwrap();
        assert!(text.contains(&format!("[timeQuality tzKnown=\"1\" isSynced=\"{mark}\"]")), "{text}");
    }
}
