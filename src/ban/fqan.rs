//! VOs, groups and roles as VOMS writes them: `/atlas/nl/Role=pilot/Capability=NULL`. The first part is the VO.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest that is read, bytes; VOMS keeps 255.
const LONGEST: usize = 256;

/// Why a text is no FQAN.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FqanError {
    /// Longer than [`LONGEST`].
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    /// Not `/vo`, `/vo/group`, or one of these with `/Role=name`.
    #[error("not of the form /vo/group/Role=name")]
    Form,
}

/// A group, and a role in it, without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fqan {
    /// `/atlas/nl`.
    pub group: String,
    /// None for `Role=NULL`, too.
    pub role: Option<String>,
}

impl Fqan {
    /// Reads one. The capability, which nobody uses any more, is passed over.
    ///
    /// # Errors
    /// Anything else than groups, a role, a capability.
    pub fn parse(text: &str) -> Result<Self, FqanError> {
        if text.len() > LONGEST {
            return Err(FqanError::TooLong);
        }
        let text = text.to_ascii_lowercase();
        let (rest, capability) = text.split_once("/capability=").map_or((text.as_str(), None), |(r, c)| (r, Some(c)));
        let (group, role) = rest.split_once("/role=").map_or((rest, None), |(g, r)| (g, Some(r)));
        let groups = group.strip_prefix('/').is_some_and(|groups| groups.split('/').all(is_name));
        if !groups || !role.is_none_or(is_name) || !capability.is_none_or(is_name) {
            return Err(FqanError::Form);
        }
        Ok(Self { group: group.to_owned(), role: role.filter(|role| *role != "null").map(str::to_owned) })
    }

    /// Whether a ban of this concerns a member of `other`. Who is in a group of a VO is in all groups above it, and who
    /// has a role in a group is in that group.
    pub fn covers(&self, other: &Self) -> bool {
        match &self.role {
            Some(_) => self == other,
            None => other.group.strip_prefix(&self.group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// `/atlas/nl/role=pilot`.
    pub fn text(&self) -> String {
        let role = self.role.as_ref().map(|role| format!("/role={role}")).unwrap_or_default();
        format!("{}{role}", self.group)
    }
}

/// What stands before a `*`, as [`Fqan::text`] has it. `/atlas/*` is `/atlas` with all below.
///
/// # Errors
/// As [`Fqan::parse`].
pub fn prefix(text: &str) -> Result<String, FqanError> {
    let whole = text.trim_end_matches('/');
    let whole = whole.strip_suffix('=').map_or(whole.to_owned(), |open| format!("{open}=x"));
    Fqan::parse(&whole)?;
    Ok(text.to_ascii_lowercase())
}

/// Whether one of its names begins so.
pub fn begins(fqan: &Fqan, prefix: &str) -> bool {
    let text = fqan.text();
    text.starts_with(prefix) || prefix.strip_suffix('/') == Some(text.as_str())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fqan(text: &str) -> Fqan {
        Fqan::parse(text).unwrap()
    }

    #[test]
    fn groups_and_roles() {
        assert_eq!(fqan("/atlas/Role=NULL/Capability=NULL"), fqan("/ATLAS"));
        assert_eq!(fqan("/atlas/nl/Role=pilot/Capability=NULL").text(), "/atlas/nl/role=pilot");
        for text in ["", "/", "atlas", "//atlas", "/atlas/", "/a b", "/atlas/Role=", "/atlas/Role=a/b", "/C=NL/O=x"] {
            assert_eq!(Fqan::parse(text), Err(FqanError::Form), "{text}");
        }
        assert_eq!(Fqan::parse(&format!("/{}", "x".repeat(LONGEST))), Err(FqanError::TooLong));
    }

    #[test]
    fn a_group_covers_what_is_in_it() {
        let cases = [
            ("/atlas", "/atlas", true),
            ("/atlas", "/atlas/Role=pilot", true),
            ("/atlas", "/atlas/nl/Role=pilot", true),
            ("/atlas", "/atlas2", false),
            ("/atlas/nl", "/atlas", false),
            ("/atlas/Role=pilot", "/atlas/Role=pilot", true),
            ("/atlas/Role=pilot", "/atlas", false),
            ("/atlas/Role=pilot", "/atlas/nl/Role=pilot", false),
        ];
        for (rule, member, expected) in cases {
            assert_eq!(fqan(rule).covers(&fqan(member)), expected, "{rule} {member}");
        }
    }

    #[test]
    fn wildcards() {
        let cases = [
            ("/atlas", "/atlas2", true),
            ("/atlas/", "/atlas", true),
            ("/atlas/", "/atlas/nl", true),
            ("/atlas/", "/atlas2", false),
            ("/atlas/Role=", "/atlas/Role=pilot", true),
            ("/atlas/Role=", "/atlas", false),
        ];
        for (rule, member, expected) in cases {
            assert_eq!(begins(&fqan(member), &prefix(rule).unwrap()), expected, "{rule}* {member}");
        }
        assert!(prefix("atlas").is_err());
    }
}
