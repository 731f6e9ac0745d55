//! Payloads that try to get out.

mod mutations;
mod table;
mod trial;
mod whole;

pub use mutations::{ALONE, CASE as MUTATIONS};
pub use whole::CASE as WHOLE;
