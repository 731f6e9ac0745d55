//! A place like a machine's, for one job: a root that nobody can write to, with `/run`, `/dev`, `/proc` and cgroups of its
//! own, in namespaces that go with this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, getegid, geteuid, pivot_root};

use super::CheckError;
use super::cgroups::Place;
use crate::ids;
use crate::image::payload::Payload;
use crate::mounts;
use crate::sys::mount::{Forbids, forbid};

/// Every system has it (FHS 3.0, 3.18), and nothing of it is needed before there is the new root.
const STAGE: &str = "/tmp";
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Steps that a cgroup takes.
const BY_CGROUP: [&str; 8] = [
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
    "cgroup",
    "cgroup namespace",
    "own cgroup",
];

/// The place.
#[derive(Debug)]
pub struct Stage {
    /// Steps that cannot be taken here, and why.
    pub left_out: Vec<(&'static str, String)>,
    /// Whether it is root's; else it is in a user namespace of somebody who has no privilege.
    pub root: bool,
    /// Whether the payload sees this computer's own files.
    pub own_root: bool,
    /// Removed with it.
    _cgroups: Option<Place>,
}

/// Makes it and goes there.
///
/// # Errors
/// What the kernel does not allow this user.
pub fn enter(image: Option<&Path>, policy: &Payload) -> Result<Stage, CheckError> {
    // Before there is another root.
    let image =
        image.map(|dir| fs::canonicalize(dir).map_err(|error| CheckError::File { path: dir.to_owned(), error }));
    let image = image.transpose()?;
    let resolver = fs::read("/etc/resolv.conf").unwrap_or_default();
    let mut left_out = Vec::new();
    let cgroups = match Place::enter(geteuid().is_root()) {
        Ok(place) => Some(place),
        Err(why) => {
            // A file of any name can be made where no cgroup is; it would be no limit.
            left_out.extend(BY_CGROUP.map(|step| (step, why.clone())));
            None
        }
    };
    let mut apart = CloneFlags::CLONE_NEWNS;
    apart.set(CloneFlags::CLONE_NEWCGROUP, cgroups.is_some());
    let root = geteuid().is_root() && unshare(apart).is_ok();
    if !root {
        become_nobody_else(apart)?;
        left_out.extend(as_oneself());
    }
    mounts::make_private()?;
    if let Some(place) = &cgroups {
        place.settle().map_err(at("the cgroup of this run"))?;
    }
    build(image.as_deref(), cgroups.as_ref().map(Place::path), policy)?;
    names(&resolver);
    Ok(Stage { left_out, root, own_root: image.is_none(), _cgroups: cgroups })
}

/// A user namespace in which this user has the number of a job's.
fn become_nobody_else(apart: CloneFlags) -> Result<(), CheckError> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | apart).map_err(CheckError::Namespaces)?;
    let job = ids::PAYLOAD.start;
    let files = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{job} {uid} 1")),
        ("/proc/self/gid_map", format!("{job} {gid} 1")),
    ];
    files.iter().try_for_each(|(path, text)| fs::write(path, text).map_err(at(path)))
}

/// What a user namespace with one user in it does not have.
fn as_oneself() -> [(&'static str, String); 5] {
    let only = "a user namespace without root's help has one user, you";
    [
        ("fresh uid", "the job runs as you".to_owned()),
        ("setresuid", only.to_owned()),
        ("setgroups", "your groups stay; only root may drop them".to_owned()),
        ("keeper user", only.to_owned()),
        ("nodev", "its devices are this computer's, seen at another place".to_owned()),
    ]
}

/// The new root, and nothing of the old one.
fn build(image: Option<&Path>, cgroups: Option<&Path>, policy: &Payload) -> Result<(), CheckError> {
    let root = image.unwrap_or(Path::new("/"));
    let named = |place: &str| root.join(place).display().to_string();
    bind(&root.display().to_string(), STAGE).map_err(at("a place for the root"))?;
    chdir(STAGE).map_err(at(STAGE))?;
    forbid(c".", true, Forbids { writing: true, ..Forbids::default() }, false).map_err(at("a read-only root"))?;
    policy.writable.iter().for_each(|place| open_again(place));
    for place in ["proc", "sys"] {
        bind(&format!("/{place}"), place).map_err(at(&named(place)))?;
    }
    mounts::tmpfs("run", 256, "mode=0755")?;
    mounts::nodes("dev", "mode=0755,size=64k,nr_inodes=64")?;
    for name in NODES {
        let node = format!("dev/{name}");
        fs::write(&node, "").map_err(at(&node))?;
        bind(&format!("/dev/{name}"), &node).map_err(at(&node))?;
    }
    let hierarchy = "sys/fs/cgroup";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Some(own) = cgroups {
        let mounted = match mount(Some("cgroup2"), hierarchy, Some("cgroup2"), flags, None::<&str>) {
            // Where the whole of it is mounted already, the kernel takes no second mount of it, but a part of the first.
            Err(Errno::EBUSY) => bind(&own.display().to_string(), hierarchy),
            mounted => mounted,
        };
        mounted.map_err(at(&named(hierarchy)))?;
    } else {
        // Directories of jobs without any effect.
        mounts::tmpfs(hierarchy, 1, "mode=0755")?;
        fs::create_dir(PathBuf::from(hierarchy).join("ctxinit")).map_err(at(hierarchy))?;
    }
    // The old root ends up on top of the new one at "/", and is taken off from there (pivot_root(2)).
    pivot_root(".", ".").map_err(at("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(at("the old root"))?;
    chdir("/").map_err(at("/"))
}

/// A place that the image lets payloads write to, if it is here; what its owner says counts still.
fn open_again(place: &str) {
    let place = format!(".{place}");
    let opened = bind(&place, &place).and_then(|()| {
        let now = statvfs(place.as_str())?.flags();
        let kept = [
            (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
            (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
            (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
            (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
            (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        ];
        let kept = kept.into_iter().filter(|(flag, _)| now.contains(*flag)).map(|(_, flag)| flag);
        let flags = kept.fold(MsFlags::MS_REMOUNT | MsFlags::MS_BIND, |all, flag| all | flag);
        mount(None::<&str>, place.as_str(), None::<&str>, flags, None::<&str>)
    });
    // Not there, or read-only already: the payload is told so when it writes.
    let _ = opened;
}

fn bind(source: &str, target: &str) -> Result<(), Errno> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
}

/// The name servers, as a machine has them from its site. Often their file is a link into `/run`, which is empty now.
fn names(resolver: &[u8]) {
    const FILE: &str = "/etc/resolv.conf";
    let place = match fs::read_link(FILE) {
        Ok(link) => Path::new("/etc").join(link),
        Err(_) => PathBuf::from("/run/resolv.conf"),
    };
    let written =
        place.parent().map(fs::create_dir_all).is_some_and(|made| made.is_ok()) && fs::write(&place, resolver).is_ok();
    if written && place == Path::new("/run/resolv.conf") {
        let _ = bind("/run/resolv.conf", FILE);
    }
}

fn at<E: Into<io::Error>>(step: &str) -> impl FnOnce(E) -> CheckError {
    let step = step.to_owned();
    move |error| CheckError::Stage { step, error: error.into() }
}
