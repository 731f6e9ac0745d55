//! What the kernel says of this process: walls whose absence an attempt alone may not feel.

use std::fs;

use nix::errno::Errno;
use nix::libc;

use super::raw::call;
use super::{Attempt, Needs, Scene, Tried, attempt, denied, seen};
use crate::guest::PAYLOAD_USERS;

pub const ATTEMPTS: &[Attempt] = &[
    attempt("ids", "an id that is not the job's own", ids).needs(Needs::Ctxinit),
    attempt("groups", "supplementary groups", |scene| empty(scene, "Groups")),
    attempt("effective-set", "effective capabilities", |scene| none_set(scene, "CapEff")),
    attempt("permitted-set", "permitted capabilities", |scene| none_set(scene, "CapPrm")),
    attempt("inheritable-set", "inheritable capabilities", |scene| none_set(scene, "CapInh")),
    attempt("bounding-set", "a bounding set that is not empty", |scene| none_set(scene, "CapBnd")),
    attempt("ambient-set", "ambient capabilities", |scene| none_set(scene, "CapAmb")),
    attempt("securebits", "securebits that give root its capabilities", securebits),
    attempt("no-new-privs", "no_new_privs is not set", |scene| is(scene, "NoNewPrivs", "1")),
    attempt("seccomp", "no filter of system calls", |scene| is(scene, "Seccomp", "2")),
    attempt("landlock", "no Landlock domain", landlock),
    attempt("blocked-signals", "signals that somebody else has blocked", |scene| none_set(scene, "SigBlk")),
    attempt("ignored-signals", "signals that somebody else ignores", ignored_signals),
    attempt("umask", "files that others may read", umask).needs(Needs::Ctxinit),
    attempt("session", "somebody else's session or terminal", session),
    attempt("descriptors", "descriptors beyond the three", descriptors),
    attempt("standard-input", "a standard input that says anything", standard_input),
    attempt("standard-output", "an output that is not its own, such as the console", standard_output)
        .needs(Needs::Ctxinit),
    attempt("environment", "variables that nobody meant for it", environment).needs(Needs::Ctxinit),
    attempt("core-limit", "core files", |_| limit(libc::RLIMIT_CORE as i64, 0)).needs(Needs::Ctxinit),
    attempt("memlock-limit", "locked memory beyond 8 MiB", |_| limit(libc::RLIMIT_MEMLOCK as i64, 8 << 20))
        .needs(Needs::Ctxinit),
    attempt("realtime-limit", "real-time priority", |_| limit(libc::RLIMIT_RTPRIO as i64, 0)),
    attempt("nice-limit", "a better priority", |_| limit(libc::RLIMIT_NICE as i64, 0)),
    attempt("open-files-limit", "more descriptors than it was given", open_files).needs(Needs::Ctxinit),
    attempt("oom-score", "it is not the first to go when memory is short", oom_score).needs(Needs::Ctxinit),
    attempt("death-signal", "it outlives the one that watches it", death_signal).needs(Needs::Ctxinit),
    attempt("working-directory", "a place to start in that is not its own", working_directory).needs(Needs::Ctxinit),
    attempt("nice-value", "a priority that it did not ask for", nice_value),
    attempt("io-class", "a class at the disk that it did not ask for", io_class),
    attempt("affinity", "fewer processors than the machine has", affinity),
    attempt("timer-slack", "timers that are somebody else's", timer_slack),
    attempt("stdout-by-name", "a standard output that it cannot open by name", stdout_by_name).needs(Needs::Ctxinit),
    attempt("message-queue-limit", "more bytes in message queues than usual", |_| {
        limit(libc::RLIMIT_MSGQUEUE as i64, 819_200)
    })
    .needs(Needs::Ctxinit),
    attempt("known-keys", "keys of others, by the list of those that it may see", known_keys),
    attempt("session-keyring", "a session keyring that is not its own", keyring),
];

fn ids(scene: &Scene) -> Tried {
    let uids: Vec<&str> = scene.status("Uid").split('\t').collect();
    let own = uids.first().copied().unwrap_or_default();
    let all_own = |key: &str| scene.status(key).split('\t').all(|id| id == own);
    if PAYLOAD_USERS.contains(&scene.uid) && all_own("Uid") && all_own("Gid") {
        return denied(format!("all are {own}"));
    }
    seen(format!("uids {}, gids {}", scene.status("Uid"), scene.status("Gid")).replace('\t', " "))
}

fn is(scene: &Scene, key: &str, wanted: &str) -> Tried {
    let found = scene.status(key);
    let what = format!("{key} {found}");
    if found == wanted { denied(what) } else { seen(what) }
}

fn empty(scene: &Scene, key: &str) -> Tried {
    is(scene, key, "")
}

fn none_set(scene: &Scene, key: &str) -> Tried {
    is(scene, key, "0000000000000000")
}

/// NOROOT, NO_CAP_AMBIENT_RAISE and KEEP_CAPS locked (capabilities(7)).
fn securebits(_: &Scene) -> Tried {
    let bits = call!(libc::SYS_prctl, libc::PR_GET_SECUREBITS, 0, 0, 0, 0)?;
    let what = format!("{bits:#x}");
    if bits == 0xe3 || bits == 0xef { denied(what) } else { seen(what) }
}

/// The kernel tells nobody whether it is in a domain. But no more than 16 lie on each other (E2BIG): who can add as
/// many is in none.
fn landlock(_: &Scene) -> Tried {
    const LAYERS: usize = 16;
    call!(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)?;
    // A domain must handle something; making block devices is what this process could not do anyway.
    const MAKE_BLOCK: u64 = 1 << 11;
    for layer in 0..LAYERS {
        let rules = call!(libc::SYS_landlock_create_ruleset, &[MAKE_BLOCK], 8, 0)?;
        match call!(libc::SYS_landlock_restrict_self, rules, 0) {
            Ok(_) => {}
            Err(Errno::E2BIG) => return denied(format!("{} domains around it", LAYERS - layer)),
            Err(errno) => return Err(errno.into()),
        }
        call!(libc::SYS_close, rules)?;
    }
    seen("no domain around it")
}

fn umask(scene: &Scene) -> Tried {
    let found = scene.status("Umask");
    if found == "0077" { denied(found) } else { seen(format!("umask {found}")) }
}

/// `pid (comm) state ppid pgrp session tty_nr`, proc(5).
fn session(scene: &Scene) -> Tried {
    if fs::File::open("/dev/tty").is_ok() {
        return seen("there is a controlling terminal");
    }
    // The name may hold blanks, and this is a child of the probe.
    let stat = fs::read_to_string(format!("/proc/{}/stat", scene.pid))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let [_, _, group, session, terminal, ..] = fields.as_slice() else { return denied(stat) };
    let what = format!("process {}, group {group}, session {session}, terminal {terminal}", scene.pid);
    let own = scene.pid.to_string();
    if [*group, *session] == [own.as_str(); 2] && *terminal == "0" { denied(what) } else { seen(what) }
}

fn descriptors(scene: &Scene) -> Tried {
    let more: Vec<String> =
        scene.descriptors.iter().filter(|(fd, _)| *fd > 2).map(|(fd, to)| format!("{fd}: {to}")).collect();
    if more.is_empty() { denied("three") } else { super::escaped(more.join(", ")) }
}

fn standard_input(scene: &Scene) -> Tried {
    let found = scene.descriptors.iter().find(|(fd, _)| *fd == 0).map_or("closed", |(_, to)| to);
    if found == "/dev/null" { denied(found) } else { seen(found) }
}

fn standard_output(scene: &Scene) -> Tried {
    let own = |fd: u32| scene.descriptors.iter().find(|(each, _)| *each == fd).map_or("closed", |(_, to)| to);
    let both = [own(1), own(2)];
    let what = both.join(", ");
    if both.iter().all(|to| to.starts_with("pipe:")) { denied(what) } else { seen(what) }
}

fn environment(_: &Scene) -> Tried {
    // DESIGN, and specs 1.4: an allow-list, and the job's own.
    const KNOWN: &[&str] = &[
        "PATH",
        "HOME",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "TZ",
        "JOB_ID",
        "MACHINEFEATURES",
        "JOBFEATURES",
        "JOBOUTPUTS",
        "TOKEN_ID",
        "TOKEN_TRIES",
        "TOKEN_FILE",
        "RESULT_FILE",
    ];
    let more: Vec<String> =
        std::env::vars().map(|(name, _)| name).filter(|name| !KNOWN.contains(&name.as_str())).collect();
    if more.is_empty() { denied("as promised") } else { seen(more.join(", ")) }
}

fn limit(resource: i64, most: u64) -> Tried {
    let hard = hard_limit(resource)?;
    let what = if hard == u64::MAX { "unlimited".to_owned() } else { hard.to_string() };
    if hard <= most { denied(what) } else { seen(what) }
}

fn hard_limit(resource: i64) -> Result<u64, Errno> {
    let mut limits = [0u8; 16];
    call!(libc::SYS_prlimit64, 0, resource, 0, &mut limits[..])?;
    Ok(u64::from_ne_bytes(limits[8..].try_into().unwrap_or_default()))
}

fn open_files(scene: &Scene) -> Tried {
    let most = scene.told.get("open_files").and_then(|number| number.parse().ok()).unwrap_or(65_536);
    limit(libc::RLIMIT_NOFILE as i64, most)
}

fn oom_score(_: &Scene) -> Tried {
    let score = fs::read_to_string("/proc/self/oom_score_adj")?;
    let score = score.trim();
    if score.parse::<i32>().is_ok_and(|score| score >= 500) { denied(score) } else { seen(score) }
}

/// keyctl(2): DESCRIBE is 6, the session keyring -3. Where that is closed, the list of keys says enough: the name of a
/// user's default keyring begins with `_uid`.
fn keyring(scene: &Scene) -> Tried {
    let mut text = [0u8; 256];
    let described = call!(libc::SYS_keyctl, 6, -3, &mut text[..], 256);
    let Err(errno) = described else {
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_end_matches('\0');
        // One without a name of its own was made for this job, before the drop or after it.
        let own = text.split(';').nth(1) == Some(&scene.uid.to_string()) && !text.contains("_uid");
        let own = own || text.ends_with(";_ses");
        return if own { denied(text) } else { seen(text) };
    };
    Err(errno.into())
}

/// Rust's runtime ignores SIGPIPE (13) by itself.
fn ignored_signals(scene: &Scene) -> Tried {
    let found = u64::from_str_radix(scene.status("SigIgn"), 16).unwrap_or(u64::MAX) & !(1 << 12);
    if found == 0 { denied("none") } else { seen(format!("{found:#x}")) }
}

fn death_signal(scene: &Scene) -> Tried {
    if scene.death_signal == libc::SIGKILL as u32 { denied("SIGKILL") } else { seen(scene.death_signal.to_string()) }
}

fn working_directory(scene: &Scene) -> Tried {
    let found = scene.directory.display().to_string();
    if scene.directory == scene.home { denied(found) } else { seen(found) }
}

/// The call itself answers 20 less the value.
fn nice_value(_: &Scene) -> Tried {
    let value = 20 - call!(libc::SYS_getpriority, libc::PRIO_PROCESS, 0)?;
    if value == 0 { denied("0") } else { seen(value.to_string()) }
}

/// 0: it follows the nice value. Some kernels name the class that follows from that (2).
fn io_class(_: &Scene) -> Tried {
    let class = call!(libc::SYS_ioprio_get, 1, 0)? >> 13;
    if matches!(class, 0 | 2) { denied(class.to_string()) } else { seen(class.to_string()) }
}

fn affinity(_: &Scene) -> Tried {
    let mut mask = [0u8; 128];
    call!(libc::SYS_sched_getaffinity, 0, 128, &mut mask[..])?;
    let own: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let all = fs::read_to_string("/proc/cpuinfo")?.lines().filter(|line| line.starts_with("processor")).count();
    let what = format!("{own} of {all}");
    if own as usize == all { denied(what) } else { seen(what) }
}

/// 50 microseconds, the kernel's own.
fn timer_slack(_: &Scene) -> Tried {
    let nanos = call!(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0)?;
    if nanos == 50_000 { denied(nanos.to_string()) } else { seen(nanos.to_string()) }
}

fn stdout_by_name(_: &Scene) -> Tried {
    match fs::OpenOptions::new().write(true).open("/dev/stdout") {
        Ok(_) => denied("it opens"),
        Err(error) => seen(error.to_string()),
    }
}

/// Each line of /proc/keys: serial, flags, usage, expiry, rights, uid, gid, type, description (proc(5)).
fn known_keys(scene: &Scene) -> Tried {
    let keys = fs::read_to_string("/proc/keys")?;
    let own = scene.uid.to_string();
    let foreign = keys.lines().find(|line| line.split_whitespace().nth(5).is_some_and(|uid| uid != own));
    match foreign {
        // An empty session keyring was made before the drop, and nobody has put anything into it.
        Some(line) if !line.contains("_ses: empty") => {
            seen(line.split_whitespace().skip(5).collect::<Vec<_>>().join(" "))
        }
        _ => denied(format!("{} to be seen", keys.lines().count())),
    }
}
