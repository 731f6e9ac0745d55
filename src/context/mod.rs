//! The context: what the site tells the machine on its CD.

pub mod medium;
pub mod shell;
pub mod signature;
pub mod site;
