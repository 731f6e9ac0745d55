//! The logger against servers of all tempers. As root each test has a network of its own, otherwise loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by them and skips with a word"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own children")]

mod adversary;
#[cfg(feature = "tool")]
mod check;
mod collect;
mod delivery;
mod interop;
mod machine;
mod network;
mod reader;
mod sessions;
mod sources;
mod tls;
