//! What local programs and the kernel write to the log.

use ctxinit::syslog::parse::{Message, datagram, kmsg, unescape_kmsg};
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
