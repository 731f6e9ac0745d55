//! `ban.list`: whose work a site forbids, in the form of a grid-mapfile, as LCMAPS' `ban_dn` and `ban_fqan` read it.
//!
//! ```text
//! list    = *line                     ; every line ends with a line feed, the last one too
//! line    = blanks [ "#" anything | subject [ blanks anything ] ]
//! subject = DQUOTE (dn | dn "*" | fqan | fqan "*") DQUOTE | fqan | fqan "*"
//! fqan    = 1*("/" name) ["/Role=" name] ["/Capability=" name]      ; the first name is the VO's
//! ```
//!
//! A name ([`super::dn`]) stands in quotation marks, in which `\"` is a mark of the name's own; a VO, group or role may stand
//! without. What follows is a mapfile's account and is passed over. A `*` at the end bans everything that begins so; of
//! names it goes with the slash spelling alone. `/atlas` is everybody in the VO, `/atlas/Role=pilot` that role of that
//! group.
//!
//! One line that cannot be read makes the whole list unreadable, and nobody's work runs then: a ban that is passed over
//! is worse than a day without work. For the same reason an empty file is no list, and one whose last line does not end
//! may be cut off.

use std::str;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dn::{self, Dn, DnError};
use super::fqan::{self, Fqan, FqanError};
use crate::text::printable_bytes;

/// Longest list that is read, bytes.
pub const LONGEST: usize = 1 << 20;
/// A site bans tens of people, the whole grid some hundreds.
pub const MAX_RULES: usize = 10_000;
/// Longest line, bytes.
const MAX_LINE: usize = 4096;
/// Of a wrong line, what an error shows.
const SHOWN: usize = 120;

/// Why a list is not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ListError {
    /// Longer than [`LONGEST`].
    #[error("{file}: more than {LONGEST} bytes")]
    TooLong {
        /// The list as its reader knows it: `ban.list`, or a URL.
        file: String,
    },
    /// No byte at all.
    #[error("{file}: empty; a list that bans nobody says so in a comment")]
    Empty {
        /// The list.
        file: String,
    },
    /// More than [`MAX_RULES`].
    #[error("{file}: more than {MAX_RULES} rules")]
    TooManyRules {
        /// The list.
        file: String,
    },
    /// The last line has no line feed.
    #[error("{file}:{line}: the last line does not end; the list may be cut off")]
    CutOff {
        /// The list.
        file: String,
        /// From 1.
        line: u32,
    },
    /// A line that is no rule.
    #[error("{file}:{line}: {why}: {text}")]
    Line {
        /// The list.
        file: String,
        /// From 1.
        line: u32,
        /// What is wrong.
        why: String,
        /// The line, as far as it is shown.
        text: String,
    },
}

impl ListError {
    /// From 1; 0 if it is about the list as a whole.
    pub fn line(&self) -> u32 {
        match self {
            Self::CutOff { line, .. } | Self::Line { line, .. } => *line,
            Self::TooLong { .. } | Self::Empty { .. } | Self::TooManyRules { .. } => 0,
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, Error, PartialEq, Eq)]
enum Wrong {
    #[error("not UTF-8")]
    NotText,
    #[error("a control character")]
    Control,
    #[error("longer than {MAX_LINE} bytes")]
    TooLong,
    #[error("the quotation mark is not closed")]
    Open,
    #[error("no blank behind the quotation mark")]
    Behind,
    #[error("neither a name in quotation marks nor a VO, group or role such as /atlas/Role=pilot")]
    Unknown,
    #[error("a name stands in quotation marks")]
    Bare,
    #[error("a * goes with the spelling /C=.../CN=...* alone")]
    Star,
    #[error("{0}")]
    Dn(#[from] DnError),
    #[error("{0}")]
    Fqan(#[from] FqanError),
}

/// What a site's list says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rule>", into = "Vec<Rule>")]
pub struct List {
    rules: Vec<Rule>,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// From 1.
    pub line: u32,
    /// Who is banned.
    pub subject: Subject,
    /// As the line has it, for people.
    pub text: String,
}

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// One person, by [`Dn::owner`].
    Person(String),
    /// Everybody whose name begins so.
    People(String),
    /// A VO, group or role.
    Group(Fqan),
    /// Everything of that kind that begins so.
    Groups(String),
}

impl List {
    /// In the order of the lines.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl From<List> for Vec<Rule> {
    fn from(list: List) -> Self {
        list.rules
    }
}

impl TryFrom<Vec<Rule>> for List {
    type Error = String;

    /// For a list that came from a role with less privilege: the bounds hold whatever that role says.
    fn try_from(rules: Vec<Rule>) -> Result<Self, String> {
        let fits = |text: &String| text.len() <= MAX_LINE && !text.chars().any(char::is_control);
        let right = |rule: &Rule| {
            fits(&rule.text)
                && match &rule.subject {
                    Subject::Person(name) | Subject::People(name) | Subject::Groups(name) => fits(name),
                    Subject::Group(group) => fits(&group.group) && group.role.as_ref().is_none_or(fits),
                }
        };
        if rules.len() > MAX_RULES || !rules.iter().all(right) {
            return Err("not a ban list that a reader of ours has made".to_owned());
        }
        Ok(Self { rules })
    }
}

/// Reads a list; `file` is what errors call it.
///
/// # Errors
/// One [`ListError`] for the first thing that is wrong.
pub fn parse(file: &str, bytes: &[u8]) -> Result<List, ListError> {
    let file = || file.to_owned();
    if bytes.len() > LONGEST {
        return Err(ListError::TooLong { file: file() });
    }
    if bytes.is_empty() {
        return Err(ListError::Empty { file: file() });
    }
    let mut rules = Vec::new();
    for (bytes, line) in bytes.split_inclusive(|&byte| byte == b'\n').zip(1..) {
        let Some(bytes) = bytes.strip_suffix(b"\n") else { return Err(ListError::CutOff { file: file(), line }) };
        let rule = rule(bytes.strip_suffix(b"\r").unwrap_or(bytes)).map_err(|why| ListError::Line {
            file: file(),
            line,
            why: why.to_string(),
            text: printable_bytes(bytes.get(..SHOWN).unwrap_or(bytes)).replace('\t', " "),
        })?;
        if let Some((subject, text)) = rule {
            rules.push(Rule { line, subject, text });
        }
        if rules.len() > MAX_RULES {
            return Err(ListError::TooManyRules { file: file() });
        }
    }
    Ok(List { rules })
}

/// A line's rule and the text that it was made from; none of a comment.
fn rule(bytes: &[u8]) -> Result<Option<(Subject, String)>, Wrong> {
    if bytes.len() > MAX_LINE {
        return Err(Wrong::TooLong);
    }
    let line = str::from_utf8(bytes).map_err(|_| Wrong::NotText)?;
    let line = line.trim_matches([' ', '\t']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Wrong::Control);
    }
    let (text, quoted) = match line.strip_prefix('"') {
        Some(rest) => (quoted(rest)?, true),
        None => (line.split([' ', '\t']).next().unwrap_or_default().to_owned(), false),
    };
    let subject = subject(&text, quoted)?;
    Ok(Some((subject, text)))
}

/// Up to the closing mark. Backslashes stay: they are the name's own, and a mark within a name needs one in any case.
fn quoted(rest: &str) -> Result<String, Wrong> {
    let mut text = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next().ok_or(Wrong::Open)? {
            '"' => break,
            '\\' => text.extend(['\\', chars.next().ok_or(Wrong::Open)?]),
            other => text.push(other),
        }
    }
    if chars.next().is_some_and(|next| !matches!(next, ' ' | '\t')) { Err(Wrong::Behind) } else { Ok(text) }
}

fn subject(text: &str, quoted: bool) -> Result<Subject, Wrong> {
    let (stem, star) = text.strip_suffix('*').map_or((text, false), |stem| (stem, true));
    // A VO's name holds no `=`, a distinguished name's first part always does.
    let first = stem.strip_prefix('/').map(|rest| rest.split('/').next().unwrap_or_default());
    match first {
        Some(first) if !(first.contains('=') || first.is_empty() && quoted) => Ok(match star {
            true => Subject::Groups(fqan::prefix(stem)?),
            false => Subject::Group(Fqan::parse(stem)?),
        }),
        None if !text.contains('=') => Err(Wrong::Unknown),
        _ if !quoted => Err(Wrong::Bare),
        None if star => Err(Wrong::Star),
        _ if star => Ok(Subject::People(dn::prefix(stem)?)),
        _ => Ok(Subject::Person(Dn::parse(text)?.owner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(text: &str) -> Vec<(u32, Subject)> {
        let list = parse("ban.list", text.as_bytes()).unwrap();
        list.rules().iter().map(|rule| (rule.line, rule.subject.clone())).collect()
    }

    #[test]
    fn every_kind_of_line() {
        let text = "# bans of the site\n\n  \t\n\"/C=NL/O=nikhef/CN=Jan\" .ban # of May\n\t\"CN=Piet\\, Dr.,O=x\"\r\n\
            \"/O=x/CN=\\\"Ad\\\"\"\n\"/O=evil/*\"\n/atlas\n/atlas/nl/Role=pilot .atlas\n\"/cms/*\" .cms\n\"/*\"\n";
        let group = |group: &str, role: Option<&str>| {
            Subject::Group(Fqan { group: group.to_owned(), role: role.map(str::to_owned) })
        };
        let expected = [
            (4, Subject::Person("/c=nl/o=nikhef/cn=jan".to_owned())),
            (5, Subject::Person("/o=x/cn=piet, dr.".to_owned())),
            (6, Subject::Person("/o=x/cn=\"ad\"".to_owned())),
            (7, Subject::People("/o=evil/".to_owned())),
            (8, group("/atlas", None)),
            (9, group("/atlas/nl", Some("pilot"))),
            (10, Subject::Groups("/cms/".to_owned())),
            (11, Subject::People("/".to_owned())),
        ];
        assert_eq!(subjects(text), expected);
        assert_eq!(subjects("# nobody\n"), []);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let mark = ": the name holds the combining mark U+0308; write the letter with its mark as one character";
        let (combined, escaped) =
            (format!("ban.list:1{mark}: \"/CN=Ju\u{308}rgen\""), format!("ban.list:1{mark}: \"CN=Ju\\CC\\88r,O=x\""));
        let cases: [(&[u8], &str); 19] = [
            ("\"/CN=Ju\u{308}rgen\"\n".as_bytes(), &combined),
            ("\"/CN=Ju\u{308}*\"\n".as_bytes(), &combined.replace("rgen", "*")),
            (b"\"CN=Ju\\CC\\88r,O=x\"\n", &escaped),
            (b"", "ban.list: empty; a list that bans nobody says so in a comment"),
            (b"# x\n/atlas", "ban.list:2: the last line does not end; the list may be cut off"),
            (b"\"/O=x/CN=J\n", "ban.list:1: the quotation mark is not closed: \"/O=x/CN=J"),
            (b"\"/O=x/CN=J\"x\n", "ban.list:1: no blank behind the quotation mark: \"/O=x/CN=J\"x"),
            (b"/O=x/CN=Jan Smit\n", "ban.list:1: a name stands in quotation marks: /O=x/CN=Jan Smit"),
            (b"CN=Jan,O=x\n", "ban.list:1: a name stands in quotation marks: CN=Jan,O=x"),
            (
                b"atlas\n",
                "ban.list:1: neither a name in quotation marks nor a VO, group or role such as /atlas/Role=pilot: atlas",
            ),
            (
                b"\"*\"\n",
                "ban.list:1: neither a name in quotation marks nor a VO, group or role such as /atlas/Role=pilot: \"*\"",
            ),
            (b"\"CN=Jan,O=x*\"\n", "ban.list:1: a * goes with the spelling /C=.../CN=...* alone: \"CN=Jan,O=x*\""),
            (b"\"/CN=\"\n", "ban.list:1: a part of the name has no value: \"/CN=\""),
            (b"/atlas/Role=\n", "ban.list:1: not of the form /vo/group/Role=name: /atlas/Role="),
            (b"\n\n\"/CN=\xff\"\n", "ban.list:3: not UTF-8: \"/CN=\\xff\""),
            (b"\"/CN=\x1b[2J\"\n", "ban.list:1: a control character: \"/CN=\\u{1b}[2J\""),
            (b"/\n", "ban.list:1: not of the form /vo/group/Role=name: /"),
            (
                b"\"\"\n",
                "ban.list:1: neither a name in quotation marks nor a VO, group or role such as /atlas/Role=pilot: \"\"",
            ),
            (
                b"\"/VO=a/GROUP=/a\"\n",
                "ban.list:1: the old form /VO=.../GROUP=... is not taken; write the group as /atlas or /atlas/Role=pilot: \"/VO=a/GROUP=/a\"",
            ),
        ];
        for (text, complaint) in cases {
            assert_eq!(parse("ban.list", text).unwrap_err().to_string(), complaint);
        }
    }

    #[test]
    fn bounds() {
        let line = format!("\"/CN={}\"\n", "x".repeat(MAX_LINE));
        assert!(matches!(parse("f", line.as_bytes()), Err(ListError::Line { .. })));
        assert_eq!(parse("f", &vec![b'#'; LONGEST + 1]), Err(ListError::TooLong { file: "f".to_owned() }));
        let many = "/a\n".repeat(MAX_RULES + 1);
        assert_eq!(parse("f", many.as_bytes()), Err(ListError::TooManyRules { file: "f".to_owned() }));
        assert_eq!(subjects(&"/a\n".repeat(MAX_RULES)).len(), MAX_RULES);
    }

    #[test]
    fn a_list_of_another_process_is_checked() {
        let list = parse("f", b"\"/O=x/CN=Jan\"\n/atlas\n").unwrap();
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<List>(&json).unwrap(), list);
        assert!(serde_json::from_str::<List>(&json.replace("Jan", "J\\n")).is_err());
        assert!(serde_json::from_str::<List>(&json.replace("/atlas", &"x".repeat(MAX_LINE + 1))).is_err());
    }
}
