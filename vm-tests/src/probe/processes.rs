//! To get at other processes, or ahead of them.

use std::fs;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::raw::call;
use super::{Attempt, Scene, Tried, any, attempt, denied, escaped};

pub const ATTEMPTS: &[Attempt] = &[
    attempt("see-others", "processes of others can be seen", see_others),
    attempt("signal", "a signal to a process of others, by every number", signal),
    attempt("ptrace-init", "ptrace of process 1", |_| ptrace(1)),
    attempt("ptrace", "ptrace of any process of others", |scene| any(scene.foreign(), ptrace)),
    attempt("read-memory", "process_vm_readv of a process of others", |scene| any(scene.foreign(), read_memory)),
    attempt("proc-mem", "/proc/*/mem of others", |scene| proc_file(scene, "mem")),
    attempt("proc-root", "/proc/*/root of others", |scene| proc_directory(scene, "root")),
    attempt("proc-cwd", "/proc/*/cwd of others", |scene| proc_directory(scene, "cwd")),
    attempt("proc-fd", "/proc/*/fd of others", |scene| proc_directory(scene, "fd")),
    attempt("proc-environ", "/proc/*/environ of others", |scene| proc_file(scene, "environ")),
    attempt("proc-cmdline", "/proc/*/cmdline of others", |scene| proc_file(scene, "cmdline")),
    attempt("proc-maps", "/proc/*/maps of others", |scene| proc_file(scene, "maps")),
    attempt("proc-exe", "/proc/*/exe of others", |scene| {
        any(scene.foreign(), |pid| escaped(fs::read_link(format!("/proc/{pid}/exe"))?.display().to_string()))
    }),
    attempt("pidfd-getfd", "a descriptor out of a process of others", |scene| any(scene.foreign(), steal)),
    attempt("limit-others", "limits of a process of others", |scene| any(scene.foreign(), limit)),
    attempt("affinity-others", "the processors of a process of others", |scene| {
        any(scene.foreign(), |pid| {
            call!(libc::SYS_sched_setaffinity, pid, 8, &[1u64])?;
            escaped(format!("process {pid} is bound"))
        })
    }),
    attempt("nice", "a better priority", |_| {
        call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, -5)?;
        escaped("nice -5")
    }),
    attempt("realtime", "real-time priority", |_| {
        call!(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &[1u64])?;
        escaped("SCHED_FIFO")
    }),
    attempt("io-priority", "real-time priority of its input and output", |_| {
        // IOPRIO_CLASS_RT in the upper bits, of a process (1).
        call!(libc::SYS_ioprio_set, 1, 0, 1 << 13)?;
        escaped("IOPRIO_CLASS_RT")
    }),
    attempt("oom-score-lower", "a better chance when memory is short", oom_score_lower),
    attempt("raise-limit", "its own hard limits", raise_limit),
];

fn see_others(scene: &Scene) -> Tried {
    let visible = scene.visible_foreign();
    // The one that keeps the job is its process 1, and every process sees its own init.
    let more: Vec<String> = visible.iter().filter(|&&pid| pid != 1).map(|&pid| name(pid)).collect();
    match more.as_slice() {
        [] => denied(format!("{} to be seen", visible.len())),
        [first, ..] => escaped(format!("{} to be seen, as {first}", more.len())),
    }
}

fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{pid} ({})", name.trim())
}

/// Signal 0: whether it might.
fn signal(scene: &Scene) -> Tried {
    any(scene.foreign(), |pid| {
        nix::sys::signal::kill(Pid::from_raw(pid), None)?;
        escaped(format!("process {} may be signalled", name(pid)))
    })
}

/// SEIZE takes the same right as ATTACH and does not stop anybody.
fn ptrace(pid: i32) -> Tried {
    const SEIZE: i32 = 0x4206;
    call!(libc::SYS_ptrace, SEIZE, pid, 0, 0)?;
    escaped(format!("process {} is traced", name(pid)))
}

/// A bad address is refused only to those that may read at all.
fn read_memory(pid: i32) -> Tried {
    let mut byte = [0u8; 8];
    let local = [byte.as_mut_ptr() as u64, 8];
    match call!(libc::SYS_process_vm_readv, pid, &local, 1, &[8u64, 8], 1, 0) {
        Ok(_) | Err(Errno::EFAULT) => escaped(format!("memory of process {} may be read", name(pid))),
        Err(errno) => Err(errno.into()),
    }
}

fn proc_file(scene: &Scene, file: &str) -> Tried {
    any(scene.foreign(), |pid| {
        let path = format!("/proc/{pid}/{file}");
        let mut content = [0; 64];
        let length = match std::io::Read::read(&mut fs::File::open(&path)?, &mut content) {
            // Address 0 of a process that may be read.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return escaped(format!("{path} is open")),
            length => length?,
        };
        // Kernel threads have none of all this, for everybody.
        if length == 0 { denied("nothing in it") } else { escaped(format!("{path} can be read")) }
    })
}

fn proc_directory(scene: &Scene, name: &str) -> Tried {
    any(scene.foreign(), |pid| {
        let path = format!("/proc/{pid}/{name}");
        let count = fs::read_dir(&path)?.count();
        if count == 0 { denied("nothing in it") } else { escaped(format!("{path} has {count} entries")) }
    })
}

fn steal(pid: i32) -> Tried {
    let pidfd = call!(libc::SYS_pidfd_open, pid, 0)?;
    call!(libc::SYS_pidfd_getfd, pidfd, 0, 0)?;
    escaped(format!("standard input of process {}", name(pid)))
}

fn limit(pid: i32) -> Tried {
    let mut old = [0u8; 16];
    call!(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE as i64, 0, &mut old[..])?;
    escaped(format!("limits of process {}", name(pid)))
}

fn oom_score_lower(_: &Scene) -> Tried {
    let now: i32 = fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse().unwrap_or(0);
    fs::write("/proc/self/oom_score_adj", (now - 1).to_string())?;
    escaped(format!("{} after {now}", now - 1))
}

fn raise_limit(_: &Scene) -> Tried {
    any([libc::RLIMIT_CORE, libc::RLIMIT_NOFILE, libc::RLIMIT_MEMLOCK, libc::RLIMIT_RTPRIO], |resource| {
        let mut old = [0u8; 16];
        call!(libc::SYS_prlimit64, 0, resource as i64, 0, &mut old[..])?;
        let hard = u64::from_ne_bytes(old[8..].try_into().unwrap_or_default());
        if hard == u64::MAX {
            return denied("there is none");
        }
        call!(libc::SYS_prlimit64, 0, resource as i64, &[hard, hard + 1], 0)?;
        escaped(format!("limit {} is {} now", resource as i64, hard + 1))
    })
}
