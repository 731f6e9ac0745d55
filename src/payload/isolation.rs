//! All that a job has of its own, made ready before the fork: what a child does in between is bounded then.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::libc::sock_filter;
use nix::sched::CloneFlags;

use super::mutation;
use crate::image::payload::{Access, Payload};
use crate::launch::Vectors;
use crate::sys::credentials;

/// Number of a job's program in its pid namespace; its keeper is the first.
pub const PROGRAM: i32 = 2;
/// Number of its shell.
pub const SHELL: i32 = 3;

/// Where a job finds its own directory: nothing else of what lies there in the machine is to be seen.
pub const INSIDE: &str = "/run/ctxinit";

/// What a job is made of.
#[derive(Debug)]
pub struct Isolation<'a> {
    /// What the image and the site allow.
    pub policy: &'a Payload,
    /// Its user and group.
    pub uid: u32,
    /// Its directory, as the machine sees it.
    pub dir: &'a str,
    /// The file system of that.
    pub device: u64,
    /// Its cgroup, as `/proc/self/cgroup` has it.
    pub cgroup: &'a str,
    /// Its number, which is that of its directory.
    pub cgroup_id: u64,
    /// Its program.
    pub program: Vectors,
    /// Judges its system calls.
    pub filter: Vec<sock_filter>,
    /// The pipe for its output.
    pub output: OwnedFd,
    /// A pipe for its input; none for a program, which has an empty one.
    pub input: Option<OwnedFd>,
    /// The agent's word, a byte: nobody else has its user. Anything else is why not.
    pub leave: &'a OwnedFd,
    /// Its number in its pid namespace.
    pub process: i32,
    /// What the agent has, and the payload must not.
    pub outside: Outside,
    /// Variables that the site gives to every job.
    pub features: &'a [(String, String)],
    /// The user's disk, as a mount that has no place yet.
    pub disk: Option<&'a OwnedFd>,
}

/// What is the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Its session keyring.
    pub keyring: Option<i32>,
    /// Its namespaces, as the links in `/proc/self/ns` name them: pid, mnt, ipc, net, cgroup.
    pub namespaces: [String; 5],
}

impl Outside {
    /// Of this process.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn now() -> io::Result<Self> {
        let [pid, mnt, ipc, net, cgroup] = ["pid", "mnt", "ipc", "net", "cgroup"].map(namespace);
        Ok(Self { keyring: credentials::session_keyring(), namespaces: [pid?, mnt?, ipc?, net?, cgroup?] })
    }
}

/// The name of a namespace of this process.
///
/// # Errors
/// Those of readlink(2).
pub fn namespace(kind: &str) -> io::Result<String> {
    fs::read_link(format!("/proc/self/ns/{kind}")).map(|link| link.to_string_lossy().into_owned())
}

impl Isolation<'_> {
    /// The directory, as the job sees it.
    pub fn inside(&self) -> &str {
        // Without a mount of its own at that place, the job finds it where the machine has it.
        if mutation::removed("own run") { self.dir } else { INSIDE }
    }

    /// Where the program starts.
    pub fn home(&self) -> String {
        format!("{}/home", self.inside())
    }

    /// Where it may write, whatever owners and modes say.
    pub fn own_places(&self) -> Vec<String> {
        let own = ["home", "tmp", "shm"].map(|name| format!("{}/{name}", self.inside()));
        own.into_iter().chain(self.disk_place()).collect()
    }

    /// Where the user's disk is put, if there is one.
    pub fn disk_place(&self) -> Option<String> {
        self.disk.as_ref().map(|_| format!("{}/{}", self.inside(), super::directory::DISK))
    }

    /// A file of root's, that nobody else can read.
    pub fn canary(&self) -> String {
        format!("{}/etc/canary", self.inside())
    }

    /// Whether it has nobody to talk to.
    pub fn is_alone(&self) -> bool {
        self.policy.network.access == Access::None
    }

    /// The namespaces that it starts in. That of cgroups is not one of them: clone3(2) would give it the agent's for a root.
    pub fn namespaces(&self) -> CloneFlags {
        let mut flags = CloneFlags::CLONE_NEWNS;
        let more = [
            ("pid namespace", CloneFlags::CLONE_NEWPID, true),
            ("ipc namespace", CloneFlags::CLONE_NEWIPC, true),
            ("net namespace", CloneFlags::CLONE_NEWNET, self.is_alone()),
        ];
        for (name, flag, due) in more {
            flags.set(flag, due && mutation::taken(name));
        }
        flags
    }
}
