//! What `ctxtool` does, on the builder's and the site's side; nothing of it is in the guest's program.

pub mod cd;
pub mod report;
pub mod token_server;
