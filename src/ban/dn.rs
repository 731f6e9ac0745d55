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

use serde::{Deserialize, Serialize};
use thiserror::Error;

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

/// OpenSSL writes a byte that is not printable ASCII as `\xHH`.
fn slash_value(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'\\', [b'x' | b'X', high, low, more @ ..]) if let Some(value) = hex_pair(*high, *low) => {
                out.push(value);
                rest = more;
            }
            // Our own common form, and what a list needs in its quotation marks.
            (b'\\', [escaped @ (b'\\' | b'"'), more @ ..]) => {
                out.push(*escaped);
                rest = more;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// RFC 4514, section 2.4 and 3, and the quoted values of RFC 1779.
fn comma_value(text: &str) -> Result<Vec<u8>, DnError> {
    if let Some(digits) = text.strip_prefix('#') {
        return encoded_string(digits.trim_end());
    }
    let quoted = text.trim_end().strip_prefix('"');
    let text = match quoted {
        Some(quoted) => quoted.strip_suffix('"').ok_or(DnError::Unfinished)?,
        None => text,
    };
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match after {
            [b'x' | b'X', high, low, more @ ..] if let Some(value) = hex_pair(*high, *low) => {
                out.push(value);
                rest = more;
            }
            [high, low, more @ ..] if let Some(value) = hex_pair(*high, *low) => {
                out.push(value);
                rest = more;
            }
            [byte, more @ ..] => {
                out.push(*byte);
                rest = more;
            }
            [] => return Err(DnError::Unfinished),
        }
    }
    Ok(out)
}

/// `#` and the hexadecimal BER of a string: tag, length, content.
fn encoded_string(digits: &str) -> Result<Vec<u8>, DnError> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => hex_pair(*high, *low),
        _ => None,
    });
    let bytes = pairs.collect::<Option<Vec<u8>>>().ok_or(DnError::BadEncoding)?;
    let (tag, content) = match bytes.as_slice() {
        [tag, length, content @ ..] if *length < 0x80 && content.len() == usize::from(*length) => (*tag, content),
        [tag, 0x81, length, content @ ..] if content.len() == usize::from(*length) => (*tag, content),
        _ => return Err(DnError::BadEncoding),
    };
    match tag {
        // UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString.
        0x0c | 0x12 | 0x13 | 0x14 | 0x16 | 0x1a => Ok(content.to_vec()),
        // BMPString: two bytes a character.
        0x1e if content.len().is_multiple_of(2) => {
            let units = content.chunks(2).map(|pair| pair.iter().fold(0, |unit, &byte| unit << 8 | u16::from(byte)));
            Ok(char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect::<String>().into_bytes())
        }
        _ => Err(DnError::BadEncoding),
    }
}

/// The pieces between separators that are neither escaped nor within quotation marks. A mark in the middle of a value
/// is one of its characters.
fn split<'a>(text: &'a str, separators: &[char]) -> Result<Vec<&'a str>, DnError> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut at_value) = (0, false, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return Err(DnError::Unfinished),
            '\\' => at_value = false,
            '"' if quoted => quoted = false,
            '"' if at_value => quoted = true,
            '=' if !quoted => at_value = true,
            c if !quoted && separators.contains(&c) => {
                pieces.push(text.get(start..at).unwrap_or_default());
                start = at + c.len_utf8();
                at_value = false;
            }
            ' ' => {}
            _ => at_value = false,
        }
    }
    if quoted {
        return Err(DnError::Unfinished);
    }
    pieces.push(text.get(start..).unwrap_or_default());
    Ok(pieces)
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// A value's common form: no case, one blank where there were several, and nothing that ends a line.
fn common(bytes: &[u8]) -> Result<String, DnError> {
    let mut out = String::new();
    let chars = bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(|&byte| char::from(byte))));
    for c in chars {
        match c {
            ' ' if out.is_empty() || out.ends_with(' ') => {}
            '\u{300}'..='\u{36f}' => return Err(DnError::Combining(c)),
            // So that reading this form gives it again.
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
            }
            // Its small form is two characters, the second a combining mark.
            'İ' => out.push('i'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out.truncate(out.trim_end_matches(' ').len());
    if out.is_empty() { Err(DnError::NoValue) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(text: &str) -> String {
        Dn::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).owner
    }

    #[test]
    fn both_spellings_are_one_name() {
        let jan = "/c=nl/o=nikhef/cn=jan";
        for text in [
            "/C=NL/O=nikhef/CN=Jan",
            "CN=Jan,O=nikhef,C=NL",
            "cn=Jan, o=nikhef , c=NL",
            "CN = Jan; O = nikhef; C = NL",
            "C = NL, O = nikhef, CN = Jan",
            "C=NL,O=nikhef,CN=Jan",
            "/c=nl/O=NIKHEF/cn=JAN",
            "/C=NL/O= nikhef /CN=Jan",
            "2.5.4.3=Jan,OID.2.5.4.10=nikhef,2.5.4.6=NL",
            "CN=\"Jan\",O=nikhef,C=NL",
            r"CN=J\61n,O=nikhef,C=NL",
            r"/C=NL/O=nikhef/CN=J\x61n",
            "CN=#0C034A616E,O=nikhef,C=NL",
            "CN=#1e06004a0061006e,O=nikhef,C=NL",
        ] {
            assert_eq!(owner(text), jan, "{text}");
        }
        assert_ne!(owner("/C=NL/O=nikhef/CN=Janet"), jan);
        assert_ne!(owner("/O=nikhef/C=NL/CN=Jan"), jan);
        // DCs have no rank among themselves: RFC 4514.
        assert_eq!(owner("DC=cern,DC=ch"), "/dc=ch/dc=cern");
        assert_eq!(owner("DC=ch,DC=cern,OU=Users,CN=jdoe"), "/dc=ch/dc=cern/ou=users/cn=jdoe");
    }

    #[test]
    fn types_have_several_names() {
        for text in ["/O=x/Email=a@b", "/O=x/emailAddress=A@B", "E=a@b,O=x", "1.2.840.113549.1.9.1=a@b,O=x"] {
            assert_eq!(owner(text), "/o=x/emailaddress=a@b", "{text}");
        }
        for text in ["/O=x/UID=jan", "/O=x/USERID=jan", "UID=jan,O=x", "0.9.2342.19200300.100.1.1=jan,O=x"] {
            assert_eq!(owner(text), "/o=x/uid=jan", "{text}");
        }
    }

    #[test]
    fn values_may_hold_separators() {
        assert_eq!(owner("/O=x/CN=host/www.example.org"), "/o=x/cn=host/www.example.org");
        assert_eq!(owner("CN=host/www.example.org,O=x"), "/o=x/cn=host/www.example.org");
        assert_eq!(owner(r"CN=Jan\, Dr.,O=a\+b"), "/o=a+b/cn=jan, dr.");
        assert_eq!(owner("CN=\"Jan, Dr.\",O=x"), "/o=x/cn=jan, dr.");
        assert_eq!(owner("/O=x/CN=Jan, Dr."), "/o=x/cn=jan, dr.");
        assert_eq!(owner("CN=Jan+UID=j,O=x"), owner("UID=j+CN=Jan,O=x"));
        assert_eq!(owner(r"CN=J\C3\A4n,O=x"), "/o=x/cn=jän");
        assert_eq!(owner(r"/O=x/CN=J\xC3\xA4n"), owner("/O=x/CN=JÄN"));
        // A byte that is no UTF-8 is Latin-1, and U+0085 is a control character.
        assert_eq!(owner(r"/O=x/CN=a\xD6b\x0A"), r"/o=x/cn=aöb\x0a");
        assert_eq!(owner(r"/O=x/CN=a\x85b"), r"/o=x/cn=a\xc2\x85b");
        assert_eq!(owner(&owner(r"/O=x/CN=a\x85b")), r"/o=x/cn=a\xc2\x85b");
        assert_eq!(owner(r"/O=x/CN=a\b"), owner(r"CN=a\\b,O=x"));
        assert_eq!(owner(r"CN=\ Jan\ ,O=x"), "/o=x/cn=jan");
    }

    #[test]
    fn a_proxy_is_its_owner() {
        for more in [
            "",
            "/CN=proxy",
            "/CN=limited proxy",
            "/CN=Proxy/CN=Limited  Proxy",
            "/CN=1234567",
            "/CN=1/CN=2",
            "/CN=restricted proxy",
        ] {
            assert_eq!(owner(&format!("/O=x/CN=Jan{more}")), "/o=x/cn=jan", "{more}");
        }
        assert_eq!(owner("CN=123,CN=proxy,CN=Jan,O=x"), "/o=x/cn=jan");
        // A person with a number, and one whose name follows a number.
        assert_eq!(owner("/O=x/OU=People/CN=1234"), "/o=x/ou=people/cn=1234");
        assert_eq!(owner("/OU=Users/CN=jdoe/CN=1234/CN=John Doe"), "/ou=users/cn=jdoe/cn=1234/cn=john doe");
        assert_eq!(Dn::parse("/O=x/CN=Jan/CN=77").unwrap().whole, "/o=x/cn=jan/cn=77");
    }

    #[test]
    fn prefixes_are_of_the_same_form() {
        let cases = [
            ("/C=NL/O=nik", "/c=nl/o=nik"),
            ("/C=NL/O=nikhef/", "/c=nl/o=nikhef/"),
            ("/C=NL/O=nikhef/C", "/c=nl/o=nikhef/c"),
            ("/O=x/CN=Jan ", "/o=x/cn=jan "),
            ("/", "/"),
        ];
        for (text, expected) in cases {
            assert_eq!(prefix(text).unwrap(), expected, "{text}");
        }
        assert_eq!(prefix("CN=Jan,O=x"), Err(DnError::NoType));
    }

    #[test]
    fn what_is_no_name_is_said() {
        let long = format!("/CN={}", "x".repeat(LONGEST));
        let many = "/CN=x".repeat(MAX_PARTS + 1);
        let cases = [
            ("", DnError::NoType),
            ("/", DnError::NoType),
            ("Jan", DnError::NoType),
            ("/Jan", DnError::NoType),
            ("/atlas/Role=pilot", DnError::NoType),
            ("CN=Jan,nikhef", DnError::NoType),
            ("CN=Jan,,O=x", DnError::NoType),
            ("=Jan", DnError::NoType),
            ("/CN=", DnError::NoValue),
            ("/CN= /O=x", DnError::NoValue),
            ("CN=\"Jan,O=x", DnError::Unfinished),
            ("CN=Jan\\", DnError::Unfinished),
            ("CN=#0C04414243,O=x", DnError::BadEncoding),
            ("CN=#0201FF,O=x", DnError::BadEncoding),
            ("CN=#0", DnError::BadEncoding),
            ("/VO=atlas/GROUP=/atlas", DnError::OldGroup),
            (&long, DnError::TooLong),
            (&many, DnError::TooManyParts),
        ];
        for (text, error) in cases {
            assert_eq!(Dn::parse(text), Err(error), "{text}");
        }
    }
}
