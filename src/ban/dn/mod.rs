//! Distinguished names in their two spellings, brought to one.
//!
//! | spelling | written by | order |
//! |---|---|---|
//! | `/C=NL/O=nikhef/CN=Jan` | OpenSSL's one line, Globus, every grid-mapfile | root first |
//! | `CN=Jan,O=nikhef,C=NL` | RFC 4514, RFC 2253, Java, Argus | leaf first |
//! | `C = NL, O = nikhef, CN = Jan` | `openssl x509 -subject` since 1.1 | root first |
//!
//! The common form is the first one: types in lower case and by their usual short names, values without regard to case
//! and to the number of blanks (X.520 caseIgnoreMatch), every escape resolved. Where two names fall together in it, the
//! ban of one is the ban of the other: a list that bans too much is noticed, one that bans too little is not. So a `/` in
//! a value is not told from one between two parts, which the slash spelling cannot do either.
//!
//! The parts of one place (`CN=Jan+UID=1`) have no order, and the slash spelling does not tell them from places of their
//! own (`/UID=1/CN=Jan`). So a ban looks for a name's parts wherever they stand: [`Parts`].
//!
//! A byte that is no UTF-8 is taken for Latin-1, which old authorities wrote. A letter and a combining mark are refused:
//! to tell that they are the same as the letter with its mark takes Unicode's tables.
//!
//! A proxy certificate's name is its owner's with parts added: `CN=proxy`, `CN=limited proxy` and `CN=restricted proxy`
//! (Globus), and a number behind whoever it is (RFC 3820). They count for nothing at both sides, so that no proxy is a way
//! round a ban.

mod value;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::value::{comma_value, common, slash_value, split};

/// Longest name that is read, bytes. Real ones have some 100; ToPoS keeps 255 of a token's media type.
pub const LONGEST: usize = 1024;
/// More parts than any name has.
const MAX_PARTS: usize = 64;

/// Why a text is no distinguished name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DnError {
    /// Longer than [`LONGEST`].
    #[error("the name is longer than {LONGEST} bytes")]
    TooLong,
    /// More parts than [`MAX_PARTS`].
    #[error("the name has more than {MAX_PARTS} parts")]
    TooManyParts,
    /// A part without a type before its `=`.
    #[error("a part of the name has no type (TYPE=value)")]
    NoType,
    /// `CN=`.
    #[error("a part of the name has no value")]
    NoValue,
    /// A quotation mark or a backslash that nothing follows.
    #[error("a quotation mark or backslash in the name is not finished")]
    Unfinished,
    /// `#` with something else than the hexadecimal BER of a string.
    #[error("a value that begins with # is no encoded string")]
    BadEncoding,
    /// `/VO=atlas/GROUP=/atlas`, as the EDG middleware wrote groups.
    #[error("the old form /VO=.../GROUP=... is not taken; write the group as /atlas or /atlas/Role=pilot")]
    OldGroup,
    /// U+0300 to U+036F.
    #[error("the name holds the combining mark U+{:04X}; write the letter with its mark as one character", u32::from(*.0))]
    Combining(char),
}

/// A name in the common form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dn {
    /// As it was given.
    pub whole: String,
    /// Without what a proxy adds: whose it is.
    pub owner: String,
}

impl Dn {
    /// Reads either spelling.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, DnError> {
        let parts = parts(text)?;
        let owner = parts.get(..without_proxies(&parts)).unwrap_or_default();
        Ok(Self { whole: slashes(&parts), owner: slashes(owner) })
    }

    /// Its parts, to compare.
    pub fn parts(&self) -> Parts {
        Parts::of(&self.whole)
    }
}

/// The parts of a name in the common form, those of one place each by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts(Vec<Part>);

impl Parts {
    /// A `+` in a value is not told from one between two parts, as with `/`.
    fn of(common: &str) -> Self {
        let behind = |at: usize| at + 1 + common.get(at + 1..).map_or(0, |rest| rest.len() - rest.trim_start().len());
        let starts = common.match_indices(['/', '+']).map(|(at, _)| at).filter(|&at| has_type(common, behind(at)));
        let starts: Vec<usize> = starts.collect();
        let ends = starts.iter().skip(1).copied().chain([common.len()]);
        let part = |(&start, end): (&usize, usize)| {
            let (kind, value) = common.get(start + 1..end)?.split_once('=')?;
            // The end of a prefix may be a blank that counts.
            let value = if end < common.len() { value.trim() } else { value.trim_start() };
            Some(Part { kind: short_type(kind), value: value.to_owned() })
        };
        Self(starts.iter().zip(ends).filter_map(part).collect())
    }

    /// Whether it is `person`, a [`Dn::owner`], or a proxy of that.
    pub fn are_of(&self, person: &str) -> bool {
        let person = Self::of(person);
        let mut left: Vec<Option<&Part>> = self.0.iter().map(Some).collect();
        // A number behind `OU=People` is a person, and not a proxy of all of them.
        let somebody = person.0.iter().any(Part::is_personal);
        person.0.iter().all(|part| take(&mut left, |of| of == part))
            && left.into_iter().flatten().all(|more| more.is_proxy() || somebody && more.is_number())
    }

    /// Whether it begins with this [`prefix`], where parts of one place may be in another order: what is passed over can
    /// only be a person's.
    pub fn begin_with(&self, prefix: &str) -> bool {
        let begin = |whole: &[Part], more: &str| {
            let mut left: Vec<Option<&Part>> = self.0.iter().map(Some).collect();
            let found = whole.iter().all(|part| take(&mut left, |of| of == part))
                && take(&mut left, |Part { kind, value }| format!("{kind}={value}").starts_with(more));
            let last = left.iter().rposition(Option::is_none).unwrap_or_default();
            found && left.iter().take(last).flatten().all(|part| part.is_personal())
        };
        let parts = Self::of(prefix).0;
        let value =
            parts.split_last().is_some_and(|(Part { kind, value }, whole)| begin(whole, &format!("{kind}={value}")));
        // `/O=x/C*` may be the beginning of a type as well as of a value with a slash.
        let kind = prefix.rsplit_once('/').filter(|(_, more)| !more.contains('='));
        value || kind.is_some_and(|(whole, more)| begin(&Self::of(whole).0, more))
    }
}

/// Takes the first of them that fits.
fn take(left: &mut [Option<&Part>], fits: impl Fn(&Part) -> bool) -> bool {
    left.iter_mut().find(|part| part.is_some_and(&fits)).and_then(Option::take).is_some()
}

/// What stands before a `*`, in the common form. Only the slash spelling has its root at the beginning.
///
/// # Errors
/// As [`Dn::parse`].
pub fn prefix(text: &str) -> Result<String, DnError> {
    if text == "/" {
        return Ok(text.to_owned());
    }
    let mut prefix = slashes(&slash_parts(text)?);
    // `CN=Jan *` bans no Janet.
    if text.ends_with(' ') {
        prefix.push(' ');
    }
    Ok(prefix)
}

/// Type and value, both in the common form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    kind: String,
    value: String,
}

impl Part {
    /// Whether it tells one person from another.
    fn is_personal(&self) -> bool {
        matches!(self.kind.as_str(), "cn" | "uid" | "emailaddress" | "serialnumber")
    }

    fn is_proxy(&self) -> bool {
        self.kind == "cn" && matches!(self.value.as_str(), "proxy" | "limited proxy" | "restricted proxy")
    }

    fn is_number(&self) -> bool {
        self.kind == "cn" && !self.value.is_empty() && self.value.bytes().all(|byte| byte.is_ascii_digit())
    }
}

fn slashes(parts: &[Part]) -> String {
    parts.iter().map(|Part { kind, value }| format!("/{kind}={value}")).collect()
}

/// How many parts are the owner's.
fn without_proxies(parts: &[Part]) -> usize {
    let mut count = parts.len();
    while let Some([before, last]) = parts.get(count.wrapping_sub(2)..count) {
        // Some authorities number people (`/OU=People/CN=1234`); a proxy's number comes behind the person.
        if !(last.is_proxy() || last.is_number() && before.is_personal()) {
            break;
        }
        count -= 1;
    }
    count
}

fn parts(text: &str) -> Result<Vec<Part>, DnError> {
    if text.starts_with('/') { slash_parts(text) } else { comma_parts(text) }
}

fn slash_parts(text: &str) -> Result<Vec<Part>, DnError> {
    check_length(text)?;
    let mut parts: Vec<Part> = Vec::new();
    // A `/` that no type follows belongs to the value: `/CN=host/www.example.org`.
    let starts: Vec<usize> = text.match_indices('/').map(|(at, _)| at).filter(|&at| has_type(text, at + 1)).collect();
    if starts.first() != Some(&0) {
        return Err(DnError::NoType);
    }
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(text.len());
        let (kind, value) = text.get(start + 1..end).and_then(|part| part.split_once('=')).ok_or(DnError::NoType)?;
        parts.push(Part { kind: short_type(kind), value: common(&slash_value(value))? });
    }
    checked(parts)
}

fn comma_parts(text: &str) -> Result<Vec<Part>, DnError> {
    check_length(text)?;
    let mut sets: Vec<Vec<Part>> = Vec::new();
    for set in split(text, &[',', ';'])? {
        let mut parts = Vec::new();
        for part in split(set, &['+'])? {
            let part = part.trim_start();
            if !has_type(part, 0) {
                return Err(DnError::NoType);
            }
            let (kind, value) = part.split_once('=').ok_or(DnError::NoType)?;
            parts.push(Part { kind: short_type(kind), value: common(&comma_value(value.trim_start())?)? });
        }
        // The parts of one place have no order.
        parts.sort();
        sets.push(parts);
    }
    if !is_root_first(&sets) {
        sets.reverse();
    }
    checked(sets.into_iter().flatten().collect())
}

/// RFC 4514 begins with the leaf; `openssl x509 -subject` separates by commas too and begins with the root.
fn is_root_first(sets: &[Vec<Part>]) -> bool {
    let depth = |set: Option<&Vec<Part>>| match set.and_then(|set| set.first()).map(|part| part.kind.as_str()) {
        Some("c" | "dc") => 0,
        Some("st" | "l") => 1,
        Some("o") => 2,
        Some("ou") => 3,
        _ => 4,
    };
    depth(sets.first()) < depth(sets.last())
}

fn check_length(text: &str) -> Result<(), DnError> {
    if text.len() > LONGEST { Err(DnError::TooLong) } else { Ok(()) }
}

fn checked(parts: Vec<Part>) -> Result<Vec<Part>, DnError> {
    if parts.len() > MAX_PARTS {
        return Err(DnError::TooManyParts);
    }
    if parts.first().is_some_and(|part| part.kind == "vo") {
        return Err(DnError::OldGroup);
    }
    Ok(parts)
}

/// Whether `TYPE=` stands there: a name of letters, digits and `-`, or an OID.
fn has_type(text: &str, at: usize) -> bool {
    let rest = text.get(at..).unwrap_or_default().as_bytes();
    // It reads no further than it must: a list is compared with names that anybody made up.
    let length = rest.iter().take_while(|&byte| byte.is_ascii_alphanumeric() || b"-.".contains(byte)).count();
    (1..=64).contains(&length)
        && rest.first().is_some_and(u8::is_ascii_alphanumeric)
        && rest.iter().skip(length).find(|&&byte| byte != b' ') == Some(&b'=')
}

/// The types of grid names, by what OpenSSL, Java, Globus and RFC 4514 call them.
fn short_type(kind: &str) -> String {
    let kind = kind.trim().to_ascii_lowercase();
    let kind = kind.strip_prefix("oid.").unwrap_or(&kind);
    match kind {
        "e" | "email" | "emailaddress" | "1.2.840.113549.1.9.1" => "emailaddress",
        "uid" | "userid" | "0.9.2342.19200300.100.1.1" => "uid",
        "dc" | "domaincomponent" | "0.9.2342.19200300.100.1.25" => "dc",
        "cn" | "commonname" | "2.5.4.3" => "cn",
        "sn" | "surname" | "2.5.4.4" => "sn",
        "serialnumber" | "2.5.4.5" => "serialnumber",
        "c" | "countryname" | "2.5.4.6" => "c",
        "l" | "localityname" | "2.5.4.7" => "l",
        "st" | "s" | "sp" | "stateorprovincename" | "2.5.4.8" => "st",
        "street" | "streetaddress" | "2.5.4.9" => "street",
        "o" | "organizationname" | "2.5.4.10" => "o",
        "ou" | "organizationalunitname" | "2.5.4.11" => "ou",
        "t" | "title" | "2.5.4.12" => "title",
        "gn" | "g" | "givenname" | "2.5.4.42" => "gn",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
