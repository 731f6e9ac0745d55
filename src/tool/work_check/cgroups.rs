//! A cgroup of this run's own, in which a machine's hierarchy of jobs has a place.
//!
//! Root makes one at the top of the hierarchy, anybody else in a cgroup that was delegated to him (systemd's
//! `Delegate=yes`): there alone he may hand controllers down (kernel: admin-guide/cgroup-v2.rst, "Delegation").

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::guard::mounts;
use crate::procfs;

/// As in `crate::cgroup`.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// The cgroup; left and removed when dropped.
#[derive(Debug)]
pub struct Place {
    /// As this process saw it before it had a root of its own.
    path: PathBuf,
    /// Its own entrance, open since then: the way back.
    back: File,
    parent: File,
    name: String,
}

impl Place {
    /// Makes it and goes there.
    ///
    /// # Errors
    /// Why there is none for this user, for the table of walls.
    pub fn enter(root: bool) -> Result<Self, String> {
        let text = procfs::text("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let top = mounts::parse(&text).into_iter().find(|mount| mount.fstype == "cgroup2");
        let top = PathBuf::from(top.ok_or("no hierarchy of cgroup v2 is mounted")?.point);
        let text = procfs::text("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("this process is in no cgroup v2")?;
        let own = top.join(own);
        let base = if root { top } else { own.clone() };
        let name = format!("ctxtool-{}", std::process::id());
        let path = base.join(&name);
        let back = writable(&own.join("cgroup.procs")).map_err(|why| not_given(&own, root, &why))?;
        let parent = File::open(&base).map_err(|error| at(&base, &error))?;
        fs::create_dir(&path).map_err(|error| not_given(&base, root, &error))?;
        let place = Self { path, back, parent, name };
        place.go("").map_err(|error| not_given(&place.path, root, &error))?;
        hand_down(&base);
        Ok(place)
    }

    /// Once this is the root of a cgroup namespace: makes room for jobs in it, where the job's code looks for it.
    pub fn settle(&self) -> io::Result<()> {
        // Nobody may be in a cgroup that hands controllers down.
        fs::create_dir(self.path.join("self"))?;
        self.go("self")?;
        hand_down(&self.path);
        let jobs = self.path.join("ctxinit");
        fs::create_dir(&jobs)?;
        hand_down(&jobs);
        Ok(())
    }

    /// As this process saw it before it had a root of its own.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn go(&self, below: &str) -> io::Result<()> {
        writable(&self.path.join(below).join("cgroup.procs"))?.write_all(b"0")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.back.write_all(b"0");
        let remove = |name: &str| {
            let flags = nix::unistd::UnlinkatFlags::RemoveDir;
            let _ = nix::unistd::unlinkat(&self.parent, name, flags);
        };
        for below in ["/ctxinit", "/self", ""] {
            remove(&format!("{}{below}", self.name));
        }
    }
}

/// Whatever controllers there are: what is missing is seen when a limit is set.
fn hand_down(dir: &Path) {
    for name in CONTROLLERS {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

fn writable(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn not_given(path: &Path, root: bool, error: &io::Error) -> String {
    let hint = if root { "" } else { "; systemd-run --user --scope -p Delegate=yes gives you one of your own" };
    format!("{}: {error}{hint}", path.display())
}
