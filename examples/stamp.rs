//! Says where a boot stands, for `scripts/bench`: `stamp NAME` writes one line of figures to the kernel's log, and to
//! the file that `RESULT_FILE` names when it runs as a payload.
//!
//! `ns` is the monotonic clock; `init` the microseconds since the kernel started /init (only for root, who may write
//! to the kernel's log); `forks`, `busy` (clock ticks of all CPUs, not idle) and `read` (512-byte sectors, a disk) are
//! the kernel's own counts.
#![allow(clippy::print_stdout, reason = "a payload is a program of its own")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::{env, io};

use nix::libc::O_NONBLOCK;
use nix::time::{ClockId, clock_gettime};

fn main() -> io::Result<()> {
    // First of all: everything below takes time itself.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let log = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/kmsg");
    let init = log.as_ref().ok().and_then(since_init);
    let name = env::args().nth(1).unwrap_or_default();
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ns = now.tv_sec() * 1_000_000_000 + now.tv_nsec();
    let show = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let (forks, busy) = (show(forks(&stat)), show(busy(&stat)));
    let line = format!("stamp {name} ns={ns} init={} forks={forks} busy={busy}{}", show(init), sectors());
    println!("{line}");
    if let Ok(mut log) = log {
        // Level 3: `quiet` kernels show it on the console too.
        log.write_all(format!("<3>{line}\n").as_bytes())?;
    }
    match env::var_os("RESULT_FILE") {
        Some(file) => fs::write(file, line + "\n"),
        None => Ok(()),
    }
}

fn since_init(mut log: &File) -> Option<u64> {
    // Without the newline the kernel keeps the record open for more, and does not show it.
    log.write_all(b"<6>stamp: now\n").ok()?;
    let (mut init, mut now) = (None, None);
    let mut record = [0; 8192];
    // One record a read; the file is non-blocking and says WouldBlock after the last.
    while let Ok(size) = log.read(&mut record) {
        let record = String::from_utf8_lossy(&record[..size]);
        let Some((head, text)) = record.split_once(';') else { continue };
        let time = head.split(',').nth(2).and_then(|time| time.parse::<u64>().ok());
        if text.starts_with("Run /init as init process") {
            init = time;
        } else if text.starts_with("stamp: now") {
            now = time;
        }
    }
    now?.checked_sub(init?)
}

fn forks(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("processes "))?.parse().ok()
}

/// All of the line `cpu` but its fourth and fifth number, idle and iowait.
fn busy(stat: &str) -> Option<u64> {
    let numbers = stat.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace();
    let ticks = numbers.take(8).enumerate().filter(|(place, _)| !matches!(place, 3 | 4));
    Some(ticks.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum())
}

/// ` vda=1234 sr0=56`, for the disks that were read from.
fn sectors() -> String {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let mut lines: Vec<String> = disks
        .filter_map(|disk| {
            let stat = fs::read_to_string(disk.path().join("stat")).ok()?;
            let read = stat.split_whitespace().nth(2).filter(|read| *read != "0")?;
            Some(format!(" {}={read}", disk.file_name().to_string_lossy()))
        })
        .collect();
    lines.sort();
    lines.concat()
}
