//! The agent's one-line notices to init, over a pipe.

use std::fmt;

use crate::verdict::Verdict;

/// What init has to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// Drivers are loaded: buttons can be opened.
    Devices,
    /// The agent's root is the image now: follow it.
    Root,
    /// Everything is stopped: end the machine.
    End(Verdict),
}

impl Notice {
    /// Reads one line; `None` for what no agent writes.
    pub fn parse(line: &str) -> Option<Self> {
        match line.trim_end() {
            "devices" => Some(Self::Devices),
            "root" => Some(Self::Root),
            line => {
                let (code, text) = line.strip_prefix("end ")?.split_once(' ')?;
                Some(Self::End(Verdict { code: code.parse().ok()?, text: text.to_owned() }))
            }
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devices => f.write_str("devices"),
            Self::Root => f.write_str("root"),
            Self::End(verdict) => write!(f, "end {verdict}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for notice in [Notice::Devices, Notice::Root, Notice::End(Verdict::done("8 tokens completed"))] {
            assert_eq!(Notice::parse(&format!("{notice}\n")), Some(notice));
        }
        assert_eq!(Notice::parse("end soon"), None);
        assert_eq!(Notice::parse("end x y"), None);
    }
}
