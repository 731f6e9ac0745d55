//! `ctxtool pool` as a process, against the real server and against servers that say odd things.
#![cfg(feature = "tool")]
// Clippy's exemption for tests does not reach the helpers of an integration test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

#[path = "pool/browser.rs"]
mod browser;
#[path = "pool/client.rs"]
mod client;
#[path = "token_server/harness.rs"]
#[allow(dead_code, reason = "shared with the server's own tests")]
mod harness;
#[path = "pool/odd.rs"]
mod odd;
