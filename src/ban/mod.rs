//! Whose work a site forbids: its list, whose a token is, and what follows.
//!
//! Everything here is a pure function of text. The CD's list is the site's word and is read by the agent; one that comes
//! by network, and what a token pool says, is read by the worker, which has no privilege, and reaches the agent as
//! typed values.

pub mod dn;
pub mod fqan;
pub mod judge;
pub mod owner;
pub mod parse;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The list on the context CD.
pub const FILE: &str = "ban.list";

/// Which list it is that decides, as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `ban.list`, or a URL.
    pub source: String,
    /// Hexadecimal SHA-256 of its bytes.
    pub sha256: String,
}

impl Version {
    /// Of these bytes.
    pub fn of(source: &str, bytes: &[u8]) -> Self {
        let sha256 = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { source: source.to_owned(), sha256 }
    }

    /// The beginning of its hash, which tells lists apart.
    pub fn brief(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}
