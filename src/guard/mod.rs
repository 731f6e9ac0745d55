//! The guard: what contextualisation changed in the image, and whether it was allowed to.
//!
//! The image's file system is never written; what scripts change lies in an overlay in memory. The guard compares
//! what the machine sees with what the image has, so it need not know how an overlay notes a removed file. What is
//! not among the policy's `site_writable` is a violation: reported, put back, or the end of the machine.

pub mod audit;
pub mod compare;
pub mod device;
pub mod holders;
pub mod mounts;
pub mod places;
pub mod policy;
pub mod restore;
pub mod tree;

use serde::{Deserialize, Serialize};

/// One path that is not as the image has it, or one mount that the machine did not make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Absolute path in the machine, made printable.
    pub path: String,
    /// How it differs.
    pub kind: ChangeKind,
    /// What it is now, or what of it is different: `file, mode 755, owner 0:0`; `content`; `mount of tmpfs`.
    pub what: String,
    /// Bytes of a regular file as it is now; 0 for anything else.
    pub size: u64,
    /// Of the content of a regular file as it is now, hexadecimal.
    pub sha256: Option<String>,
    /// Why it is not allowed, if it is not.
    pub violation: Option<String>,
    /// Whether it was put back.
    pub reverted: bool,
}

/// How a path differs from the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The image does not have it.
    Added,
    /// Content, type, owner, mode or another property is different.
    Changed,
    /// Only the image has it.
    Removed,
}

impl std::fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        })
    }
}

impl std::fmt::Display for Change {
    /// For the log: `/usr/bin/x added (file, mode 755, owner 0:0): not in site_writable; put back`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.path, self.kind)?;
        if !self.what.is_empty() {
            write!(f, " ({})", self.what)?;
        }
        if let Some(why) = &self.violation {
            write!(f, ": {why}")?;
        }
        if self.reverted { f.write_str("; put back") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_in_a_line() {
        let mut change = Change {
            path: "/usr/bin/x".to_owned(),
            kind: ChangeKind::Added,
            what: "file, mode 755, owner 0:0".to_owned(),
            size: 0,
            sha256: None,
            violation: Some("not in site_writable".to_owned()),
            reverted: true,
        };
        let line = "/usr/bin/x added (file, mode 755, owner 0:0): not in site_writable; put back";
        assert_eq!(change.to_string(), line);
        (change.kind, change.what, change.violation, change.reverted) =
            (ChangeKind::Removed, String::new(), None, false);
        assert_eq!(change.to_string(), "/usr/bin/x removed");
    }
}
