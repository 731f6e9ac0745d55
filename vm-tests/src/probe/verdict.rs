//! What the probe says of an attempt, as a line of the log; both ends of it.

use std::fmt;

use super::{Breach, Denied, Tried};

/// Before every line.
const WORD: &str = "attempt";

/// How one attempt of one job went, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which job of the case.
    pub label: String,
    /// The attempt's name.
    pub name: String,
    pub how: How,
    /// An errno, or what was found.
    pub detail: String,
}

/// In a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Denied,
    Succeeded,
    Seen,
}

impl How {
    const ALL: [(Self, &str); 3] = [(Self::Denied, "denied"), (Self::Succeeded, "SUCCEEDED"), (Self::Seen, "seen")];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(how, _)| how == self).map_or("", |(_, word)| word);
        f.write_str(word)
    }
}

impl Line {
    pub fn new(label: &str, name: &str, tried: &Tried) -> Self {
        let (how, detail) = match tried {
            Ok(Breach::Escaped(what)) => (How::Succeeded, what.clone()),
            Ok(Breach::Seen(what)) => (How::Seen, what.clone()),
            Err(Denied::Errno(errno)) => (How::Denied, format!("{errno:?}")),
            Err(Denied::Said(what)) => (How::Denied, what.clone()),
        };
        Self { label: label.to_owned(), name: name.to_owned(), how, detail: detail.replace('\n', " ") }
    }

    /// `None`: a line of somebody else.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.split_once(": ")?;
        let [WORD, label, name] = head.split(' ').collect::<Vec<_>>()[..] else { return None };
        let (word, detail) = rest.split_once(' ').unwrap_or((rest, ""));
        let (how, _) = How::ALL.into_iter().find(|(_, each)| *each == word)?;
        Some(Self { label: label.to_owned(), name: name.to_owned(), how, detail: detail.to_owned() })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, name, how, detail } = self;
        write!(f, "{WORD} {label} {name}: {how} {detail}")
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let tried = [
            (Err(Denied::Errno(Errno::EPERM)), "attempt x setuid: denied EPERM"),
            (Err(Denied::Said("killed by SIGSYS".to_owned())), "attempt x setuid: denied killed by SIGSYS"),
            (Ok(Breach::Escaped("uid 0: root\nyes".to_owned())), "attempt x setuid: SUCCEEDED uid 0: root yes"),
            (Ok(Breach::Seen("umask 022".to_owned())), "attempt x setuid: seen umask 022"),
        ];
        for (tried, text) in tried {
            let line = Line::new("x", "setuid", &tried);
            assert_eq!(line.to_string(), text);
            assert_eq!(Line::parse(text).unwrap(), line);
        }
        for other in ["", "attempt", "attempt x: denied EPERM", "attempt x y: perhaps", "guest half: a b: denied"] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }
}
