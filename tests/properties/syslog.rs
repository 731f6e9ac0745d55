//! What local programs and the kernel write to the log.

use std::time::{Duration, SystemTime};

use ctxinit::syslog::parse::{Message, datagram, kmsg, unescape_kmsg};
use ctxinit::syslog::record::{self, LIMIT, Record, Sender, Writer};
use ctxinit::syslog::store::superblock::{self, BLOCK, HEAD, State};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::{bytes, holds, text_of};

/// Fields within their bounds, and nothing that was not sent.
fn sound(raw: &[u8], message: &Message<'_>) -> TestCaseResult {
    prop_assert!(message.facility <= 23 && message.severity <= 7, "{:?}", message);
    let within = |part: &[u8]| part.is_empty() || raw.windows(part.len()).any(|window| window == part);
    prop_assert!(within(message.text) && (within(message.tag) || message.tag == b"kernel"), "{:?}", message);
    Ok(())
}

#[test]
fn every_datagram_has_a_reading() {
    const PIECES: &[&str] = &[
        "<13>",
        "<191>",
        "<192>",
        "<",
        ">",
        "1 ",
        "- ",
        "2026-01-02T03:04:05Z ",
        "Jan  2 03:04:05 ",
        "*Jan 2 2026 03:04:05.678 UTC: ",
        "2026-01-02T03:04:05+01:00 ",
        "29: ",
        "host ",
        "prog[17]: ",
        "prog: ",
        "[",
        "]",
        ":",
        "[a b=\"c\"] ",
        "text",
        "\n",
        "\0",
        "\u{feff}",
        "0",
        " ",
    ];
    holds(prop_oneof![text_of(PIECES, 10).prop_map(String::into_bytes), bytes(100)], |raw| {
        sound(&raw, &datagram(&raw))
    });
    holds((0..=191u8, "[a-z]{1,10}", any::<u32>(), "[!-~]([ -~]{0,30}[!-~])?"), |(pri, tag, pid, text)| {
        let raw = format!("<{pri}>{tag}[{pid}]: {text}");
        let message = datagram(raw.as_bytes());
        prop_assert_eq!((message.facility, message.severity), (pri >> 3, pri & 7));
        prop_assert_eq!((message.tag, message.pid), (tag.as_bytes(), Some(pid)));
        prop_assert_eq!(message.text, text.as_bytes());
        Ok(())
    });
}

#[test]
fn every_record_of_the_kernel_is_read_or_passed_over() {
    const PIECES: &[&str] =
        &["6,", "1,", "18446744073709551616,", "-;", ";", "text", "\\x0a", "\\x", "\n", " SUBSYSTEM=x", "30,", ","];
    holds(prop_oneof![text_of(PIECES, 10).prop_map(String::into_bytes), bytes(100)], |raw| {
        prop_assert!(unescape_kmsg(&raw).len() <= raw.len());
        kmsg(&raw).map_or(Ok(()), |record| sound(&raw, &record.message))
    });
}

/// A record in the making, with a host's name in its place.
fn written(record: &Record<'_>) -> Vec<u8> {
    let mut writer = Writer::new(record::origin("uuid", "boot"));
    let entry = writer.write(record, 7, true);
    let (head, tail) = entry.bytes.split_at(entry.host_at.into());
    [head, b"vm", tail].concat()
}

const END: &str = "[timeQuality tzKnown=\"1\" isSynced=\"1\"][meta sequenceId=\"7\"] ";

/// Whatever a payload sends: one record on one line, under the name that the kernel gave it, and nobody else's facility.
#[test]
fn nobody_forges_a_record_a_line_or_an_identity() {
    const PIECES: &[&str] = &[
        "<0>",
        "<109>",
        "<14>",
        "1 - - ctxinit 1 job-end ",
        "[audit@32473 owner=\"/CN=x\"]",
        "[ctxinit@32473 uid=\"0\"]",
        "[meta sequenceId=\"9\"]",
        "\n",
        "\r\n",
        "\0",
        "\u{85}",
        "\u{2028}",
        "\u{202e}",
        "\u{9b}",
        "\x1b[31m",
        "kernel: ",
        "ctxinit[1]: ",
        "\"",
        "\\",
        "]",
        " ",
        "text",
        "120 <13>",
    ];
    let raw = prop_oneof![text_of(PIECES, 12).prop_map(String::into_bytes), bytes(200), bytes(20_000)];
    holds((raw, 1..=u32::MAX, any::<u32>()), |(raw, uid, pid)| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_341_600_000_001);
        let record = Record::from_sender(datagram(&raw), Some(Sender { uid, pid }), time);
        let line = written(&record);
        prop_assert!(line.len() <= LIMIT, "{}", line.len());
        let line = String::from_utf8(line).unwrap();
        let turns = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        prop_assert!(!line.contains(turns), "{:?}", line);
        let words: Vec<&str> = line.splitn(7, ' ').collect();
        let [first, stamp, host, app, procid, msgid, rest] = words[..] else { panic!("{line:?}") };
        let pri: u8 = first.strip_prefix('<').and_then(|pri| pri.strip_suffix(">1")).unwrap().parse().unwrap();
        prop_assert!(![0, 4, 10, 13].contains(&(pri >> 3)), "{:?}", line);
        prop_assert_eq!((stamp, host, msgid), ("2026-11-22T10:00:00.000001Z", "vm", "-"));
        prop_assert!(!app.is_empty() && app.bytes().all(|byte| byte.is_ascii_graphic()), "{:?}", line);
        prop_assert_eq!(procid, if pid == 0 { "-".to_owned() } else { pid.to_string() });
        let claimed = record.claimed.map_or(String::new(), |facility| format!(" claimed=\"{facility}\""));
        let data = format!("[ctxinit@32473 vm=\"uuid\" boot=\"boot\" uid=\"{uid}\" pid=\"{pid}\"{claimed}]{END}");
        prop_assert!(rest.starts_with(&data), "{:?}", line);
        Ok(())
    });
}

/// The value that begins here, as a reader of RFC 5424 has it, and what follows.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return (value, &text[at + 1..]),
            '\\' if !escaped => escaped = true,
            c => {
                value.push(c);
                escaped = false;
            }
        }
    }
    panic!("{text:?} does not end")
}

/// Whoever fills the pool names jobs' owners, and gets no further than that.
#[test]
fn a_jobs_name_and_owner_stay_within_their_quotes() {
    const PIECES: &[&str] = &["/CN=Jan", "\"", "\\", "]", "] ", "[x ", " uid=\"0\"", "\n", "\u{202e}", "é", "馬"];
    holds((text_of(PIECES, 8), text_of(PIECES, 40)), |(job, owner)| {
        let data = record::job(&job, &owner);
        let message = datagram(b"<14>app: x");
        let record = Record { job: Some(&data), ..Record::trusted(message, SystemTime::UNIX_EPOCH) };
        let line = String::from_utf8(written(&record)).unwrap();
        let begin = "<14>1 1970-01-01T00:00:00.000000Z vm app - - [ctxinit@32473 vm=\"uuid\" boot=\"boot\" job=\"";
        let (read, mut rest) = value(line.strip_prefix(begin).unwrap());
        let plain = |text: &str| text.replace('\n', "#012").replace('\u{202e}', "#342#200#256");
        prop_assert!(plain(&job).starts_with(&read), "{:?}", line);
        if !owner.is_empty() {
            let (read, after) = value(rest.strip_prefix(" owner=\"").unwrap());
            prop_assert!(plain(&owner).starts_with(&read), "{:?}", line);
            rest = after;
        }
        prop_assert_eq!(rest, format!("]{END}x"));
        Ok(())
    });
}

#[test]
fn whatever_a_disk_begins_with_is_read() {
    let damage = prop::collection::vec((0..3 * BLOCK, any::<u8>()), 0..40);
    proptest!(|(bytes: u64, uses in 1_u64..9, name in "[a-z.]{0,255}", damage in damage)| {
        let mut head = vec![0; HEAD];
        head[..BLOCK].copy_from_slice(&superblock::first_block(bytes));
        let mut state = State { uses, ..State::default() };
        state.names.set(name);
        let mut newer = state.clone();
        newer.uses += 1;
        for state in [&state, &newer] {
            head[state.place()..][..BLOCK].copy_from_slice(&state.to_bytes());
        }
        prop_assert_eq!(State::find(&head), newer.clone());
        for (at, byte) in damage {
            head[at] = byte;
        }
        // Nothing is believed that was never written.
        prop_assert!(superblock::bytes(&head).is_none_or(|found| found == bytes));
        prop_assert!([State::default(), state, newer].contains(&State::find(&head)));
    });
}
