//! What a job sees of the file system: the image, without what is not its own.
//!
//! Made in the job's own mount namespace by its keeper. Nothing is unmounted or moved: a place is covered by another
//! mount, which nobody in the job has the right to take off. That also works where "/" is the initramfs, which
//! pivot_root(2) refuses.

use std::ffi::CStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, DEVPTS_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::statvfs::FsFlags;

use super::mutation;
use super::steps::Plan;
use super::steps::Step;
use crate::guard::mounts::Mount;
use crate::image::payload::Payload;
use crate::mounts::{self, MountError};
use crate::sys::mount::{Forbids, forbid};

/// What all jobs of a machine share, and none can write to.
const SHARED: &str = "/run/ctxinit/cell";
const DEV: &str = "/run/ctxinit/cell/dev";
const CGROUPS: &str = "/sys/fs/cgroup";
const EMPTY: &str = "/run/ctxinit/cell/empty";

/// Device nodes: name, major and minor number (kernel: admin-guide/devices.txt). What makes none of them is not there.
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const FUSE: (&str, u64, u64) = ("fuse", 10, 229);
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Names in a job's `/dev`, for the proof.
const DIRECTORIES: [&str; 2] = ["pts", "shm"];
/// The machine's sockets for the log, datagrams and streams, are bound over these.
const LOGS: [&str; 2] = ["log", "log.stream"];

/// What is shared by all jobs of a machine; unmounted when dropped.
#[derive(Debug)]
pub struct Shared(());

impl Shared {
    /// Makes it, once.
    ///
    /// # Errors
    /// The mount, or a file in it.
    pub fn make(policy: &Payload) -> Result<Self, MountError> {
        let failed = |error: io::Error| MountError::file(SHARED, error);
        fs::create_dir_all(SHARED).map_err(failed)?;
        // Nodes and links take no page of it.
        mounts::nodes(SHARED, "mode=0700,size=64k,nr_inodes=64")?;
        let shared = Self(());
        let mask = umask(Mode::empty());
        let made = fill(policy);
        umask(mask);
        made.map_err(failed)?;
        Ok(shared)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let removed = mounts::unmount(SHARED).map_err(|error| error.to_string());
        let removed = removed.and_then(|()| fs::remove_dir(SHARED).map_err(|error| error.to_string()));
        if let Err(error) = removed {
            log::warn!("{error}");
        }
    }
}

fn fill(policy: &Payload) -> io::Result<()> {
    let dir = |path: &str, mode| fs::DirBuilder::new().mode(mode).create(path);
    dir(EMPTY, 0o555)?;
    dir(DEV, 0o755)?;
    for name in DIRECTORIES {
        dir(&format!("{DEV}/{name}"), 0o755)?;
    }
    for (name, major, minor) in NODES.into_iter().chain(policy.user_namespaces.then_some(FUSE)) {
        let node = format!("{DEV}/{name}");
        if mutation::removed("nodev") {
            // Nobody makes nodes in a user namespace.
            fs::write(&node, "")?;
            mounts::bind(&format!("/dev/{name}"), &node).map_err(io::Error::other)?;
            continue;
        }
        let everybody = Mode::from_bits_truncate(0o666);
        mknod(node.as_str(), SFlag::S_IFCHR, everybody, makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        symlink(target, format!("{DEV}/{name}"))?;
    }
    LOGS.iter().try_for_each(|log| fs::write(format!("{DEV}/{log}"), ""))
}

/// In this order: a place is covered after what it is covered with was taken from there.
pub const VIEW: &[Step] = &[
    Step { name: "nosuid", due: no_setuid, take: |_| forbid(ROOT, true, NOSUID, false), prove: nosuid },
    Step { name: "nodev", due: always, take: |_| forbid(ROOT, true, NODEV, false), prove: nodev },
    Step { name: "own proc", due: always, take: |_| own_proc(), prove: proc_is_own },
    Step { name: "own dev", due: always, take: |_| own_dev(), prove: dev_is_own },
    Step { name: "own pts", due: always, take: |_| own_pts(), prove: |_| pts_are_own() },
    Step {
        name: "own shm",
        due: always,
        take: |plan| over("/dev/shm", &format!("{}/shm", plan.job()?.dir)),
        prove: |plan| is("/dev/shm", plan, "shm"),
    },
    Step {
        name: "own tmp",
        due: always,
        take: |plan| over("/tmp", &format!("{}/tmp", plan.job()?.dir)),
        prove: |plan| is("/tmp", plan, "tmp"),
    },
    Step {
        name: "own var tmp",
        due: always,
        take: |plan| over("/var/tmp", &format!("{}/tmp", plan.job()?.dir)),
        prove: |plan| is("/var/tmp", plan, "tmp"),
    },
    Step {
        name: "own accounts",
        due: always,
        take: |plan| {
            let dir = plan.job()?.dir;
            over("/etc/passwd", &format!("{dir}/etc/passwd"))?;
            over("/etc/group", &format!("{dir}/etc/group"))
        },
        prove: |plan| is("/etc/passwd", plan, "etc/passwd").and_then(|()| is("/etc/group", plan, "etc/group")),
    },
    // The machine's shows the cgroups of all. A mount of its own the kernel refuses there, as it is the same file system.
    Step {
        name: "own cgroup",
        due: always,
        take: |plan| over(CGROUPS, &format!("{CGROUPS}{}", plan.job()?.cgroup)),
        prove: cgroup_is_own,
    },
    Step {
        name: "read-only sys",
        due: always,
        take: |_| forbid(c"/sys", true, WRITING, false),
        prove: sys_is_read_only,
    },
    Step {
        name: "hide policy",
        due: always,
        take: |_| over("/etc/ctxinit", EMPTY),
        prove: |_| is_empty("/etc/ctxinit"),
    },
    Step {
        name: "hide context",
        due: always,
        take: |_| over("/var/lib/hepix", EMPTY),
        prove: |_| is_empty("/var/lib/hepix"),
    },
];

/// Taken last, as what the others are covered with lies below; proved first, as their proofs look there.
pub const RUN: &[Step] = &[Step {
    name: "own run",
    due: always,
    take: |plan| over(super::isolation::INSIDE, plan.job()?.dir),
    prove: run_is_own,
}];

const ROOT: &CStr = c"/";
const NOSUID: Forbids = Forbids { setuid: true, writing: false, devices: false, programs: false };
const NODEV: Forbids = Forbids { devices: true, setuid: false, writing: false, programs: false };
const WRITING: Forbids = Forbids { writing: true, setuid: false, devices: false, programs: false };

/// Mounts of the machine that come later are seen in the job (a CVMFS repository, on demand), and none of the job's in the
/// machine. Before any other step.
///
/// # Errors
/// Those of mount(2).
pub fn follow() -> Result<(), Errno> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
}

fn always(_: &Plan<'_>) -> bool {
    true
}

fn no_setuid(plan: &Plan<'_>) -> bool {
    plan.job.is_some_and(|job| !job.policy.setuid_programs)
}

/// Covers a place. One that the image does not have needs no cover.
fn over(place: &str, with: &str) -> Result<(), Errno> {
    let none: Option<&str> = None;
    match mount(Some(with), place, none, MsFlags::MS_BIND, none) {
        Err(Errno::ENOENT) if !exists(place) && exists(with) => Ok(()),
        result => result,
    }
}

fn exists(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Programs look for processors and memory in `/proc`, so it is whole; of processes it has those of the job that the reader
/// may trace, which leaves out the keeper.
fn own_proc() -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, Some("hidepid=ptraceable"))
}

fn own_dev() -> Result<(), Errno> {
    let none: Option<&str> = None;
    for log in LOGS {
        let (here, there) = (format!("/dev/{log}"), format!("{DEV}/{log}"));
        match mount(Some(here.as_str()), there.as_str(), none, MsFlags::MS_BIND, none) {
            // Nobody listens in this machine.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    mount(Some(DEV), "/dev", none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    forbid(c"/dev", false, Forbids { writing: true, setuid: true, devices: false, programs: true }, true)
}

fn own_pts() -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), "/dev/pts", Some("devpts"), flags, Some("newinstance,mode=0600,ptmxmode=0666"))
}

/// No proof, with the reason.
type Proof = Result<(), String>;

fn nosuid(plan: &Plan<'_>) -> Proof {
    every_mount(plan.mounts(), "nosuid", &[])
}

fn nodev(plan: &Plan<'_>) -> Proof {
    every_mount(plan.mounts(), "nodev", &["/dev", "/dev/pts"])
}

/// Every mount but those at these places has an option.
fn every_mount(mounts: &[Mount], option: &str, but: &[&str]) -> Proof {
    let has = |mount: &Mount| mount.options.split(',').any(|each| each == option);
    match mounts.iter().find(|mount| !has(mount) && !but.contains(&mount.point.as_str())) {
        None if mounts.is_empty() => Err("/proc/self/mountinfo says nothing".to_owned()),
        None => Ok(()),
        Some(mount) => Err(format!("{} is mounted {}", mount.point, mount.options)),
    }
}

fn proc_is_own(plan: &Plan<'_>) -> Proof {
    is_of("/proc", PROC_SUPER_MAGIC, FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC)?;
    let own = fs::read_link("/proc/self").map_err(|error| format!("/proc/self: {error}"))?;
    super::proofs::equal("/proc/self", own.to_string_lossy().as_ref(), std::process::id().to_string().as_str())?;
    let top = plan.mounts().iter().rev().find(|mount| mount.point == "/proc");
    if top.is_some_and(|mount| mount.super_options.split(',').any(|each| each == "hidepid=ptraceable")) {
        Ok(())
    } else {
        Err("it shows processes of others".to_owned())
    }
}

fn dev_is_own(plan: &Plan<'_>) -> Proof {
    let flags = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC;
    is_of("/dev", TMPFS_MAGIC, flags)?;
    let entries = fs::read_dir("/dev").map_err(|error| format!("/dev: {error}"))?;
    let fuse = plan.job.is_some_and(|job| job.policy.user_namespaces).then_some(FUSE.0);
    let known: Vec<&str> = NODES.iter().map(|node| node.0).chain(LINKS.iter().map(|link| link.0)).collect();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !known.iter().chain(&DIRECTORIES).chain(&LOGS).chain(&fuse).any(|one| *one == name) {
            return Err(format!("/dev/{name} is there"));
        }
    }
    Ok(())
}

fn pts_are_own() -> Proof {
    is_of("/dev/pts", DEVPTS_SUPER_MAGIC, FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC)?;
    let entries = fs::read_dir("/dev/pts").map_err(|error| format!("/dev/pts: {error}"))?;
    // A fresh instance has ptmx alone.
    super::proofs::equal("entries in /dev/pts", entries.count(), 1)
}

fn cgroup_is_own(plan: &Plan<'_>) -> Proof {
    is_of(CGROUPS, CGROUP2_SUPER_MAGIC, FsFlags::ST_NOSUID | FsFlags::ST_NODEV)?;
    let job = plan.job().map_err(|errno| format!("plan: {errno}"))?;
    let found = fs::metadata(CGROUPS).map_err(|error| format!("{CGROUPS}: {error}"))?;
    super::proofs::equal("its root", found.ino(), job.cgroup_id)
}

fn sys_is_read_only(_: &Plan<'_>) -> Proof {
    for place in ["/sys", CGROUPS] {
        let found = statfs(place).map_err(|errno| format!("{place}: {errno}"))?;
        if !found.flags().contains(FsFlags::ST_RDONLY) {
            return Err(format!("{place} can be written to"));
        }
    }
    Ok(())
}

/// That a place is a file system of this kind, mounted so.
fn is_of(place: &str, kind: FsType, flags: FsFlags) -> Proof {
    let found = statfs(place).map_err(|errno| format!("{place}: {errno}"))?;
    if found.filesystem_type() != kind {
        return Err(format!("{place} is something else"));
    }
    let missing = flags.difference(found.flags());
    if missing.is_empty() { Ok(()) } else { Err(format!("{place} is mounted without {missing:?}")) }
}

/// That a place shows a file or directory of the job's own.
fn is(place: &str, plan: &Plan<'_>, own: &str) -> Proof {
    let job = plan.job().map_err(|errno| format!("plan: {errno}"))?;
    let identity = |path: &str| fs::metadata(path).map(|of| (of.dev(), of.ino()));
    let own = format!("{}/{own}", job.inside());
    match identity(place) {
        Err(error) if error.kind() == ErrorKind::NotFound && !exists(place) => Ok(()),
        Err(error) => Err(format!("{place}: {error}")),
        Ok(found) if identity(&own).is_ok_and(|wanted| wanted == found) => Ok(()),
        Ok(_) => Err(format!("{place} is not the job's")),
    }
}

/// That there is nothing in a place, and nothing can be put there.
fn is_empty(place: &str) -> Proof {
    match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound && !exists(place) => Ok(()),
        Err(error) => Err(format!("{place}: {error}")),
        Ok(entries) => super::proofs::equal(&format!("entries in {place}"), entries.count(), 0),
    }
}

fn run_is_own(plan: &Plan<'_>) -> Proof {
    let job = plan.job().map_err(|errno| format!("plan: {errno}"))?;
    let found = fs::metadata(super::isolation::INSIDE).map_err(|error| error.to_string())?;
    super::proofs::equal("its file system", found.dev(), job.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::mounts::parse;

    #[test]
    fn one_mount_without_the_option_is_found() {
        let text = "20 1 0:5 / / ro,nosuid,nodev,relatime - overlay overlay rw\n\
                     21 20 0:6 / /dev ro,nosuid,noexec shared:3 - tmpfs tmpfs rw\n\
                     22 20 0:7 / /proc rw,nosuid,nodev,noexec - proc proc rw,hidepid=ptraceable\n";
        assert_eq!(every_mount(&parse(text), "nosuid", &[]), Ok(()));
        assert_eq!(every_mount(&parse(text), "nodev", &["/dev"]), Ok(()));
        assert_eq!(every_mount(&parse(text), "nodev", &[]).unwrap_err(), "/dev is mounted ro,nosuid,noexec");
        let later = format!("{text}23 20 0:8 / /cvmfs/x rw,relatime - fuse cvmfs rw\n");
        assert_eq!(every_mount(&parse(&later), "nosuid", &[]).unwrap_err(), "/cvmfs/x is mounted rw,relatime");
        assert!(every_mount(&[], "nosuid", &[]).is_err());
    }
}
