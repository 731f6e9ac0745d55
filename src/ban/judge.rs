//! Whether somebody's work may run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fqan;
use super::owner::{Identity, Owner};
use super::parse::{List, Subject};

/// What becomes of work whose owner nobody has named, where there is a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// It does not run: otherwise a banned person only had to leave out the name.
    #[default]
    Refuse,
    /// It runs: the pool is known to belong to nobody else.
    Allow,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may run.
    Allowed,
    /// A line of the list forbids it.
    Banned {
        /// From 1.
        line: u32,
        /// What the line says.
        rule: String,
    },
    /// Nobody says whose it is, and the site wants to know.
    Unknown,
    /// Somebody said it in a way that cannot be read.
    Unreadable(String),
    /// There is no list that could be asked.
    NoList(String),
}

impl Decision {
    /// Whether it may run.
    pub fn is_allowed(&self) -> bool {
        *self == Self::Allowed
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::Banned { line, rule } => write!(f, "banned by line {line}: {rule}"),
            Self::Unknown => f.write_str("refused: nobody says whose it is"),
            Self::Unreadable(why) => write!(f, "refused: whose it is cannot be read: {why}"),
            Self::NoList(why) => write!(f, "refused: {why}"),
        }
    }
}

/// Decides by a list.
pub fn judge(owner: &Owner, list: &List, unknown: Unknown) -> Decision {
    match owner {
        Owner::Known(identity) => match list.rules().iter().find(|rule| concerns(&rule.subject, identity)) {
            Some(rule) => Decision::Banned { line: rule.line, rule: rule.text.clone() },
            None => Decision::Allowed,
        },
        Owner::Unreadable(why) => Decision::Unreadable(why.clone()),
        Owner::Unknown if unknown == Unknown::Allow => Decision::Allowed,
        Owner::Unknown => Decision::Unknown,
    }
}

fn concerns(subject: &Subject, identity: &Identity) -> bool {
    let dn = identity.dn.as_ref().map(|name| &name.dn);
    match subject {
        Subject::Person(name) => dn.is_some_and(|dn| dn.owner == *name),
        Subject::People(prefix) => dn.is_some_and(|dn| dn.owner.starts_with(prefix) || dn.whole.starts_with(prefix)),
        Subject::Group(group) => identity.groups.iter().any(|of| group.covers(of)),
        Subject::Groups(prefix) => identity.groups.iter().any(|of| fqan::begins(of, prefix)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    const LIST: &str = "# bans\n\"/C=NL/O=nikhef/CN=Jan\"\n\"CN=Piet,O=x\"\n\"/O=evil/*\"\n/cms/Role=pilot\n/lhcb\n";

    fn decide(media_type: &str, unknown: Unknown) -> Decision {
        let list = parse("ban.list", LIST.as_bytes()).unwrap();
        judge(&Owner::of_media_type(media_type.as_bytes()), &list, unknown)
    }

    #[test]
    fn who_may_run() {
        let cases = [
            ("owner=\"/C=NL/O=nikhef/CN=Jan\"", Some(2)),
            ("owner=\"CN=Jan, O=nikhef, C=NL\"", Some(2)),
            ("owner=\"/C=NL/O=nikhef/CN=jan/CN=limited proxy\"", Some(2)),
            ("owner=\"/C=NL/O=nikhef/CN=Jan/CN=7\"", Some(2)),
            ("owner=\"/C=NL/O=nikhef/CN=Janet\"", None),
            ("owner=\"/O=x/CN=Piet\"", Some(3)),
            ("owner=\"/O=evil/CN=anybody\"", Some(4)),
            ("owner=\"/O=evil\"", None),
            ("owner=\"/O=x/CN=Ad\"; fqan=/cms", None),
            ("owner=\"/O=x/CN=Ad\"; fqan=/cms/Role=pilot", Some(5)),
            ("vo=lhcb", Some(6)),
            ("fqan=/lhcb/nl/Role=x", Some(6)),
            ("vo=atlas", None),
        ];
        for (parameter, line) in cases {
            let found = match decide(&format!("text/plain; {parameter}"), Unknown::Refuse) {
                Decision::Banned { line, .. } => Some(line),
                Decision::Allowed => None,
                other => panic!("{parameter}: {other}"),
            };
            assert_eq!(found, line, "{parameter}");
        }
    }

    #[test]
    fn whom_nobody_has_named() {
        assert_eq!(decide("text/plain", Unknown::Refuse), Decision::Unknown);
        assert_eq!(decide("text/plain", Unknown::Allow), Decision::Allowed);
        // Half a name is not none.
        assert!(matches!(decide("a/b; owner=\"/C=NL", Unknown::Allow), Decision::Unreadable(_)));
    }
}
