//! `ctxtool pool`: a client for any token pool server of ToPoS 4.1.

/// The description of the locks by which a pool is drained. Our server's page does not count such tokens as done.
pub const DRAIN: &str = "ctxtool pool drain";
