//! The image: who made it and what it allows.

pub mod payload;
pub mod policy;
pub mod reach;
pub mod root;
pub mod tighten;
