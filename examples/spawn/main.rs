//! How long it takes from the wish for a job to the first line of its program, for `scripts/bench payload`.
//!
//! `spawn race N` (root) starts this program N times in each of several ways, in turn, and prints a line of figures for
//! each: by fork and exec alone, as a job of ctxinit's through the functions of its own, and by bwrap(1) with its strictest
//! flags where there is one. `spawn native N` (root) does so on a machine that is no guest. `spawn watch N` looks at a machine while it works on N tokens.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a stop watch is a program of its own")]

mod native;
mod race;
mod watch;

use std::process::ExitCode;

use nix::time::{ClockId, clock_gettime};

fn main() -> ExitCode {
    // First of all: this is what is measured.
    let now = now();
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    let done = match words.get(1..).unwrap_or_default() {
        ["first"] => {
            println!("{now}");
            Ok(())
        }
        ["race", rounds] => number(rounds).and_then(race),
        ["native", rounds] => number(rounds).and_then(native::run),
        ["watch", tokens] => number(tokens).and_then(watch::run),
        _ => Err("usage: spawn first | race N | native N | watch N".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("spawn: {why}");
            ExitCode::FAILURE
        }
    }
}

fn race(rounds: u32) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?.display().to_string();
    race::run(&program, rounds, b"one line\n")
}

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
fn now() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
