//! New namespaces, and those of others.

use std::fs;
use std::os::fd::AsRawFd;

use nix::libc;

use super::raw::{self, call};
use super::{Attempt, Scene, Tried, any, attempt, denied, escaped, seen};

pub const ATTEMPTS: &[Attempt] = &[
    attempt("pid-namespace", "the machine's numbers of processes", |_| is_first("pid", 4_026_531_836)),
    attempt("ipc-namespace", "the machine's ipc", |_| is_first("ipc", 4_026_531_839)),
    attempt("cgroup-namespace", "the machine's names of cgroups", |_| is_first("cgroup", 4_026_531_835)),
    attempt("unshare-user", "a user namespace", |_| unshare(libc::CLONE_NEWUSER)),
    attempt("unshare-mount", "a mount namespace", |_| unshare(libc::CLONE_NEWNS)),
    attempt("unshare-pid", "a pid namespace", |_| unshare(libc::CLONE_NEWPID)),
    attempt("unshare-net", "a network namespace", |_| unshare(libc::CLONE_NEWNET)),
    attempt("unshare-ipc", "an ipc namespace", |_| unshare(libc::CLONE_NEWIPC)),
    attempt("unshare-uts", "a namespace of names", |_| unshare(libc::CLONE_NEWUTS)),
    attempt("unshare-cgroup", "a cgroup namespace", |_| unshare(libc::CLONE_NEWCGROUP)),
    attempt("unshare-time", "a time namespace", |_| unshare(CLONE_NEWTIME)),
    attempt("clone-user", "a user namespace by clone", |_| {
        escaped(format!("process {} is in it", raw::clone(libc::CLONE_NEWUSER)?))
    }),
    attempt("clone3-user", "a user namespace by clone3", |_| {
        escaped(format!("process {} is in it", raw::clone3(libc::CLONE_NEWUSER)?))
    }),
    attempt("i386-unshare", "a user namespace by the gate of 32-bit programs", |_| {
        // unshare is 310 there.
        raw::i386(310, libc::CLONE_NEWUSER as u32)?;
        escaped(capabilities())
    }),
    attempt("setns", "a namespace of process 1, or of any process of others", setns),
    attempt("setns-pidfd", "all namespaces of process 1 by its pidfd", |_| {
        let pidfd = call!(libc::SYS_pidfd_open, 1, 0)?;
        let all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
        call!(libc::SYS_setns, pidfd, all)?;
        escaped("entered")
    }),
];

const CLONE_NEWTIME: i32 = 0x80;

/// The kernel's first namespaces have numbers that never change (linux/proc_ns.h).
fn is_first(kind: &str, number: u32) -> Tried {
    let link = fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string();
    if link == format!("{kind}:[{number}]") { seen(link) } else { denied(link) }
}

fn unshare(kind: i32) -> Tried {
    call!(libc::SYS_unshare, kind)?;
    escaped(capabilities())
}

fn capabilities() -> String {
    let status = crate::guest::status().unwrap_or_default();
    format!("made, with CapEff {}", status.get("CapEff").map_or("unknown", String::as_str))
}

fn setns(scene: &Scene) -> Tried {
    let kinds = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"];
    let foreign = scene.foreign();
    let all = foreign.iter().flat_map(|pid| kinds.map(|kind| (pid, kind)));
    any(all, |(pid, kind)| {
        let path = format!("/proc/{pid}/ns/{kind}");
        if fs::read_link(&path)? == fs::read_link(format!("/proc/self/ns/{kind}"))? {
            return denied("it is our own");
        }
        let file = fs::File::open(&path)?;
        call!(libc::SYS_setns, file.as_raw_fd(), 0)?;
        escaped(format!("{path} is entered"))
    })
}
