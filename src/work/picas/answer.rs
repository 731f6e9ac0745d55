//! What CouchDB answers: rows of views, revisions, and the time on the server's clock.

use serde::Deserialize;

use super::document::Document;

/// A row of a view.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// Of the document. Reduced views have none, and list no tokens.
    pub id: String,
    /// If it was asked for.
    #[serde(default)]
    pub doc: Option<Document>,
}

/// Reads a view's answer.
///
/// # Errors
/// It is no such answer.
pub fn rows(bytes: &[u8]) -> Result<Vec<Row>, serde_json::Error> {
    #[derive(Deserialize)]
    struct View {
        rows: Vec<Row>,
    }
    serde_json::from_slice::<View>(bytes).map(|view| view.rows)
}

/// The new revision that the answer to a PUT names.
///
/// # Errors
/// It names none.
pub fn rev(bytes: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    struct Saved {
        rev: String,
    }
    serde_json::from_slice::<Saved>(bytes).map(|saved| saved.rev)
}

/// Why this cannot be the id of a token. It becomes a part of URLs, of the log, and of a payload's environment.
pub fn fault(id: &str) -> Option<&'static str> {
    // CouchDB keeps no longer ones on its file systems' good side; a log line has room for this much.
    const LONGEST: usize = 256;
    match id {
        "" => Some("empty"),
        // A path of two dots means another one even where it is encoded.
        "." | ".." => Some("a step of a path"),
        _ if id.len() > LONGEST => Some("too long"),
        _ if id.starts_with('_') => Some("reserved by CouchDB"),
        _ if id.chars().any(char::is_control) => Some("not printable"),
        _ => None,
    }
}

/// Seconds since 1970 of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7). The two older forms no server
/// writes any more.
pub fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<_> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = words[..] else { return None };
    let number = |text: &str, below: i64| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| digits && *number < below)
    };
    let (day, year) = (number(day, 32)?, number(year, 10_000)?);
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next()?, 24)?, number(parts.next()?, 60)?, number(parts.next()?, 61)?);
    // Days since 1970 in years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Which clock stamps are made by.
///
/// Tokens of dead machines are freed by people, by their age and on a clock that is right: a stamp of a clock that is
/// far off would free one that is at work, or never.
#[derive(Debug, Default)]
pub struct Clock {
    /// What the server's clock was ahead by.
    ahead: i64,
    warned: bool,
}

impl Clock {
    /// Below, it may as well be the time of a call.
    const TOLERANCE: i64 = 60;

    /// The server said `date` when it was `now` here. Returns what to warn of, once.
    pub fn compare(&mut self, date: i64, now: i64) -> Option<String> {
        self.ahead = date - now;
        if self.ahead.abs() <= Self::TOLERANCE {
            self.ahead = 0;
            return None;
        }
        let first = !std::mem::replace(&mut self.warned, true);
        let side = if self.ahead > 0 { "behind" } else { "ahead of" };
        first.then(|| format!("this machine's clock is {} s {side} the server's, whose time is used", self.ahead.abs()))
    }

    /// For a `lock` or a `done`, when it is `now` here.
    pub fn stamp(&self, now: i64) -> i64 {
        // 0 is free, and 99 an error.
        (now + self.ahead).max(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views() {
        let ids = |text: &str| rows(text.as_bytes()).unwrap().into_iter().map(|row| row.id).collect::<Vec<_>>();
        let text = r#"{"total_rows":2,"offset":0,"rows":[{"id":"a/b","key":"a/b","value":{"x":1}},{"id":"c"}]}"#;
        assert_eq!(ids(text), ["a/b", "c"]);
        assert!(ids(r#"{"rows":[]}"#).is_empty());
        let reduced = rows(br#"{"rows":[{"key":null,"value":2}]}"#).unwrap_err().to_string();
        assert!(reduced.starts_with("missing field `id`"), "{reduced}");
        for text in ["", "<html>", "null", "[]", "{}", r#"{"rows":{}}"#, r#"{"rows":[{"id":1}]}"#, r#"{"rows":[1]}"#] {
            assert!(rows(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(rev(br#"{"ok":true,"id":"a","rev":"2-b"}"#).unwrap(), "2-b");
        assert!(rev(br#"{"ok":true}"#).is_err());
    }

    #[test]
    fn ids_that_are_none() {
        for id in ["", ".", "..", "_design/Monitor", "a\nb", "a\0b", "\u{9b}1m", &"x".repeat(257)] {
            assert!(fault(id).is_some(), "{id:?}");
        }
        for id in ["token_0", "a/../b", "a b?c=d&e#f%", "\u{e9}", "$(reboot)"] {
            assert_eq!(fault(id), None, "{id:?}");
        }
    }

    #[test]
    fn dates() {
        let cases = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Mon, 23 Nov 2026 01:35:57 GMT", Some(1_795_397_757)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nix 1994 08:49:37 GMT", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn a_clock_that_is_far_off_is_not_used() {
        let mut clock = Clock::default();
        assert_eq!(clock.stamp(1000), 1000);
        assert_eq!((clock.compare(1060, 1000), clock.stamp(1000)), (None, 1000));
        let warning = "this machine's clock is 61 s behind the server's, whose time is used".to_owned();
        assert_eq!((clock.compare(1061, 1000), clock.stamp(1010)), (Some(warning), 1071));
        assert_eq!((clock.compare(500, 1000), clock.stamp(1010)), (None, 510));
        assert_eq!((clock.compare(1000, 1000), clock.stamp(1000)), (None, 1000));
        let mut ahead = Clock::default();
        let warning = "this machine's clock is 86400 s ahead of the server's, whose time is used".to_owned();
        assert_eq!(ahead.compare(1_000_000, 1_086_400), Some(warning));
        assert_eq!(Clock::default().stamp(3), 100);
    }
}
