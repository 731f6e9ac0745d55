//! What holds for every input of the parsers: generated files and packets, many of them almost right.
//!
//! Each run takes the same cases; `PROPTEST_CASES=100000` takes more of them, `PROPTEST_RNG_SEED=7` takes others. A
//! failure prints its seed and the smallest input that still fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy exempts only functions marked as tests")]
#![allow(clippy::disallowed_methods, reason = "not a role of the guest: nobody else waits for its children")]

mod ban;
mod context_sh;
mod devices;
mod json;
mod log;
mod network;
mod payload;
mod signature;
mod syslog;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestRunner};

/// Enough to find each fault that was made on purpose, and done in seconds.
const CASES: u32 = 1000;
/// Anything; a run on one machine says the same as a run on another.
const SEED: u64 = 2010;

/// Tries the property on so many generated inputs as PROPTEST_CASES says, else on `cases`.
fn holds_for<S: Strategy>(cases: u32, inputs: S, property: impl Fn(S::Value) -> TestCaseResult) {
    // The default reads the environment.
    let asked = Config::default();
    let seed = match asked.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => SEED,
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { cases };
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..asked };
    if let Err(error) = TestRunner::new(config).run(&inputs, property) {
        panic!("PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases}: {error}");
    }
}

/// [`CASES`] of them.
fn holds<S: Strategy>(inputs: S, property: impl Fn(S::Value) -> TestCaseResult) {
    holds_for(CASES, inputs, property);
}

/// Texts made of `pieces`, so that they come close to what a parser takes.
fn text_of(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..most).prop_map(|pieces| pieces.concat())
}

/// Any bytes, up to so many.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// `good` with a few of its bytes changed, and cut off somewhere.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = good.len();
    let flips = prop::collection::vec((0..length, any::<u8>()), 0..4);
    (Just(good), flips, prop::option::of(0..=length)).prop_map(|(mut bytes, flips, end)| {
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        bytes.truncate(end.unwrap_or(bytes.len()));
        bytes
    })
}
