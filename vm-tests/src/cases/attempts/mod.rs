//! Payloads that try to get out.

mod table;
mod trial;
mod whole;

pub use whole::CASE as WHOLE;
