//! What the kernel says of a process that has taken the drop, step by step.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::sched_getaffinity;
use nix::sys::prctl;
use nix::sys::resource::getrlimit;
use nix::sys::signal::Signal;
use nix::sys::stat::{FileStat, SFlag, fstat, major, minor};
use nix::unistd::{Gid, Pid, Uid, getcwd, getgroups, getpid, getresgid, getresuid, getsid, setresgid, setresuid};

use super::shell::PROMPT;
use super::steps::{OOM_SCORE, OUTPUT_MODE, Plan, TIMER_SLACK_NANOS, UMASK, limits};
use super::{landlock, mutation};
use crate::sys::{credentials, priority, seccomp};
use crate::{ids, procfs};

/// No proof, with the reason.
type Proof = Result<(), String>;

const NONE: &str = "0000000000000000";

/// Equal, or an error that tells both.
pub fn equal<T: PartialEq + std::fmt::Display>(what: &str, found: T, wanted: T) -> Proof {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found} and not {wanted}")) }
}

/// A value of `/proc/self/status`.
fn status<'a>(plan: &'a Plan<'_>, key: &str) -> &'a str {
    value(plan.status(), key).unwrap_or("absent")
}

/// A value of a text of `Key:\tvalue` lines.
fn value<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

fn failed(what: &str) -> impl FnOnce(nix::Error) -> String {
    move |errno| format!("{what}: {errno}")
}

pub(super) fn signals(plan: &Plan<'_>) -> Proof {
    ["SigBlk", "SigIgn", "SigCgt"].iter().try_for_each(|key| equal(key, status(plan, key), NONE))
}

pub(super) fn session(_: &Plan<'_>) -> Proof {
    let session = getsid(None).map_err(failed("getsid"))?;
    equal("the session", session, getpid())
}

pub(super) fn streams(plan: &Plan<'_>) -> Proof {
    let stat = |fd| fstat(fd).map_err(failed("fstat"));
    let identity = |stat: &FileStat| format!("{}:{}", stat.st_dev, stat.st_ino);
    let input = stat(std::io::stdin())?;
    let null = SFlag::from_bits_truncate(input.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR
        && (major(input.st_rdev), minor(input.st_rdev)) == (1, 3);
    if !null {
        return Err("standard input is not /dev/null".to_owned());
    }
    let job = plan.job().map_err(failed("plan"))?;
    let wanted = identity(&fstat(&job.output).map_err(failed("fstat"))?);
    equal("standard output", identity(&fstat(std::io::stdout()).map_err(failed("fstat"))?), wanted.clone())?;
    equal("standard error", identity(&fstat(std::io::stderr()).map_err(failed("fstat"))?), wanted)
}

pub(super) fn output_mode(_: &Plan<'_>) -> Proof {
    let mode = fstat(std::io::stdout()).map_err(failed("fstat"))?.st_mode & 0o777;
    equal("mode of the output", format!("{mode:o}"), format!("{OUTPUT_MODE:o}"))
}

pub(super) fn keyring(plan: &Plan<'_>) -> Proof {
    let Some(job) = plan.job else { return Ok(()) };
    // Where setuid programs work, the filter is there already and nobody can ask.
    match (job.outside.keyring, credentials::session_keyring()) {
        (Some(before), Some(now)) if before == now => Err("it is still the agent's".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn umask(plan: &Plan<'_>) -> Proof {
    equal("Umask", status(plan, "Umask"), &format!("{UMASK:04o}"))
}

pub(super) fn rlimits(plan: &Plan<'_>) -> Proof {
    let job = plan.job().map_err(failed("plan"))?;
    limits(job).into_iter().try_for_each(|(resource, most)| {
        let (soft, hard) = getrlimit(resource).map_err(failed("getrlimit"))?;
        equal(&format!("{resource:?}"), format!("{soft} {hard}"), format!("{most} {most}"))
    })
}

pub(super) fn nice(_: &Plan<'_>) -> Proof {
    equal("nice", priority::nice(), 0)
}

pub(super) fn ioprio(_: &Plan<'_>) -> Proof {
    equal("class", priority::io_class(), 0)
}

pub(super) fn affinity(_: &Plan<'_>) -> Proof {
    let path = "/sys/devices/system/cpu/online";
    let online = procfs::text(path).map_err(|error| format!("{path}: {error}"))?;
    let allowed = sched_getaffinity(Pid::from_raw(0)).map_err(failed("sched_getaffinity"))?;
    match cpus(&online).into_iter().find(|&cpu| !allowed.is_set(cpu).unwrap_or(true)) {
        Some(cpu) => Err(format!("processor {cpu} is not allowed")),
        None => Ok(()),
    }
}

/// Of a list as `0-3,8`.
fn cpus(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

pub(super) fn timer_slack(_: &Plan<'_>) -> Proof {
    let slack = prctl::get_timerslack().map_err(failed("prctl"))?;
    equal("nanoseconds", slack, TIMER_SLACK_NANOS as i32)
}

pub(super) fn oom_score(_: &Plan<'_>) -> Proof {
    let path = "/proc/self/oom_score_adj";
    let score = procfs::text(path).map_err(|error| format!("{path}: {error}"))?;
    equal(path, score.trim_end(), OOM_SCORE)
}

/// Not by the text that other proofs share: it is too early for that.
pub(super) fn ambient(_: &Plan<'_>) -> Proof {
    let path = "/proc/self/status";
    let now = procfs::text(path).map_err(|error| format!("{path}: {error}"))?;
    equal("CapAmb", value(&now, "CapAmb").unwrap_or("absent"), NONE)
}

/// Of what execve(2) is about to get.
pub(super) fn environment(plan: &Plan<'_>) -> Proof {
    let job = plan.job().map_err(failed("plan"))?;
    let shell = job.input.as_ref().map(|_| PROMPT.0);
    let known = |name: &str| {
        super::VARIABLES.contains(&name)
            || shell == Some(name)
            || job.features.iter().any(|(feature, _)| feature == name)
    };
    let names = job.program.environment.iter().map(|variable| variable.to_string_lossy());
    let names = names.map(|variable| variable.split('=').next().unwrap_or_default().to_owned());
    let mut seen = HashSet::new();
    for name in names {
        if !known(&name) {
            return Err(format!("nobody meant {name} for it"));
        }
        if !seen.insert(name.clone()) {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(())
}

/// The status of this process's parent, in the numbers of whatever `/proc` is mounted here.
pub(super) fn keeper(_: &Plan<'_>) -> String {
    let own = procfs::text("/proc/self/status").unwrap_or_default();
    format!("/proc/{}/status", value(&own, "PPid").unwrap_or_default())
}

/// That the process of this status, open since before, is the keeper and has no privilege.
pub(super) fn is_nobody(status: File) -> Proof {
    nobody(&procfs::rest(status).map_err(|error| error.to_string())?)
}

fn nobody(status: &str) -> Proof {
    let field = |key: &str| value(status, key).unwrap_or("absent");
    let ids = [0; 4].map(|_| ids::KEEPER.to_string()).join("\t");
    // What each step of its drop has made.
    let rows = [
        ("setresuid", "Uid", ids.as_str()),
        ("setresgid", "Gid", &ids),
        ("setgroups", "Groups", ""),
        ("capset", "CapInh", NONE),
        ("capset", "CapPrm", NONE),
        ("capset", "CapEff", NONE),
        ("bounding set", "CapBnd", NONE),
        ("ambient", "CapAmb", NONE),
    ];
    let mut due = rows.iter().filter(|(step, ..)| !mutation::removed(step));
    due.try_for_each(|(_, key, wanted)| equal(key, field(key), wanted))
}

pub(super) fn bounding_set(plan: &Plan<'_>) -> Proof {
    equal("CapBnd", status(plan, "CapBnd"), NONE)
}

pub(super) fn securebits(_: &Plan<'_>) -> Proof {
    let bits = credentials::securebits().map_err(failed("prctl"))?;
    equal("securebits", format!("{bits:#x}"), format!("{:#x}", credentials::SECUREBITS))
}

pub(super) fn groups(_: &Plan<'_>) -> Proof {
    let groups = getgroups().map_err(failed("getgroups"))?;
    if groups.is_empty() { Ok(()) } else { Err(format!("there are {groups:?}")) }
}

pub(super) fn gid(plan: &Plan<'_>) -> Proof {
    let (root, gid) = (Gid::from_raw(0), Gid::from_raw(plan.id));
    let now = getresgid().map_err(failed("getresgid"))?;
    if [now.real, now.effective, now.saved] != [gid; 3] {
        return Err(format!("{now:?} are not {gid}"));
    }
    // The fourth, for files, has no system call.
    equal("Gid", status(plan, "Gid").rsplit('\t').next().unwrap_or_default(), &gid.to_string())?;
    // The error is the kernel's word; success would be ours to regret.
    if setresgid(root, root, root).is_ok() { Err("root's came back".to_owned()) } else { Ok(()) }
}

pub(super) fn uid(plan: &Plan<'_>) -> Proof {
    let (root, uid) = (Uid::from_raw(0), Uid::from_raw(plan.id));
    let now = getresuid().map_err(failed("getresuid"))?;
    if [now.real, now.effective, now.saved] != [uid; 3] {
        return Err(format!("{now:?} are not {uid}"));
    }
    equal("Uid", status(plan, "Uid").rsplit('\t').next().unwrap_or_default(), &uid.to_string())?;
    if setresuid(root, root, root).is_ok() {
        return Err("root came back".to_owned());
    }
    let Some(job) = plan.job else { return Ok(()) };
    let canary = job.canary();
    match File::open(&canary) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(format!("{canary}: {error}")),
        Ok(_) => Err(format!("{canary}, which is root's, can be read")),
    }
}

pub(super) fn capabilities(plan: &Plan<'_>) -> Proof {
    ["CapInh", "CapPrm", "CapEff"].iter().try_for_each(|key| equal(key, status(plan, key), NONE))
}

pub(super) fn death_signal(_: &Plan<'_>) -> Proof {
    match prctl::get_pdeathsig().map_err(failed("prctl"))? {
        Some(Signal::SIGKILL) => Ok(()),
        other => Err(format!("it is {other:?}")),
    }
}

pub(super) fn working_directory(plan: &Plan<'_>) -> Proof {
    let job = plan.job().map_err(failed("plan"))?;
    let cwd = getcwd().map_err(failed("getcwd"))?;
    equal("the directory", cwd.to_string_lossy().as_ref(), job.home().as_str())
}

pub(super) fn no_new_privs(_: &Plan<'_>) -> Proof {
    equal("no_new_privs", prctl::get_no_new_privs().map_err(failed("prctl"))?, true)
}

pub(super) fn descriptors(_: &Plan<'_>) -> Proof {
    let path = "/proc/self/fd";
    let entries = fs::read_dir(path).map_err(|error| format!("{path}: {error}"))?;
    let open = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for fd in open.filter(|&fd| fd > 2) {
        let borrowed = credentials::borrow(fd);
        let flags = fcntl(borrowed, FcntlArg::F_GETFD).map_err(failed("fcntl"))?;
        if !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC) {
            return Err(format!("descriptor {fd} would stay open"));
        }
    }
    Ok(())
}

pub(super) fn landlock(plan: &Plan<'_>) -> Proof {
    let job = plan.job().map_err(failed("plan"))?;
    // The image's switches and a kernel without it leave it out.
    let expected = landlock::expected(job.policy);
    equal("in force", landlock::in_force(&job.home()), expected)
}

/// That a filter is there is the kernel's word; that it is ours, a refusal of it.
pub(super) fn seccomp(plan: &Plan<'_>) -> Proof {
    let mode = seccomp::mode().map_err(failed("prctl"))?;
    equal("the mode", mode, seccomp::MODE_FILTER)?;
    match (plan.job, seccomp::in_force()) {
        (Some(_), false) => Err("it refuses nothing".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_status_are_found_by_their_key() {
        let text = "Name:\tx\nUid:\t7\t7\t7\t7\nGroups:\t \nCapEff:\t0000000000000000\n";
        assert_eq!(value(text, "Uid"), Some("7\t7\t7\t7"));
        assert_eq!(value(text, "Groups"), Some(""));
        assert_eq!(value(text, "Cap"), None);
        assert_eq!(value(text, "CapBnd"), None);
    }

    #[test]
    fn a_keeper_with_anything_is_somebody() {
        let id = ids::KEEPER;
        let ids = format!("{id}\t{id}\t{id}\t{id}");
        let set = |key: &str| format!("Cap{key}:\t{NONE}\n");
        let sets = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(set).concat();
        let good = format!("Uid:\t{ids}\nGid:\t{ids}\nGroups:\t \n{sets}");
        assert_eq!(nobody(&good), Ok(()));
        for (was, is) in [
            (format!("Uid:\t{ids}"), format!("Uid:\t{id}\t{id}\t0\t{id}")),
            (format!("Gid:\t{ids}"), "Gid:\t0\t0\t0\t0".to_owned()),
            ("Groups:\t".to_owned(), "Groups:\t0".to_owned()),
            (set("Bnd"), "CapBnd:\t0000000000000001\n".to_owned()),
        ] {
            assert!(good.contains(&was));
            assert!(nobody(&good.replace(&was, &is)).is_err(), "{is}");
        }
        assert!(nobody("").is_err());
    }

    #[test]
    fn processors_are_ranges() {
        assert_eq!(cpus("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpus("0\n"), [0]);
        assert!(cpus("").is_empty());
    }
}
