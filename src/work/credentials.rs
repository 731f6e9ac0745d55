//! The files of the CD that a source of work names.

use std::fs;
use std::path::Path;

use crate::context::site::Work;

/// What a worker is given of the CD: keys of `context.json`, and what lies in the file that each names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(Vec<(&'static str, Vec<u8>)>);

impl Credentials {
    /// Reads them below `root`, the CD's copy.
    ///
    /// # Errors
    /// A file that cannot be read; names it.
    pub fn read(root: &Path, work: &Work) -> Result<Self, String> {
        let mut credentials = Self::default();
        for (key, file) in work.files() {
            let bytes = fs::read(root.join(file)).map_err(|error| format!("{key}: {file} on the CD: {error}"))?;
            credentials.put(key, Some(bytes));
        }
        Ok(credentials)
    }

    /// What a key's file holds.
    pub fn put(&mut self, key: &'static str, file: Option<Vec<u8>>) {
        self.0.extend(file.map(|file| (key, file)));
    }

    /// What the key's file holds; nothing where none is named.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, file)| file.as_slice())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never their content.
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}
