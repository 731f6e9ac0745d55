//! The race on this machine itself and not in a virtual one, whatever the kernel here lacks.
//!
//! In a mount namespace of its own: the hierarchy of cgroup v2 where the guest has it, directories in memory where a job
//! writes, and mounts shared as they are in the guest. Of a job's steps those alone are left out that this kernel does not
//! have, by the words of a token that a build with the feature `mutation` understands.

use std::fs;

use ctxinit::cgroup::Cgroup;
use ctxinit::mounts::{self, MountError};
use ctxinit::payload::{landlock, mutation};
use ctxinit::sys::process;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;

use super::race;

const CGROUPS: &str = "/sys/fs/cgroup";
/// As in `ctxinit::cgroup`.
const BASE: &str = "/sys/fs/cgroup/ctxinit";
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// A place that every system has (FHS 3.0, 3.17), and that neither a job nor bwrap covers.
const STAGE: &str = "/srv";

/// Makes the place, runs the race in it, and takes away what it left.
pub fn run(rounds: u32) -> Result<(), String> {
    let program = stage().map_err(|error| format!("a place for the race: {error}"))?;
    // No name: the group of all jobs itself.
    let jobs = Cgroup::create("").map_err(|error| format!("{error}; does another race run?"))?;
    let mut given = Vec::new();
    let raced = share_out(&mut given).and_then(|()| child(&program, rounds));
    let cleared = race::end(&jobs).and_then(|()| jobs.remove().map_err(|error| error.to_string()));
    let taken = given.iter().try_for_each(|name| control(CGROUPS, &format!("-{name}")));
    raced.and(cleared).and(taken)
}

/// Nothing of this is seen by anybody else, and it goes with the last process here.
fn stage() -> Result<String, Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mounts::make_private()?;
    let memory = |place: &str| -> Result<(), MountError> { mounts::tmpfs(place, 64, "mode=0755") };
    memory("/run")?;
    memory(STAGE)?;
    let program = format!("{STAGE}/spawn");
    fs::copy(std::env::current_exe()?, &program)?;
    // What is there may be the one of version 1, with mounts of its own.
    mounts::unmount(CGROUPS)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("cgroup2"), CGROUPS, Some("cgroup2"), flags, None::<&str>)?;
    mounts::make_shared()?;
    Ok(program)
}

/// Hands down to the jobs what controllers there are. `given` are those that nobody else had handed down.
fn share_out(given: &mut Vec<&str>) -> Result<(), String> {
    for name in CONTROLLERS.into_iter().filter(|name| has("cgroup.controllers", name)) {
        if !has("cgroup.subtree_control", name) {
            control(CGROUPS, &format!("+{name}"))?;
            given.push(name);
        }
        control(BASE, &format!("+{name}"))?;
    }
    Ok(())
}

fn has(file: &str, controller: &str) -> bool {
    let text = fs::read_to_string(format!("{CGROUPS}/{file}")).unwrap_or_default();
    text.split_whitespace().any(|name| name == controller)
}

fn control(dir: &str, word: &str) -> Result<(), String> {
    let path = format!("{dir}/cgroup.subtree_control");
    fs::write(&path, word).map_err(|error| format!("{path}: {word}: {error}"))
}

/// In a process of its own: one that is interrupted leaves a job behind.
fn child(program: &str, rounds: u32) -> Result<(), String> {
    let racer = process::fork(|| match left_out().and_then(|token| race::run(program, rounds, token.as_bytes())) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("spawn: {why}");
            1
        }
    });
    let racer = racer.map_err(|error| error.to_string())?;
    SigSet::all().thread_block().map_err(|errno| errno.to_string())?;
    match racer.wait().map_err(|error| error.to_string())? {
        exit if exit.success() => Ok(()),
        exit => Err(format!("the race: {exit}")),
    }
}

/// The token whose words leave out what this kernel has not; each is a line of the output.
fn left_out() -> Result<String, String> {
    let lacking = |name: &str| {
        name.split_once('.').is_some_and(|(of, _)| CONTROLLERS.contains(&of) && !has("cgroup.controllers", of))
    };
    let limits: Vec<&str> = mutation::NAMES.iter().copied().filter(|name| lacking(name)).collect();
    let token = limits.iter().map(|name| format!("without={name} ")).collect::<String>() + "\n";
    mutation::choose(token.as_bytes());
    if !limits.iter().all(|name| mutation::removed(name)) {
        return Err(format!(
            "this kernel has no {}, and only a build with the feature mutation goes on",
            limits.join(", ")
        ));
    }
    for limit in limits {
        println!("left out;{limit}: no controller of cgroup v2");
    }
    if landlock::abi().is_none() {
        println!("left out;landlock: not in this kernel");
    }
    Ok(token)
}
