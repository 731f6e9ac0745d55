//! Whose a token is, as far as anybody has said.
//!
//! A ToPoS server knows no people, but it keeps the media type that a token was put in with, and hands it out with the
//! token. So the owner stands in parameters of that (RFC 9110, 8.3.1):
//!
//! ```text
//! Content-Type: text/plain; owner="/C=NL/O=nikhef/CN=Jan"; vo=atlas; fqan="/atlas/Role=pilot"
//! ```
//!
//! `fqan` may come several times, `owner` and `vo` once. It goes with every server of the protocol, and leaves the
//! token's value to the payload. It is the word of whoever fills the pool: a site that bans by it trusts that VO to name
//! its users, as it does with every pilot framework. Real servers keep 255 ASCII characters; what is cut off there
//! shows as a quotation mark that is not closed, and such an owner counts as unreadable and not as none.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dn::{self, Dn};
use super::fqan::Fqan;
use crate::text::{printable, printable_bytes};

/// VOs, groups and roles of one token.
const MAX_GROUPS: usize = 32;

/// Whose work something is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Nobody has said.
    #[default]
    Unknown,
    /// Somebody has.
    Known(Box<Identity>),
    /// It was said in a way that cannot be read; the text says why.
    Unreadable(String),
}

/// Who somebody is. At least one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The person's name.
    pub dn: Option<Name>,
    /// VO, groups and roles.
    pub groups: Vec<Fqan>,
}

/// A person's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// As it was said, for people and for the log.
    pub text: String,
    /// To compare with.
    pub dn: Dn,
}

impl Owner {
    /// Reads a token's media type.
    pub fn of_media_type(bytes: &[u8]) -> Self {
        match identity(bytes) {
            Ok(None) => Self::Unknown,
            Ok(Some(identity)) => Self::Known(Box::new(identity)),
            Err(why) => Self::Unreadable(why.replace('\t', " ")),
        }
    }

    /// What a process with less privilege has read, within bounds whatever that process says.
    pub fn checked(self) -> Self {
        // An escaped character takes eight times its bytes at most.
        let fits = |text: &String| text.len() <= dn::LONGEST * 8 && !text.chars().any(char::is_control);
        let right = match &self {
            Self::Unknown => true,
            Self::Unreadable(why) => fits(why),
            Self::Known(identity) => {
                let Identity { dn, groups } = identity.as_ref();
                let name = |name: &Name| fits(&name.text) && fits(&name.dn.whole) && fits(&name.dn.owner);
                let group = |group: &Fqan| fits(&group.group) && group.role.as_ref().is_none_or(fits);
                (dn.is_some() || !groups.is_empty())
                    && dn.as_ref().is_none_or(name)
                    && groups.len() <= MAX_GROUPS
                    && groups.iter().all(group)
            }
        };
        if right { self } else { Self::Unreadable("the worker's word is out of bounds".to_owned()) }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Unreadable(why) => write!(f, "unreadable: {why}"),
            Self::Known(identity) => match &identity.dn {
                Some(name) => f.write_str(&printable(&name.text)),
                None => f.write_str(&identity.groups_text()),
            },
        }
    }
}

impl Identity {
    /// Separated by blanks, which no group holds.
    pub fn groups_text(&self) -> String {
        self.groups.iter().map(Fqan::text).collect::<Vec<_>>().join(" ")
    }
}

fn identity(bytes: &[u8]) -> Result<Option<Identity>, String> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(format!("the media type is not UTF-8: {}", printable_bytes(bytes.get(..80).unwrap_or(bytes))));
    };
    let (mut dn, mut vo, mut groups) = (None, None, Vec::new());
    for (name, value) in parameters(text)? {
        let wrong = |error: &dyn fmt::Display| format!("{name}: {error}");
        match name.to_ascii_lowercase().as_str() {
            "owner" => {
                let name = Name {
                    dn: Dn::parse(&value).map_err(|error| wrong(&error))?,
                    text: printable(&value).replace('\t', " "),
                };
                if dn.replace(name).is_some() {
                    return Err("two owners".to_owned());
                }
            }
            "vo" => {
                let group = Fqan::parse(&format!("/{value}")).map_err(|error| wrong(&error))?;
                if vo.replace(group).is_some() {
                    return Err("two VOs".to_owned());
                }
            }
            "fqan" => groups.push(Fqan::parse(&value).map_err(|error| wrong(&error))?),
            _ => {}
        }
    }
    groups.extend(vo);
    if groups.len() > MAX_GROUPS {
        return Err(format!("more than {MAX_GROUPS} groups"));
    }
    Ok((dn.is_some() || !groups.is_empty()).then_some(Identity { dn, groups }))
}

/// The parameters behind a media type, name and value.
fn parameters(text: &str) -> Result<Vec<(&str, String)>, String> {
    let Some((_, mut rest)) = text.split_once(';') else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Ok(found);
        }
        let Some((name, behind)) = rest.split_once('=') else {
            return Err(format!("a parameter without a value: {}", printable(rest)));
        };
        let value = if let Some(quoted) = behind.strip_prefix('"') {
            let (value, behind) = quoted_string(quoted).ok_or_else(|| format!("{}: not closed", printable(name)))?;
            rest = behind;
            value
        } else {
            let end = behind.find(';').unwrap_or(behind.len());
            let (value, behind) = behind.split_at_checked(end).unwrap_or((behind, ""));
            rest = behind;
            value.trim_end().to_owned()
        };
        if !rest.trim_start().is_empty() && !rest.trim_start().starts_with(';') {
            return Err(format!("{}: more behind the value", printable(name)));
        }
        found.push((name.trim(), value));
    }
}

/// RFC 9110, 5.6.4; returns what follows, too. But a backslash stays before anything that is neither a mark nor a
/// backslash: `\x41` of a name must come through tools that never heard of that rule.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                '"' => value.push('"'),
                '\\' => value.push('\\'),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> (Option<String>, String) {
        match Owner::of_media_type(text.as_bytes()) {
            Owner::Known(identity) => (identity.dn.clone().map(|name| name.dn.owner), identity.groups_text()),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn owners_of_tokens() {
        let jan = Some("/o=x/cn=jan".to_owned());
        assert_eq!(known("text/plain; owner=\"/O=x/CN=Jan\""), (jan.clone(), String::new()));
        assert_eq!(known("text/plain;owner=\"CN=Jan, O=x\" ; VO=Atlas"), (jan.clone(), "/atlas".to_owned()));
        assert_eq!(known("text/plain; owner=/O=x/CN=Jan/CN=proxy; q=1"), (jan, String::new()));
        assert_eq!(
            known("a/b; fqan=\"/atlas/Role=pilot/Capability=NULL\"; fqan=/atlas"),
            (None, "/atlas/role=pilot /atlas".to_owned())
        );
        assert_eq!(known(r#"a/b; owner="/O=x/CN=\"J\" \xC3\xA4""#).0.unwrap(), "/o=x/cn=\"j\" ä");
        for text in ["", "text/plain", "text/plain; charset=utf-8", "text/plain;", "x; owners=\"/CN=x\""] {
            assert_eq!(Owner::of_media_type(text.as_bytes()), Owner::Unknown, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_nobody() {
        let cases = [
            ("text/plain; owner=\"/O=x/CN=Ja", "owner: not closed"),
            ("text/plain; owner=\"/O=x/CN=Jan\"x", "owner: more behind the value"),
            ("text/plain; owner=Jan", "owner: a part of the name has no type (TYPE=value)"),
            ("text/plain; owner", "a parameter without a value: owner"),
            ("text/plain; owner=\"/CN=a\"; owner=\"/CN=b\"", "two owners"),
            ("text/plain; vo=a; vo=b", "two VOs"),
            (
                "text/plain; owner=\"/O=x/CN=Ju\u{308}rgen\"",
                "owner: the name holds the combining mark U+0308; write the letter with its mark as one character",
            ),
            ("text/plain; vo=\"a b\"", "vo: not of the form /vo/group/Role=name"),
        ];
        for (text, why) in cases {
            assert_eq!(Owner::of_media_type(text.as_bytes()), Owner::Unreadable(why.to_owned()), "{text}");
        }
        assert!(matches!(Owner::of_media_type(b"text/plain; owner=\"\xff\""), Owner::Unreadable(_)));
    }

    #[test]
    fn the_worker_is_held_to_the_bounds() {
        let owner = Owner::of_media_type(b"a/b; owner=\"/O=x/CN=Jan\"; vo=atlas");
        assert_eq!(owner.clone().checked(), owner);
        let Owner::Known(mut identity) = owner else { panic!() };
        identity.groups = vec![Fqan { group: "/a\n".to_owned(), role: None }];
        assert!(matches!(Owner::Known(identity).checked(), Owner::Unreadable(_)));
        let nobody = Identity { dn: None, groups: Vec::new() };
        assert!(matches!(Owner::Known(Box::new(nobody)).checked(), Owner::Unreadable(_)));
    }
}
