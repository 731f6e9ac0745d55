//! What a server's listings mean. Pure; bytes in, no trust.

use std::fmt;
use std::io::{self, Read};

use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::text::printable;

/// A token of a listing. All that the protocol has is text; a server that sends numbers is understood too.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(super) struct Row {
    #[serde(rename = "Name", deserialize_with = "text")]
    pub(super) id: String,
    #[serde(rename = "Size", default, deserialize_with = "text")]
    size: String,
    #[serde(rename = "Content-Type", default, deserialize_with = "text")]
    pub(super) kind: String,
    #[serde(rename = "Original Name", default, deserialize_with = "text")]
    pub(super) name: String,
    #[serde(rename = "LockTokenHTML", default, deserialize_with = "text")]
    lock: String,
    /// `H:MM:SS`, or nothing.
    #[serde(rename = "Timeout", default, deserialize_with = "text")]
    pub(super) left: String,
    #[serde(rename = "Created", default, deserialize_with = "text")]
    pub(super) created: String,
    #[serde(rename = "Leases", default, deserialize_with = "text")]
    leases: String,
    #[serde(rename = "LockDescription", default, deserialize_with = "text")]
    pub(super) holder: String,
}

impl Row {
    /// Bytes, if the server says so.
    pub(super) fn size(&self) -> Option<u64> {
        self.size.split(' ').next()?.parse().ok()
    }

    /// How often it was handed out, if the server says so.
    pub(super) fn tries(&self) -> Option<u64> {
        self.leases.trim().parse().ok()
    }

    pub(super) fn locked(&self) -> bool {
        !self.left.is_empty() || !self.lock.is_empty()
    }
}

/// A lock of a listing, which is only counted.
#[derive(Debug, Deserialize)]
pub(super) struct LockRow {}

/// Why something is no listing.
#[derive(Debug, Error)]
pub(super) enum ListingError {
    #[error(transparent)]
    Read(io::Error),
    #[error("HTML where a listing was expected; is that a token pool server?")]
    Html,
    #[error("a listing of more than {0} bytes")]
    Long(u64),
    #[error("no listing of tokens: {0}")]
    Json(serde_json::Error),
}

/// Reads a listing as JSON. An empty one is `null`.
pub(super) fn listing<T: DeserializeOwned>(body: impl Read, limit: u64) -> Result<Vec<T>, ListingError> {
    let mut body = io::BufReader::new(body.take(limit + 1));
    let html = io::BufRead::fill_buf(&mut body).map_err(ListingError::Read)?.trim_ascii_start().first() == Some(&b'<');
    if html {
        return Err(ListingError::Html);
    }
    match serde_json::from_reader::<_, Option<Vec<T>>>(&mut body) {
        Ok(rows) => Ok(rows.unwrap_or_default()),
        Err(_) if body.get_ref().limit() == 0 => Err(ListingError::Long(limit)),
        Err(error) if error.is_io() => Err(ListingError::Read(error.into())),
        Err(error) => Err(ListingError::Json(error)),
    }
}

/// Whether that may be part of a URL as a token's number; 64 bits have at most 20 digits.
pub(super) fn is_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

/// A server's text for a message: its beginning, in quotes.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    format!("\"{}\"", printable(&short))
}

/// A string, or what can stand for one.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string, a number or null")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_string<E>(self, text: String) -> Result<String, E> {
            Ok(text)
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_unit<E>(self) -> Result<String, E> {
            Ok(String::new())
        }
    }

    from.deserialize_any(Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_as_servers_write_it() {
        let body = r#" [{"Name": "17", "Size": "9 B", "Content-Type": "text/plain", "Original Name": null, "LockTokenHTML":
            "<a href=\"..\/locks\/u\">u<\/a>", "Timeout": "0:04:59", "Created": "2026", "Leases": "3", "LockDescription": "h"},
            {"Name": 18, "Size": 12, "Leases": 0, "Unheard": {"of": []}}]"#;
        let rows: Vec<Row> = listing(body.as_bytes(), 1 << 20).unwrap();
        assert_eq!(
            (rows[0].id.as_str(), rows[0].size(), rows[0].tries(), rows[0].locked()),
            ("17", Some(9), Some(3), true)
        );
        assert_eq!(
            (rows[1].id.as_str(), rows[1].size(), rows[1].tries(), rows[1].locked()),
            ("18", Some(12), Some(0), false)
        );
        assert_eq!(listing::<Row>(&b"null"[..], 99).unwrap(), []);
        assert_eq!(listing::<Row>(&b"[]"[..], 99).unwrap(), []);
    }

    #[test]
    fn what_is_no_listing_is_named() {
        let complaint = |body: &str, limit| listing::<Row>(body.as_bytes(), limit).unwrap_err().to_string();
        assert_eq!(complaint("\n<html>", 99), "HTML where a listing was expected; is that a token pool server?");
        assert_eq!(complaint("[{\"Name\": \"1\"}, {\"Name\": \"2\"}]", 20), "a listing of more than 20 bytes");
        assert!(complaint("[{\"Size\": \"1\"}]", 99).starts_with("no listing of tokens: missing field `Name`"));
        assert!(complaint("{\"error\": 1}", 99).starts_with("no listing of tokens: invalid type: map"));
        assert!(complaint("[{\"Name\": [1]}]", 99).contains("expected a string, a number or null"));
        assert!(complaint("", 99).contains("EOF"));
    }

    #[test]
    fn only_numbers_become_part_of_a_url() {
        assert!(is_id("1") && is_id("18446744073709551615"));
        for other in ["", "..", "1/2", "1?x", "-1", "123456789012345678901", "\u{661}"] {
            assert!(!is_id(other), "{other}");
        }
        assert_eq!(shown(&"<\u{1b}".repeat(60)), format!("\"{}\"", "<\\u{1b}".repeat(30)));
    }
}
