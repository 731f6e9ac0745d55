//! The files of the CD that a source of work names.

use std::fs;
use std::path::Path;

use crate::context::site::Work;

/// What a worker is given of the CD; each as it is there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// PEM: the only authorities that an `https` server is believed by.
    pub ca: Option<Vec<u8>>,
}

impl Credentials {
    /// Reads them below `root`, the CD's copy.
    ///
    /// # Errors
    /// A file that cannot be read; names it.
    pub fn read(root: &Path, work: &Work) -> Result<Self, String> {
        let read =
            |file: &String| fs::read(root.join(file)).map_err(|error| format!("{file} on the context CD: {error}"));
        Ok(Self { ca: work.ca().map(read).transpose()? })
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never their content.
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}
