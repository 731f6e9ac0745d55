//! The image: who made it and what it allows.

pub mod policy;
pub mod root;
