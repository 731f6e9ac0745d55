//! How fast one slot works through a pool of no-op tokens, for `scripts/bench work`.
//!
//! `cycles URL POOL N` works on N tokens with the real worker in a process of its own and a real fork and exec of
//! `/bin/true` for each, against the server at URL (`http://127.0.0.1:8080/4.1`). In turn with that, in the same run, it
//! measures what such a cycle cannot do without: each call that the worker makes, by itself, on a connection that is kept
//! and on a new one each, and the fork and exec. Each line of output is `what;number`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a stop watch is a program of its own")]

mod calls;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ctxinit::clock::Deadline;
use ctxinit::launch::{self, Program};
use ctxinit::protocol::channel::Channel;
use ctxinit::protocol::{Fate, FromWorker, ToWorker};
use ctxinit::starting;
use ctxinit::sys::process::{self, Child};
use ctxinit::work::{Config, Credentials, Identity, run};

use calls::{Calls, Spent};

/// Cycles of one kind before it is the other's turn: whatever else the machine does then hits all alike.
const TURN: u32 = 50;
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [url, pool, rounds] => match rounds.parse() {
            Ok(rounds) => race(url, pool, rounds),
            Err(_) => Err(format!("{rounds:?} is no number")),
        },
        _ => Err("usage: cycles URL POOL N".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cycles: {why}");
            ExitCode::FAILURE
        }
    }
}

/// All in turn, and a line for each figure.
fn race(url: &str, pool: &str, rounds: u32) -> Result<(), String> {
    let turns = rounds.div_ceil(TURN);
    let mut slot = Slot::start(url, pool)?;
    let mut kept = Calls::new(url, pool, true)?;
    let mut fresh = Calls::new(url, pool, false)?;
    // One more of each kind, to warm up.
    kept.fill((turns + 1) * TURN * 3)?;
    let (mut spent, mut forks) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..=turns {
        let (mut worked, mut forked) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..TURN {
            worked += timed(|| slot.cycle())?;
            forked += timed(no_op)?;
            kept.cycle()?;
            fresh.cycle()?;
        }
        if turn == 0 {
            (kept.spent, fresh.spent) = (Spent::default(), Spent::default());
            continue;
        }
        spent += worked;
        forks += forked;
    }
    slot.stop()?;
    let count = turns * TURN;
    let millis = |span: Duration| span.as_secs_f64() * 1000.0 / f64::from(count);
    let (cycle, fork) = (millis(spent), millis(forks));
    println!("cycles;{count}");
    println!("ms of a cycle, the worker's;{cycle:.3}");
    println!("ms of fork and exec;{fork:.3}");
    for (connection, calls) in [("kept", &kept), ("new", &fresh)] {
        for (what, span) in calls.spent.rows() {
            println!("ms of {what}, {connection} connection;{:.3}", millis(span));
        }
    }
    println!("cycles a second;{:.1}", 1000.0 / cycle);
    let limits = [
        ("claim, store and delete", millis(kept.spent.least()) + fork),
        ("all five calls", millis(kept.spent.all()) + fork),
        ("all five calls, new connections", millis(fresh.spent.all()) + fork),
    ];
    for (what, limit) in limits {
        println!("limit a second, {what};{:.1}", 1000.0 / limit);
        println!("share of it;{:.3}", limit / cycle);
    }
    Ok(())
}

fn timed(action: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let begun = Instant::now();
    action()?;
    Ok(begun.elapsed())
}

/// The payload of a token that asks for nothing.
fn no_op() -> Result<(), String> {
    let words = ["/bin/true".to_owned()];
    let program = Program { dir: "/", words: &words, environment: &[] };
    let child = starting::spawn(|| launch::exec(&program)).map_err(|error| error.to_string())?;
    match child.wait().map_err(|error| error.to_string())? {
        exit if exit.success() => Ok(()),
        exit => Err(format!("/bin/true: {exit}")),
    }
}

/// A machine's one slot: its worker, and the agent's side of the channel.
struct Slot {
    channel: Channel,
    worker: Child,
}

impl Slot {
    fn start(url: &str, pool: &str) -> Result<Self, String> {
        let work = format!(r#"{{"topos": {{"url": "{url}", "pool": "{pool}", "results": "{pool}-results"}}}}"#);
        let config = Config {
            work: serde_json::from_str(&work).map_err(|error| error.to_string())?,
            credentials: Credentials::default(),
            identity: Identity {
                hostname: "bench".to_owned(),
                vm_uuid: "vm".to_owned(),
                boot_id: "boot".to_owned(),
                slot: 0,
            },
            ban_list: None,
        };
        let (channel, theirs) = Channel::pair().map_err(|error| error.to_string())?;
        let worker = process::fork(|| run(config, theirs)).map_err(|error| error.to_string())?;
        Ok(Self { channel, worker })
    }

    /// Claim, run, complete.
    fn cycle(&mut self) -> Result<(), String> {
        match self.ask(&ToWorker::Claim)? {
            FromWorker::Claimed(_) => {}
            other => return Err(format!("a claim: {other:?}")),
        }
        no_op()?;
        match self.ask(&ToWorker::Finished)? {
            FromWorker::Settled { fate: Fate::Completed, .. } => Ok(()),
            other => Err(format!("a result: {other:?}")),
        }
    }

    fn ask(&mut self, message: &ToWorker) -> Result<FromWorker, String> {
        self.channel.send(message, b"").map_err(|error| error.to_string())?;
        let answer = self.channel.recv(Deadline::after(LIMIT)).map_err(|error| error.to_string())?;
        answer.map(|(answer, _)| answer).ok_or_else(|| "the worker says nothing".to_owned())
    }

    fn stop(mut self) -> Result<(), String> {
        self.channel.send(&ToWorker::Stop, b"").map_err(|error| error.to_string())?;
        self.worker.wait().map(drop).map_err(|error| error.to_string())
    }
}
