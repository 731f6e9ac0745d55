//! The drop as data: from root to a user without any privilege, step by step, each proved after the fact.
//!
//! Each step is mandatory: the first that fails, or whose proof is missing, is reported by its name, and the program does
//! not run. Roles and the keeper of a job drop by the same list and leave out what concerns a program alone. The order is
//! the kernel's: groups before gid before uid (the other way round leaves gid 0, as the right to change it went with the
//! uid), bounding set and securebits while CAP_SETPCAP is there, the filters last.

use std::cell::OnceCell;
use std::fs;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd::{Gid, Pid, Uid, chdir, setgroups, setresgid, setresuid, setsid};

use super::isolation::Isolation;
use super::{landlock, mutation, proofs};
use crate::guard::mounts::{self, Mount};
use crate::launch::{self, errno};
use crate::procfs;
use crate::starting::StageError;
use crate::sys::{credentials, priority, seccomp, signals};

/// One step.
pub struct Step {
    /// As in the report and the log, and in the docs.
    pub name: &'static str,
    /// Whether it is taken.
    pub due: fn(&Plan<'_>) -> bool,
    /// Takes it.
    pub take: fn(&Plan<'_>) -> Result<(), Errno>,
    /// Asks the kernel what came of it; the error says what is wrong.
    pub prove: fn(&Plan<'_>) -> Result<(), String>,
}

/// What a process is to become.
pub struct Plan<'a> {
    /// Its user and group.
    pub id: u32,
    /// For a payload alone: all that its job has of its own.
    pub job: Option<&'a Isolation<'a>>,
    /// Whether it ends with its parent.
    mortal: bool,
    status: OnceCell<String>,
    mounts: OnceCell<mounts::Table>,
    /// What exactly a step failed at, where it knows.
    fault: OnceCell<String>,
}

impl<'a> Plan<'a> {
    /// A process of ctxinit's without any privilege.
    pub fn role(id: u32) -> Self {
        Self { id, job: None, mortal: false, status: OnceCell::new(), mounts: OnceCell::new(), fault: OnceCell::new() }
    }

    /// The same, and it ends with the agent.
    pub fn keeper(id: u32) -> Self {
        Self { mortal: true, ..Self::role(id) }
    }

    /// The program of a job.
    pub fn payload(job: &'a Isolation<'a>) -> Self {
        Self { job: Some(job), ..Self::keeper(job.uid) }
    }

    /// For steps of a payload.
    ///
    /// # Errors
    /// EINVAL for anything else.
    pub fn job(&self) -> Result<&'a Isolation<'a>, Errno> {
        self.job.ok_or(Errno::EINVAL)
    }

    /// The text of `/proc/self/status`, read once: after the last step that shows in it.
    pub fn status(&self) -> &str {
        self.status.get_or_init(|| procfs::text("/proc/self/status").unwrap_or_default())
    }

    /// The table of `/proc/self/mountinfo`, read once.
    pub fn mounts(&self) -> &[Mount] {
        self.mounts.get_or_init(|| mounts::parse(&procfs::text("/proc/self/mountinfo").unwrap_or_default()))
    }

    /// Whether setuid programs give what they say.
    fn keeps_setuid(&self) -> bool {
        self.job.is_some_and(|job| job.policy.setuid_programs)
    }
}

/// 8 MiB, the kernel's own since 5.16; before it was 64 KiB.
const MEMLOCK: rlim_t = 8 * 1024 * 1024;
/// Bytes in message queues, the kernel's own.
const MSGQUEUE: rlim_t = 819_200;
/// The kernel's own; a process hands its own on.
pub const TIMER_SLACK_NANOS: u32 = 50_000;
/// The kernel's killer takes a payload before anything of the machine.
pub const OOM_SCORE: &str = "500";
/// A payload's files are its own.
pub const UMASK: u32 = 0o077;
/// A payload opens /dev/stdout by name, and the pipe is root's.
pub const OUTPUT_MODE: u32 = 0o622;

/// What a payload's processes may have at most.
pub fn limits(job: &Isolation<'_>) -> [(Resource, rlim_t); 6] {
    [
        // A core file is nobody's business.
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, job.policy.open_files.into()),
        (Resource::RLIMIT_MEMLOCK, MEMLOCK),
        (Resource::RLIMIT_MSGQUEUE, MSGQUEUE),
        // Neither a real-time priority nor a better nice value, which 0 is none of.
        (Resource::RLIMIT_RTPRIO, 0),
        (Resource::RLIMIT_NICE, 0),
    ]
}

/// The whole drop: each step of a round is taken, then each is proved. Behind a wall less can be asked, as a refusal could
/// be the wall's; so each of these is a round of its own.
pub const ROUNDS: [&[Step]; 5] = [AMBIENT, DROP, PLACE, LANDLOCK, SECCOMP];

/// Later steps would empty it as well, and its proof would be theirs.
const AMBIENT: &[Step] =
    &[Step { name: "ambient", due: always, take: |_| credentials::clear_ambient_set(), prove: proofs::ambient }];

const DROP: &[Step] = &[
    Step { name: "signals", due: payload, take: |_| signals::reset(), prove: proofs::signals },
    // Without a controlling terminal there is none to inject input into (TIOCSTI).
    Step { name: "setsid", due: payload, take: |_| setsid().map(drop), prove: proofs::session },
    Step {
        name: "streams",
        due: payload,
        take: |plan| launch::streams(plan.job()?.output.as_fd()),
        prove: proofs::streams,
    },
    Step {
        name: "output mode",
        due: payload,
        take: |plan| fchmod(plan.job()?.output.as_fd(), Mode::from_bits_truncate(OUTPUT_MODE)),
        prove: proofs::output_mode,
    },
    Step { name: "keyring", due: always, take: keyring, prove: proofs::keyring },
    Step {
        name: "umask",
        due: payload,
        take: |_| {
            umask(Mode::from_bits_truncate(UMASK));
            Ok(())
        },
        prove: proofs::umask,
    },
    Step {
        name: "rlimits",
        due: payload,
        take: |plan| limits(plan.job()?).into_iter().try_for_each(|(resource, most)| setrlimit(resource, most, most)),
        prove: proofs::rlimits,
    },
    Step { name: "nice", due: payload, take: |_| priority::set_usual_nice(), prove: proofs::nice },
    Step { name: "ioprio", due: payload, take: |_| priority::set_usual_io(), prove: proofs::ioprio },
    Step { name: "affinity", due: payload, take: affinity, prove: proofs::affinity },
    Step {
        name: "timer slack",
        due: payload,
        take: |_| prctl::set_timerslack(TIMER_SLACK_NANOS.into()),
        prove: proofs::timer_slack,
    },
    Step {
        name: "oom_score_adj",
        due: payload,
        take: |_| fs::write("/proc/self/oom_score_adj", OOM_SCORE).map_err(errno),
        prove: proofs::oom_score,
    },
    Step {
        name: "bounding set",
        due: no_setuid,
        take: |_| credentials::clear_bounding_set(),
        prove: proofs::bounding_set,
    },
    Step { name: "securebits", due: no_setuid, take: |_| credentials::set_securebits(), prove: proofs::securebits },
    // While CAP_SYS_ADMIN is there.
    Step { name: "seccomp", due: before_user, take: seccomp, prove: proofs::seccomp },
    Step { name: "setgroups", due: always, take: |_| setgroups(&[]), prove: proofs::groups },
    Step {
        name: "setresgid",
        due: always,
        take: |plan| {
            let gid = Gid::from_raw(plan.id);
            setresgid(gid, gid, gid)
        },
        prove: proofs::gid,
    },
    Step {
        name: "setresuid",
        due: always,
        take: |plan| {
            let uid = Uid::from_raw(plan.id);
            setresuid(uid, uid, uid)
        },
        prove: proofs::uid,
    },
    Step { name: "capset", due: always, take: |_| credentials::clear_capabilities(), prove: proofs::capabilities },
    // Changing users clears it, so it comes after. Nobody would watch a payload whose agent is gone.
    Step {
        name: "pdeathsig",
        due: |plan| plan.mortal,
        take: |_| credentials::die_with_parent(),
        prove: proofs::death_signal,
    },
    Step { name: "no_new_privs", due: no_setuid, take: |_| prctl::set_no_new_privs(), prove: proofs::no_new_privs },
    Step { name: "close_range", due: payload, take: |_| credentials::close_on_exec(), prove: proofs::descriptors },
];

/// As the user, whom the round before has proved: a network file system may let root in nowhere.
const PLACE: &[Step] = &[Step {
    name: "chdir",
    due: payload,
    take: |plan| chdir(plan.job()?.home().as_str()),
    prove: proofs::working_directory,
}];

const LANDLOCK: &[Step] = &[Step {
    name: "landlock",
    due: walled,
    take: |plan| {
        let job = plan.job()?;
        let own = job.own_places();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        landlock::restrict(job.policy, &own).map(drop).map_err(|error| {
            // Which place it was.
            let _ = plan.fault.set(error.stage);
            error.errno
        })
    },
    prove: proofs::landlock,
}];

const SECCOMP: &[Step] = &[Step { name: "seccomp", due: walled, take: seccomp, prove: proofs::seccomp }];

/// Without no_new_privs the kernel takes a filter from root alone, and Landlock would keep root from nothing that it is
/// there for.
fn walled(plan: &Plan<'_>) -> bool {
    payload(plan) && !before_user(plan)
}

fn before_user(plan: &Plan<'_>) -> bool {
    plan.keeps_setuid() || (payload(plan) && !mutation::taken("no_new_privs"))
}

fn seccomp(plan: &Plan<'_>) -> Result<(), Errno> {
    seccomp::load(&plan.job()?.filter)
}

fn always(_: &Plan<'_>) -> bool {
    true
}

fn payload(plan: &Plan<'_>) -> bool {
    plan.job.is_some()
}

fn no_setuid(plan: &Plan<'_>) -> bool {
    !plan.keeps_setuid()
}

/// An old session keyring may hold keys of root.
fn keyring(_: &Plan<'_>) -> Result<(), Errno> {
    match credentials::new_session_keyring() {
        // A kernel without keyrings has none to leak.
        Err(Errno::ENOSYS) => Ok(()),
        result => result,
    }
}

fn affinity(_: &Plan<'_>) -> Result<(), Errno> {
    let mut every = CpuSet::new();
    // The kernel takes those that it has.
    (0..CpuSet::count()).try_for_each(|cpu| every.set(cpu))?;
    sched_setaffinity(Pid::from_raw(0), &every)
}

/// The whole drop.
///
/// # Errors
/// The first step that fails, or the first proof that is missing.
pub fn all(plan: &Plan<'_>) -> Result<(), StageError> {
    for round in ROUNDS {
        take(round, plan)?;
        prove(round, plan)?;
    }
    Ok(())
}

/// Takes these steps, as far as they are due.
///
/// # Errors
/// The first that fails.
pub fn take(steps: &[Step], plan: &Plan<'_>) -> Result<(), StageError> {
    if plan.id == 0 {
        return Err(StageError { stage: "refuse uid 0".to_owned(), errno: Errno::EINVAL });
    }
    let mut due = steps.iter().filter(|step| (step.due)(plan) && mutation::taken(step.name));
    due.try_for_each(|step| {
        let stage = || plan.fault.get().map_or(step.name, String::as_str).to_owned();
        (step.take)(plan).map_err(|errno| StageError { stage: stage(), errno })
    })
}

/// What the kernel says of this process, not what was asked for.
///
/// # Errors
/// The first proof that is missing.
pub fn prove(steps: &[Step], plan: &Plan<'_>) -> Result<(), StageError> {
    let mut due = steps.iter().filter(|step| (step.due)(plan) && !mutation::removed(step.name));
    due.try_for_each(|step| {
        let missing = |why: String| StageError { stage: format!("verify {}: {why}", step.name), errno: Errno::EPERM };
        (step.prove)(plan).map_err(missing)
    })
}
