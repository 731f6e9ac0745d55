//! Whether somebody's work may run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::dn::{Dn, Parts};
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
    /// Somebody says half of it, and the list asks for the other half: the person, or the VO.
    Half(Missing),
    /// Somebody said it in a way that cannot be read.
    Unreadable(String),
    /// There is no list that could be asked.
    NoList(String),
}

/// What nobody has said of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The name.
    Person,
    /// VO, group or role.
    Group,
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
            Self::Half(Missing::Person) => {
                f.write_str("refused: nobody says which person's it is, and the list bans persons")
            }
            Self::Half(Missing::Group) => {
                f.write_str("refused: nobody says of which VO or group it is, and the list bans some")
            }
            Self::Unreadable(why) => write!(f, "refused: whose it is cannot be read: {why}"),
            Self::NoList(why) => write!(f, "refused: {why}"),
        }
    }
}

/// Decides by a list.
pub fn judge(owner: &Owner, list: &List, unknown: Unknown) -> Decision {
    match owner {
        Owner::Known(identity) => {
            let name = identity.dn.as_ref().map(|name| (&name.dn, name.dn.parts()));
            let rule = list.rules().iter().find(|rule| concerns(&rule.subject, identity, name.as_ref()));
            match (rule, missing(identity, list)) {
                (Some(rule), _) => Decision::Banned { line: rule.line, rule: rule.text.clone() },
                (None, Some(missing)) if unknown == Unknown::Refuse => Decision::Half(missing),
                (None, _) => Decision::Allowed,
            }
        }
        Owner::Unreadable(why) => Decision::Unreadable(why.clone()),
        Owner::Unknown if unknown == Unknown::Allow => Decision::Allowed,
        Owner::Unknown => Decision::Unknown,
    }
}

/// What the list asks for and the owner leaves out: a banned person would do just that.
fn missing(identity: &Identity, list: &List) -> Option<Missing> {
    let asks = |personal: bool| {
        let of = |subject: &Subject| matches!(subject, Subject::Person(_) | Subject::People(_)) == personal;
        list.rules().iter().any(|rule| of(&rule.subject))
    };
    if identity.dn.is_none() && asks(true) {
        Some(Missing::Person)
    } else if identity.groups.is_empty() && asks(false) {
        Some(Missing::Group)
    } else {
        None
    }
}

fn concerns(subject: &Subject, identity: &Identity, name: Option<&(&Dn, Parts)>) -> bool {
    match subject {
        Subject::Person(person) => name.is_some_and(|(_, parts)| parts.are_of(person)),
        Subject::People(prefix) => {
            name.is_some_and(|(dn, parts)| dn.whole.starts_with(prefix) || parts.begin_with(prefix))
        }
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
            ("owner=\"/C=NL/O=nikhef/CN=Janet\"; vo=atlas", None),
            ("owner=\"/O=x/CN=Piet\"", Some(3)),
            ("owner=\"/O=evil/CN=anybody\"", Some(4)),
            ("owner=\"/O=evil\"; vo=atlas", None),
            ("owner=\"/O=x/CN=Ad\"; fqan=/cms", None),
            ("owner=\"/O=x/CN=Ad\"; fqan=/cms/Role=pilot", Some(5)),
            ("vo=lhcb", Some(6)),
            ("fqan=/lhcb/nl/Role=x", Some(6)),
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
        let who = "refused: nobody says which person's it is, and the list bans persons";
        let group = "refused: nobody says of which VO or group it is, and the list bans some";
        for (list, parameter, expected) in [
            (LIST, "vo=atlas", who),
            (LIST, "owner=\"/O=x/CN=Ad\"", group),
            ("\"/O=evil/*\"\n", "vo=atlas", who),
            ("\"/O=x/CN=Jan\"\n", "owner=\"/O=x/CN=Ad\"", "allowed"),
            ("\"/cms/*\"\n", "owner=\"/O=x/CN=Ad\"", group),
            ("/cms\n", "vo=atlas", "allowed"),
            ("# nobody\n", "vo=atlas", "allowed"),
        ] {
            let owner = Owner::of_media_type(format!("text/plain; {parameter}").as_bytes());
            let list = parse("ban.list", list.as_bytes()).unwrap();
            assert_eq!(judge(&owner, &list, Unknown::Refuse).to_string(), expected, "{parameter}");
            assert_eq!(judge(&owner, &list, Unknown::Allow), Decision::Allowed, "{parameter}");
        }
        // Half a name is not none.
        assert!(matches!(decide("a/b; owner=\"/C=NL", Unknown::Allow), Decision::Unreadable(_)));
    }

    /// Whether a list of this line alone bans this owner.
    fn banned(rule: &str, owner: &str) -> bool {
        let list = parse("ban.list", format!("\"{rule}\"\n").as_bytes()).unwrap();
        let owner = Owner::of_media_type(format!("a/b; owner=\"{}\"", owner.replace('\\', "\\\\")).as_bytes());
        assert!(matches!(owner, Owner::Known(_)), "{owner}");
        matches!(judge(&owner, &list, Unknown::Allow), Decision::Banned { line: 1, .. })
    }

    #[test]
    fn parts_of_one_place_have_no_order() {
        let spellings = [
            "/O=x/UID=1/CN=Jan",
            "/O=x/CN=Jan/UID=1",
            "/O=x/UID=1+CN=Jan",
            "/O=x/userid=1+2.5.4.3=Jan",
            "CN=Jan+UID=1,O=x",
            "UID=1 + CN=Jan, O=x",
            "O = x, UID = 1 + CN = Jan",
        ];
        for rule in spellings {
            for owner in spellings {
                assert!(banned(rule, owner), "{rule} {owner}");
                if owner.starts_with('/') {
                    for proxy in ["/CN=proxy", "/CN=7", "/CN=restricted proxy/CN=7/CN=8"] {
                        assert!(banned(rule, &format!("{owner}{proxy}")), "{rule} {owner}{proxy}");
                    }
                }
            }
            for other in
                ["/O=x/UID=2/CN=Jan", "/O=x/UID=1", "/O=x/CN=Jan", "/O=x/UID=1/CN=Jan/CN=x", "/O=x/UID=1/CN=Janet"]
            {
                assert!(!banned(rule, other), "{rule} {other}");
            }
            for prefix in ["/O=x/CN=Ja*", "/O=x/UID=1*", "/O=x/*", "/O=x*", "/O=x/CN=Jan/U*"] {
                assert!(banned(prefix, rule), "{prefix} {rule}");
            }
            for prefix in ["/CN=Jan*", "/O=x/O=x*", "/O=x/CN=Janet*", "/UID=1/CN=x*"] {
                assert!(!banned(prefix, rule), "{prefix} {rule}");
            }
        }
        // A number that is somebody's name belongs to no proxy, and a wildcard is for what begins so.
        assert!(!banned("/O=x/OU=People", "/O=x/OU=People/CN=1234"));
        assert!(!banned("/O=x/CN=Jan*", "/O=x/OU=y/CN=Jan"));
        assert!(
            banned("CN=1234+CN=Jan,O=x", "/O=x/CN=Jan/CN=1234") && banned("/O=x/CN=Jan/CN=1234", "CN=1234+CN=Jan,O=x")
        );
        assert!(banned("/O=x/CN=a+b=c", "CN=a\\+b\\=c,O=x") && banned("CN=a/b=c,O=x", "/O=x/CN=a/b=c"));
    }

    #[test]
    fn a_name_in_latin_1_is_the_name() {
        let spellings = [
            "/O=x/CN=J\u{fc}rgen",
            "/O=x/CN=J\\xFCrgen",
            "/O=x/CN=J\\xDCRGEN",
            "/O=x/CN=J\\xC3\\xBCrgen",
            "CN=J\\FCrgen,O=x",
            "CN=#14074afc7267656e20,O=x",
        ];
        for rule in spellings {
            for owner in spellings {
                assert!(banned(rule, owner), "{rule} {owner}");
            }
        }
    }
}
