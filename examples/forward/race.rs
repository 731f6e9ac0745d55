//! The race.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ctxinit::mounts;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::collector::{self, Kind};
use crate::{Outcome, server, usage};

/// A place that every system has (FHS 3.0, 3.17), covered by memory of ours.
pub const STAGE: &str = "/srv";
/// A record of the usual length, as syslog(3) writes it.
const LENGTH: usize = 200;
/// Nothing came for so long: what is missing is lost.
const SILENCE: Duration = Duration::from_secs(3);
/// For the first record to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(10);

/// Everybody in turn, `rounds` times.
pub fn run(records: u64, rounds: u32) -> Outcome<()> {
    stage()?;
    let count = server::start()?;
    for _ in 0..rounds {
        for kind in collector::ALL {
            one(kind, records, &count).map_err(|error| format!("{}: {error}", kind.name()))?;
        }
    }
    Ok(())
}

/// Nothing of this is seen by anybody else, and it goes with the last process here.
fn stage() -> Outcome<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    mounts::make_private()?;
    mounts::tmpfs(STAGE, 64, "mode=0755")?;
    mounts::nodes("/dev", "mode=0755")?;
    for (node, minor) in [("/dev/null", 3), ("/dev/urandom", 9)] {
        mknod(node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, minor))?;
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if up.success() { Ok(()) } else { Err("ip link set lo up failed".into()) }
}

fn one(kind: Kind, records: u64, count: &AtomicU64) -> Outcome<()> {
    let figure = |what: &str, value: String| println!("{};{what};{value}", kind.name());
    let Some(collector) = kind.start()? else {
        eprintln!("forward: {} is not here", kind.name());
        return Ok(());
    };
    let pid = collector.pid();
    let sender = UnixDatagram::unbound()?;
    sender.connect("/dev/log")?;
    warm_up(&sender, count)?;

    let idle = usage::cpu_exactly(pid)?;
    thread::sleep(IDLE);
    figure("CPU ms in 10 s of nothing", format!("{:.2}", (usage::cpu_exactly(pid)? - idle) * 1000.0));

    let message = message();
    let (before, used, start) = (count.load(Ordering::Acquire), usage::cpu(pid)?, Instant::now());
    for _ in 0..records {
        // Blocks while the collector's queue is full.
        sender.send(&message)?;
    }
    let taken = start.elapsed();
    let (received, last) = wait(count, before, records);
    let (used, time) = (usage::cpu(pid)? - used, last.duration_since(start));
    figure("records a second", format!("{:.0}", received as f64 / time.as_secs_f64()));
    figure("records a second, taken from the sender", format!("{:.0}", records as f64 / taken.as_secs_f64()));
    figure("CPU s per 100,000 records", format!("{:.3}", used * 100_000.0 / records as f64));
    figure("records a second of one core's time", format!("{:.0}", records as f64 / used));
    figure("records lost", records.saturating_sub(received).to_string());
    let memory = usage::memory(pid)?;
    figure("KiB resident at most", memory.peak.to_string());
    figure("of it anonymous", memory.anonymous.to_string());
    figure("of it shared", memory.shared.to_string());
    Ok(())
}

fn warm_up(sender: &UnixDatagram, count: &AtomicU64) -> Outcome<()> {
    let (before, deadline) = (count.load(Ordering::Acquire), Instant::now() + PATIENCE);
    sender.send(&message())?;
    while count.load(Ordering::Acquire) == before {
        if Instant::now() > deadline {
            return Err("the first record does not arrive".into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    // What it has to say of its own start comes too.
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// How many came, and when the last of them did.
fn wait(count: &AtomicU64, before: u64, records: u64) -> (u64, Instant) {
    let (mut received, mut last) = (0, Instant::now());
    while received < records && last.elapsed() < SILENCE {
        thread::sleep(Duration::from_millis(1));
        let now = count.load(Ordering::Acquire) - before;
        if now > received {
            (received, last) = (now, Instant::now());
        }
    }
    (received, last)
}

fn message() -> Vec<u8> {
    let mut message = format!("<14>Nov 22 10:00:00 sender[{}]: ", std::process::id()).into_bytes();
    message.extend((b'a'..=b'z').cycle().take(LENGTH - message.len()));
    message
}
