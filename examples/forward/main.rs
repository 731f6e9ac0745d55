//! How fast the machine's log goes to a server, and what that costs, for `scripts/bench syslog`.
//!
//! `forward race N ROUNDS` (root) writes N records of 200 bytes to `/dev/log` as fast as a collector takes them, and counts
//! what arrives at a server on loopback: with ctxinit's logger, rsyslog and busybox's syslogd in turn, in a network and a
//! `/dev` of their own. Each figure is a line. `forward logger` is ctxinit's logger alone, as the agent runs it: its own
//! user, no privilege, one process.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a stop watch is a program of its own")]
#![allow(clippy::disallowed_methods, reason = "it waits for its own children")]

mod collector;
mod race;
mod server;
mod usage;

use std::path::Path;
use std::process::ExitCode;

use ctxinit::ids;
use ctxinit::protocol::ToLogger;
use ctxinit::protocol::channel::Channel;
use ctxinit::syslog::Origin;
use ctxinit::syslog::collect::Sources;
use ctxinit::syslog::lasting::Lasting;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.get(1..).unwrap_or_default() {
        ["race", records, rounds] => race(records, rounds),
        ["logger"] => logger(),
        _ => Err("usage: forward race N ROUNDS | logger".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("forward: {why}");
            ExitCode::FAILURE
        }
    }
}

fn race(records: &str, rounds: &str) -> Outcome<()> {
    race::run(records.parse()?, rounds.parse()?)
}

/// Until somebody kills it; this process is its agent too, and says no more than where the server is.
fn logger() -> Outcome<()> {
    let mut lasting = Lasting::in_memory(Sources::open(Path::new("/dev/log"), None)?)?;
    setgroups(&[])?;
    setgid(Gid::from_raw(ids::LOGGER))?;
    setuid(Uid::from_raw(ids::LOGGER))?;
    let (mut agent, control) = Channel::pair()?;
    agent.send(&ToLogger::Hostname("vm7.site".to_owned()), b"")?;
    let syslog = serde_json::from_str(&format!("{{\"server\": \"127.0.0.1\", \"port\": {}}}", server::PORT))?;
    agent.send(&ToLogger::Target { syslog, nameservers: Vec::new() }, b"{}")?;
    let origin = Origin { vm: "11111111-2222-3333-4444-555555555555".to_owned(), boot: "0a1b2c3d".to_owned() };
    Err(format!("the logger ended with {}", ctxinit::syslog::run(&mut lasting, &origin, control)).into())
}
