//! The first process of a job's pid namespace, and how it comes to its second, the payload.
//!
//! The first process of a namespace hears no signal that it does not handle, and has to reap what others leave: programs
//! are not made for that, so ctxinit does it. The keeper makes the job's view, starts the payload, becomes nobody, and
//! tells the agent how the payload ended. Then it waits to be killed, which kills whatever is left in the namespace. It
//! dies with the agent.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execveat, getpid, pipe2};

use super::isolation::{Isolation, namespace};
use super::steps::{self, Plan, ROUNDS, Step};
use super::{mutation, proofs, view};
use crate::disk::mounted;
use crate::launch::{self, errno};
use crate::starting::{self, Report, SpawnError, StageError, Starting};
use crate::sys::apart::Apart;
use crate::sys::credentials;
use crate::sys::process::{self, Reaped};
use crate::{ids, logging, network, procfs};

/// A byte from the agent: the job's user is its own.
pub const LEAVE: &str = "1";

/// Starts a keeper, which starts the payload. Its pipe tells how that ended, four bytes of [`process::Exit`]; its end
/// before them means that the keeper is dead.
///
/// # Errors
/// clone3(2); what fails in the child comes by the [`Starting`].
pub fn begin(
    job: &Isolation<'_>,
    shell: Option<&Isolation<'_>>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(Starting, File), SpawnError> {
    let (reader, writer) = launch::output_pipe().map_err(|errno| SpawnError::Fork(errno.into()))?;
    let apart = Apart { cgroup: cgroup.filter(|_| mutation::taken("cgroup")), namespaces: job.namespaces() };
    let starting = starting::begin_apart(&apart, |report| live(job, shell, writer, report))?;
    Ok((starting, reader))
}

/// The life of a keeper.
fn live(job: &Isolation<'_>, shell: Option<&Isolation<'_>>, status: OwnedFd, report: Report) -> i32 {
    match set_up(job, shell, &status, &report) {
        Ok(payload) => {
            // All have closed it now: the program runs.
            drop(report);
            keep(payload, status)
        }
        Err(error) => report.failed(&error),
    }
}

fn set_up(
    job: &Isolation<'_>,
    shell: Option<&Isolation<'_>>,
    status: &OwnedFd,
    report: &Report,
) -> Result<Pid, StageError> {
    // Drops the agent's outlets while their descriptors are still open.
    logging::to_agent();
    credentials::die_with_parent().map_err(StageError::at("keeper: parent death signal"))?;
    SigSet::all().thread_block().map_err(StageError::at("keeper: signals"))?;
    let streams = [Some(job), shell].into_iter().flatten().flat_map(|of| [Some(&of.output), of.input.as_ref()]);
    let mut kept: Vec<i32> = streams.flatten().chain(job.disk).chain([job.leave]).map(AsRawFd::as_raw_fd).collect();
    kept.extend([status.as_raw_fd(), report.as_fd().as_raw_fd()]);
    // A payload that closes everything itself as well would not show it.
    if mutation::taken("close_range") {
        launch::keep_only(&kept).map_err(StageError::at("keeper: close descriptors"))?;
    }
    view::follow().map_err(StageError::at("mount propagation"))?;
    let plan = Plan::payload(job);
    // Inside of its namespace nobody is told where in the machine a cgroup is, so this is proved before.
    for inner in [CGROUP, CGROUP_NAMESPACE] {
        steps::take(inner, &plan)?;
        steps::prove(inner, &plan).map_err(in_keeper)?;
    }
    // The machine's: the view's own is proved by the payload.
    let null = File::open("/dev/null").map_err(errno).map_err(StageError::at("keeper: /dev/null"))?;
    steps::take(view::VIEW, &plan)?;
    steps::take(view::RUN, &plan)?;
    // Last, so that no other step covers it; nosuid and nodev are proved of it as of every mount.
    if let (Some(disk), Some(place)) = (job.disk, job.disk_place()) {
        mounted::attach(disk, &place).map_err(errno).map_err(StageError::at("user disk"))?;
    }
    if job.is_alone() && mutation::taken("net namespace") {
        network::loopback_up().map_err(|error| errno(error.source)).map_err(StageError::at("loopback"))?;
    }
    let (ready, tell_ready) = pipe2(OFlag::O_CLOEXEC).map_err(StageError::at("keeper: pipe"))?;
    let ready = File::from(ready);
    // Each has the way to say what failed, too.
    let start = |job: &Isolation<'_>| {
        let started = process::fork(|| {
            let Err(error) = become_payload(job, &ready);
            report.failed(&error)
        });
        // By its number alone: it is ours to reap, and no descriptor of it outlives the closing of all.
        started.map(|child| child.pid()).map_err(errno).map_err(StageError::at("fork"))
    };
    let payload = start(job)?;
    shell.map(start).transpose()?;
    drop(ready);
    become_nobody(&null, &[status.as_raw_fd(), report.as_fd().as_raw_fd(), tell_ready.as_raw_fd(), null.as_raw_fd()])?;
    File::from(tell_ready).write_all(b"11").map_err(errno).map_err(StageError::at("keeper: ready"))?;
    Ok(payload)
}

/// Its memory holds what the agent's held, so no payload may look into it or signal it: another user, and none of the
/// agent's descriptors.
fn become_nobody(null: &File, keep: &[i32]) -> Result<(), StageError> {
    launch::keep_only(keep).map_err(StageError::at("keeper: close descriptors"))?;
    let streams = dup2_stdin(null).and_then(|()| dup2_stdout(null)).and_then(|()| dup2_stderr(null));
    streams.map_err(StageError::at("keeper: standard streams"))?;
    if !mutation::taken("keeper user") {
        return Ok(());
    }
    steps::all(&Plan::keeper(ids::KEEPER)).map_err(in_keeper)
}

fn in_keeper(StageError { stage, errno }: StageError) -> StageError {
    StageError { stage: format!("keeper: {stage}"), errno }
}

/// Reaps for ever; tells of the payload.
fn keep(payload: Pid, status: OwnedFd) -> i32 {
    let mut status = Some(File::from(status));
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    loop {
        while let Reaped::Ended(pid, exit) = process::reap_any() {
            // Once: its number may mean another process later.
            if pid == payload
                && let Some(mut status) = status.take()
            {
                let _ = status.write_all(&exit.to_bytes());
            }
        }
        if children.wait().is_err() {
            return 1;
        }
    }
}

/// The drop, its proofs, and the program.
fn become_payload(job: &Isolation<'_>, mut ready: &File) -> Result<Infallible, StageError> {
    let plan = Plan::payload(job);
    // Open before the drop: of a process that it may not trace, a payload is not even told that it is there.
    let keeper = File::open(proofs::keeper(&plan)).map_err(errno).map_err(StageError::at("keeper: status"))?;
    for proofs in [AROUND, view::RUN, view::VIEW] {
        steps::prove(proofs, &plan)?;
    }
    wait_for_leave(job.leave)?;
    let [drop @ .., landlock, seccomp] = ROUNDS;
    for round in drop {
        steps::take(round, &plan)?;
        steps::prove(round, &plan)?;
    }
    // As the user: where the user may not go, there is no program. It does not open it for reading.
    let path = job.program.path()?;
    let named = |what: &str| format!("{what} {}", path.to_string_lossy());
    let program = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let program = program.map_err(StageError::at(named("open")))?;
    for wall in [landlock, seccomp] {
        steps::take(wall, &plan)?;
        steps::prove(wall, &plan)?;
    }
    // Not before its keeper is nobody.
    ready.read_exact(&mut [0]).map_err(errno).map_err(StageError::at("wait for the keeper"))?;
    if !mutation::removed("keeper user") {
        proofs::is_nobody(keeper)
            .map_err(|why| StageError { stage: format!("verify keeper user: {why}"), errno: Errno::EPERM })?;
    }
    if let Some(input) = &job.input {
        dup2_stdin(input).map_err(StageError::at("input"))?;
    }
    match execveat(program, c"", &job.program.words, &job.program.environment, AtFlags::AT_EMPTY_PATH) {
        // The interpreter of a script gets the script's path, and the one of a descriptor that exec has closed is none.
        Err(Errno::ENOENT) => job.program.exec(),
        Err(errno) => Err(StageError { stage: named("exec"), errno }),
        Ok(never) => Ok(never),
    }
}

/// The agent's word that the user is nobody else's; before it nobody becomes that user, as the agent would find him.
fn wait_for_leave(leave: &OwnedFd) -> Result<(), StageError> {
    // One word for each of those who wait; a refusal is for the first.
    let mut word = [0; LEAVE.len()];
    let count = nix::unistd::read(leave, &mut word).map_err(StageError::at("wait for the agent"))?;
    if count == 0 {
        return Err(StageError { stage: "agent: it is gone without giving leave".to_owned(), errno: Errno::EPIPE });
    }
    if word == LEAVE.as_bytes() {
        return Ok(());
    }
    let mut rest = [0; 256];
    let count = nix::unistd::read(leave, &mut rest).map_err(StageError::at("wait for the agent"))?;
    let why = [&word[..], rest.get(..count).unwrap_or_default()].concat();
    Err(StageError { stage: String::from_utf8_lossy(&why).into_owned(), errno: Errno::EPERM })
}

/// Made by clone3(2).
pub const CGROUP: &[Step] = &[Step { name: "cgroup", due: always, take: |_| Ok(()), prove: in_cgroup }];

/// Its root is the cgroup of whoever makes it, so this is done from inside.
pub const CGROUP_NAMESPACE: &[Step] = &[Step {
    name: "cgroup namespace",
    due: always,
    take: |_| unshare(CloneFlags::CLONE_NEWCGROUP),
    prove: |plan| apart(plan, "cgroup", 4),
}];

/// What clone3(2) has made, too: there is nothing left to take. And what was made ready in the agent.
pub const AROUND: &[Step] = &[
    Step { name: "environment", due: always, take: |_| Ok(()), prove: proofs::environment },
    Step { name: "mount namespace", due: always, take: |_| Ok(()), prove: |plan| apart(plan, "mnt", 1) },
    Step {
        name: "pid namespace",
        due: always,
        take: |_| Ok(()),
        prove: |plan| {
            apart(plan, "pid", 0)?;
            let job = plan.job().map_err(|errno| errno.to_string())?;
            proofs::equal("the process", getpid().as_raw(), job.process)
        },
    },
    Step { name: "ipc namespace", due: always, take: |_| Ok(()), prove: |plan| apart(plan, "ipc", 2) },
    Step {
        name: "net namespace",
        due: |plan| plan.job.is_some_and(Isolation::is_alone),
        take: |_| Ok(()),
        prove: |plan| apart(plan, "net", 3),
    },
];

fn always(_: &Plan<'_>) -> bool {
    true
}

fn in_cgroup(plan: &Plan<'_>) -> Result<(), String> {
    let job = plan.job().map_err(|errno| errno.to_string())?;
    let text = procfs::text("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    proofs::equal("it", own.unwrap_or("none"), job.cgroup)
}

/// A namespace is not the agent's.
fn apart(plan: &Plan<'_>, kind: &str, at: usize) -> Result<(), String> {
    let job = plan.job().map_err(|errno| errno.to_string())?;
    let own = namespace(kind).map_err(|error| error.to_string())?;
    match job.outside.namespaces.get(at) {
        Some(outside) if *outside != own => Ok(()),
        _ => Err("it is the agent's".to_owned()),
    }
}
