//! What the image and the site say of the user's disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `user_disk` of `image.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserDisk {
    /// Whether there has to be one.
    pub need: Need,
}

/// Whether payloads get a disk that outlives the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Without a good one the machine ends, and no job is started.
    Require,
    /// Jobs have a good one, and run without where there is none.
    Optional,
    /// Nobody looks for one. What one job leaves on it the next one finds, and the kernel reads a file system that
    /// anybody may have made: neither happens to an image whose builder did not think of it.
    #[default]
    None,
}

/// `user_disk` of `context.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Of its file system; without it the label decides.
    pub uuid: Option<Uuid>,
    /// Whether a blank disk becomes one, if there is none.
    pub format: bool,
}

/// The UUID of a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(String);

impl Uuid {
    /// From the sixteen bytes in a superblock.
    pub fn of(bytes: [u8; 16]) -> Self {
        let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let [a, b, c, d, e, f, g, h, i, j, node @ ..] = bytes;
        let parts = [&[a, b, c, d][..], &[e, f], &[g, h], &[i, j], &node];
        Self(parts.map(hex).join("-"))
    }
}

impl TryFrom<String> for Uuid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        if lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(format!("{text:?} is not the UUID of a file system (5f0a1c52-8f0e-4c61-9d0c-3a5be1f5d7b4)"))
        }
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> Self {
        uuid.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_compared_in_one_form() {
        let uuid = |text: &str| Uuid::try_from(text.to_owned());
        let bytes = [0x5f, 0x0a, 0x1c, 0x52, 0x8f, 0x0e, 0x4c, 0x61, 0x9d, 0x0c, 0x3a, 0x5b, 0xe1, 0xf5, 0xd7, 0xb4];
        assert_eq!(uuid("5F0A1C52-8f0e-4c61-9d0c-3a5be1f5d7b4"), Ok(Uuid::of(bytes)));
        for wrong in ["", "CTXUSER", "5f0a1c528f0e4c619d0c3a5be1f5d7b4", "5f0a1c5g-8f0e-4c61-9d0c-3a5be1f5d7b4", "----"]
        {
            assert!(uuid(wrong).unwrap_err().contains("is not the UUID of a file system"), "{wrong}");
        }
    }
}
