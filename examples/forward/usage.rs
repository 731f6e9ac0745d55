//! What a process has used, by /proc.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use crate::Outcome;

/// Memory of a process, KiB.
pub struct Memory {
    pub peak: u64,
    pub anonymous: u64,
    pub shared: u64,
}

/// Processor seconds of all its threads, also those that have ended, to the clock's tick.
pub fn cpu(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks; utime and stime are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 =
        fields.get(11).ok_or("no utime")?.parse::<u64>()? + fields.get(12).ok_or("no stime")?.parse::<u64>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.ok_or("no clock ticks")?;
    Ok(ticks as f64 / per_second as f64)
}

/// The same to the nanosecond, of the threads that run now.
pub fn cpu_exactly(pid: u32) -> Outcome<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().ok_or("no time")?.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

pub fn memory(pid: u32) -> Outcome<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| -> Outcome<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or(name)?;
        Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
    };
    Ok(Memory { peak: of("VmHWM")?, anonymous: of("RssAnon")?, shared: of("RssShmem")? })
}
