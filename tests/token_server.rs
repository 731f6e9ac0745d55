//! `ctxtool token-server` from outside: a real process, real sockets on loopback, `kill -9`.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "token_server/access.rs"]
mod access;
#[path = "token_server/crash.rs"]
mod crash;
#[path = "token_server/harness.rs"]
mod harness;
#[path = "token_server/hostile.rs"]
mod hostile;
#[path = "token_server/protocol.rs"]
mod protocol;
