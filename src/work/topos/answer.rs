//! What a token pool's answers mean: pure functions over status, headers and listings.
//!
//! Bodies never decide: every error and every "done" of ToPoS is XHTML, whatever `Accept` asked for.
//! The two listings are the exception, and those are asked for as JSON.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::work::Identity;
use crate::work::call::{Status, reading};
use crate::work::source::{Claim, Held};

/// Longest listing that is read: 100 000 tokens of 300 bytes each, twice over.
const MAX_LISTING: u64 = 64 * 1024 * 1024;

/// Reads the answer to `nextToken`. `location` and `lock_url` are the headers `Location` and `X-Topos-LockURL`.
///
/// Only the id and the uuid are taken from them: behind an alias, a proxy or a NAT the server builds them
/// from a host name that means nothing here.
pub fn claim(status: u16, location: Option<&str>, lock_url: Option<&str>) -> Claim {
    let broken = |why: String| Claim::Refused { why, broken: true };
    match status {
        303 => {
            let Some(id) = location.and_then(|url| last_of(url, "/tokens/", is_id)) else {
                return broken(format!("303 to no token{}", quoted(location)));
            };
            // Without a lock the token is everybody's: the server leases it without one when it cannot read
            // the timeout, and sends an empty uuid for a token that is not locked.
            match lock_url.and_then(|url| last_of(url, "/locks/", is_uuid)) {
                Some(lock) => Claim::Leased(Held { id: id.to_owned(), lock: lock.to_owned() }),
                None => broken(format!("303 without a lock{}", quoted(lock_url))),
            }
        }
        404 => Claim::Empty,
        401 | 403 => Claim::Refused { why: status.to_string(), broken: false },
        300..=399 => broken(format!("{status}, a redirection{}", quoted(location))),
        _ if reading(status, &[303]) == Status::Unsure => Claim::Unsure { why: status.to_string() },
        _ => broken(status.to_string()),
    }
}

/// One live lock of a pool.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Lock {
    /// Its uuid.
    #[serde(rename = "Name")]
    pub uuid: String,
    /// What its holder wrote.
    #[serde(rename = "LockDescription", default)]
    pub description: Option<String>,
}

/// One token of a pool, as far as it is of interest.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Row {
    /// The file name that was given with it.
    #[serde(rename = "Original Name", default)]
    pub name: Option<String>,
}

/// Goes through a JSON listing, row by row: a pool may have a million of them. An empty one is `null`.
///
/// # Errors
/// Those of the reader and of the parser; rows before the fault were seen.
pub fn listing<T: DeserializeOwned>(body: impl Read, each: impl FnMut(T)) -> Result<(), serde_json::Error> {
    rows(body.take(MAX_LISTING), each)
}

fn rows<T: DeserializeOwned>(body: impl Read, each: impl FnMut(T)) -> Result<(), serde_json::Error> {
    struct Rows<T, F>(F, PhantomData<T>);

    impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Rows<T, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of rows or null")
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut rows: A) -> Result<(), A::Error> {
            while let Some(row) = rows.next_element()? {
                (self.0)(row);
            }
            Ok(())
        }
    }

    let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(body));
    reader.deserialize_any(Rows(each, PhantomData))?;
    reader.end()
}

/// A lock that is free for us to take away: it was left by an earlier life of this machine, or by an earlier process in
/// our own slot. Other slots of this boot are alive.
pub fn left(lock: Lock, identity: &Identity) -> Option<Held> {
    let description = lock.description.as_deref()?;
    let rest = description.strip_prefix(&identity.machine())?;
    let own = description == identity.owner();
    let alive = rest.strip_prefix(&identity.boot_id).is_some_and(|rest| rest.starts_with('/'));
    if own || !alive { found(lock.uuid) } else { None }
}

/// A lock of our own slot in this boot.
pub fn own(lock: Lock, identity: &Identity) -> Option<Held> {
    if lock.description? == identity.owner() { found(lock.uuid) } else { None }
}

fn found(uuid: String) -> Option<Held> {
    is_uuid(&uuid).then(|| Held { id: String::new(), lock: uuid })
}

/// Whether `text` is what a pool calls a lock; it becomes part of a URL.
pub fn is_uuid(text: &str) -> bool {
    // MySQL's UUID(): 36 characters. What matters here is that nothing but a name can be in it.
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn is_id(text: &str) -> bool {
    // 64 bits have at most 20 digits.
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn last_of<'a>(url: &'a str, marker: &str, valid: fn(&str) -> bool) -> Option<&'a str> {
    url.rsplit_once(marker).map(|(_, last)| last).filter(|last| valid(last))
}

/// A foreign header value for a line of log: printable and short.
fn quoted(value: Option<&str>) -> String {
    let Some(value) = value else { return String::new() };
    let safe: String = value.chars().filter(|c| c.is_ascii_graphic()).take(200).collect();
    format!(" ({safe:?})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6ccd780c-baba-1026-9564-5b8c656024db";

    fn broken(why: &str) -> Claim {
        Claim::Refused { why: why.to_owned(), broken: true }
    }

    #[test]
    fn a_claim_needs_a_token_and_a_lock() {
        let lock = format!("http://h/4.1/pools/p/locks/{UUID}");
        let leased = Claim::Leased(Held { id: "17".to_owned(), lock: UUID.to_owned() });
        let cases = [
            (Some("http://h/4.1/pools/p/tokens/17"), Some(lock.as_str()), leased),
            (None, Some(lock.as_str()), broken("303 to no token")),
            (Some("http://h/login"), Some(&lock), broken("303 to no token (\"http://h/login\")")),
            (Some("http://h/tokens/"), Some(&lock), broken("303 to no token (\"http://h/tokens/\")")),
            (Some("http://h/tokens/1/2"), Some(&lock), broken("303 to no token (\"http://h/tokens/1/2\")")),
            (Some("http://h/tokens/../x"), Some(&lock), broken("303 to no token (\"http://h/tokens/../x\")")),
            (Some("http://h/tokens/17"), None, broken("303 without a lock")),
            (Some("http://h/tokens/17"), Some("http://h/locks/"), broken("303 without a lock (\"http://h/locks/\")")),
            (
                Some("http://h/tokens/17"),
                Some("http://h/locks/6ccd780c-baba-1026-9564-5b8c656024d?"),
                broken("303 without a lock (\"http://h/locks/6ccd780c-baba-1026-9564-5b8c656024d?\")"),
            ),
        ];
        for (location, lock_url, expected) in cases {
            assert_eq!(claim(303, location, lock_url), expected, "{location:?} {lock_url:?}");
        }
    }

    #[test]
    fn the_host_of_a_location_is_of_no_interest() {
        let claim = claim(303, Some("https://evil.example/x/tokens/3"), Some(&format!("ftp://y/locks/{UUID}")));
        assert_eq!(claim, Claim::Leased(Held { id: "3".to_owned(), lock: UUID.to_owned() }));
    }

    #[test]
    fn statuses_of_next_token() {
        let refused = |status: u16| Claim::Refused { why: status.to_string(), broken: false };
        let unsure = |status: u16| Claim::Unsure { why: status.to_string() };
        let cases = [
            (404, Claim::Empty),
            (401, refused(401)),
            (403, refused(403)),
            (400, broken("400")),
            (405, broken("405")),
            (200, broken("200")),
            (301, broken("301, a redirection (\"http://h/\")")),
            (408, unsure(408)),
            (429, unsure(429)),
            (500, unsure(500)),
            (503, unsure(503)),
        ];
        for (status, expected) in cases {
            assert_eq!(claim(status, Some("http://h/"), None), expected, "{status}");
        }
    }

    fn all<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, serde_json::Error> {
        let mut rows = Vec::new();
        listing(text.as_bytes(), |row| rows.push(row)).map(|()| rows)
    }

    #[test]
    fn a_listing_that_breaks_off_is_an_error_and_its_rows_are_seen() {
        let row = r#"{"Name": "u", "LockDescription": "somebody"},"#;
        let text = format!("[{}", row.repeat(1000));
        let mut count = 0;
        let error = rows(text.as_bytes().take(20 * row.len() as u64), |_: Lock| count += 1).unwrap_err();
        assert!(error.is_eof(), "{error}");
        assert_eq!(count, 20);
    }

    #[test]
    fn listings() {
        let locks = r#"[{"Name": "u", "Token name": "", "Timeout": "0:04:59", "LockDescription": "h\/v\/b\/0"}, {"Name": "w", "LockDescription": null}]"#;
        let expected = vec![
            Lock { uuid: "u".to_owned(), description: Some("h/v/b/0".to_owned()) },
            Lock { uuid: "w".to_owned(), description: None },
        ];
        assert_eq!(all::<Lock>(locks).unwrap(), expected);
        assert_eq!(all::<Lock>("null").unwrap(), []);
        assert_eq!(
            all::<Row>(r#"[{"Size": "9 B", "Original Name": "mc.1", "Name": "5"}]"#).unwrap(),
            [Row { name: Some("mc.1".to_owned()) }]
        );
        for bad in ["", "<html/>", "[{\"Name\": ", "[{\"Name\": \"u\"}", "[] []", "{}", "[7]"] {
            assert!(all::<Lock>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_is_ours_and_dead_is_left() {
        let identity =
            Identity { hostname: "h".to_owned(), vm_uuid: "v".to_owned(), boot_id: "b1".to_owned(), slot: 0 };
        // Whether it is left, and whether it is astray.
        let cases = [
            ("h/v/b0/0", true, false),
            ("h/v/b0/1", true, false),
            ("h/v/b1/0", true, true), // our own slot: an earlier process, or a claim whose answer was lost
            ("h/v/b1/1", false, false), // another slot of this boot
            ("h/v/b1/00", false, false), // one whose number begins alike
            ("h/v/b11/1", true, false), // a boot whose id begins alike
            ("h/v2/b0/0", false, false), // another machine
            ("hh/v/b0/0", false, false),
            ("", false, false),
        ];
        let lock = |uuid: &str, description: Option<&str>| Lock {
            uuid: uuid.to_owned(),
            description: description.map(str::to_owned),
        };
        let held = Held { id: String::new(), lock: UUID.to_owned() };
        for (description, is_left, is_own) in cases {
            let lock = || lock(UUID, Some(description));
            assert_eq!(left(lock(), &identity), is_left.then(|| held.clone()), "{description}");
            assert_eq!(own(lock(), &identity), is_own.then(|| held.clone()), "{description}");
        }
        for odd in [lock("../tokens/1", Some("h/v/b1/0")), lock(UUID, None)] {
            let again = Lock { uuid: odd.uuid.clone(), description: odd.description.clone() };
            assert_eq!((left(odd, &identity), own(again, &identity)), (None, None));
        }
    }
}
