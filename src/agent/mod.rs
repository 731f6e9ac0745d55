//! The director: runs the phases in order, starts every other role, writes the report.

pub mod channel;
pub mod protocol;
