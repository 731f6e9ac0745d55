//! The guard: what contextualisation changed in the image, and whether it was allowed to.

use serde::{Deserialize, Serialize};

/// One path that is not as the image has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Absolute path in the machine.
    pub path: String,
    /// How it differs.
    pub kind: ChangeKind,
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
