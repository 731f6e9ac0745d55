//! What `ctxtool` does, on the builder's and the site's side; nothing of it is in the guest's program.

pub mod cd;
pub mod log;
pub mod pool;
pub mod report;
pub mod token_server;
pub mod work_check;

/// What came of it, for the user.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One or more lines for standard output.
    pub text: String,
    /// Lines for standard error, or nothing.
    pub warnings: String,
    /// Exit code.
    pub code: u8,
}

impl From<String> for Outcome {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}
