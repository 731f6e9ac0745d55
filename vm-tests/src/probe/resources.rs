//! More of the machine than the job was given.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::raw::{self, call};
use super::{Attempt, Needs, Scene, Tried, any, attempt, denied, escaped, seen};

/// What the bombs go for; the policy of a case gives a fraction of each.
const PROCESSES: usize = 200;
const MEMORY: usize = 192 << 20;
const DISK: usize = 40 << 20;
const INODES: usize = 8_000;

pub const ATTEMPTS: &[Attempt] = &[
    attempt("cgroup-view", "the tree of the machine's cgroups", cgroup_view).needs(Needs::Ctxinit),
    attempt("cgroup-member", "no cgroup of its own", cgroup_member).needs(Needs::Ctxinit),
    attempt("cgroup-limits", "its own limits", |_| {
        any(limits(), |path| {
            OpenOptions::new().write(true).open(&path)?;
            escaped(format!("{} is open for writing", path.display()))
        })
    }),
    attempt("cgroup-escape", "another cgroup", |_| {
        any(procs(), |path| {
            fs::write(&path, "0")?;
            escaped(format!("moved by {}", path.display()))
        })
    }),
    attempt("cgroup-below", "a cgroup of its own making", |_| {
        any(cgroups(), |path| {
            fs::create_dir(path.join("probe"))?;
            escaped(format!("made in {}", path.display()))
        })
    }),
    attempt("cgroup-kill", "the end of everything in a cgroup", |_| {
        any(cgroups(), |path| {
            OpenOptions::new().write(true).open(path.join("cgroup.kill"))?;
            escaped(format!("{} can be killed", path.display()))
        })
    }),
    attempt("fork-bomb", "more processes than the job was given", fork_bomb).needs(Needs::Job),
    attempt("memory-bomb", "more memory than the job was given", |_| {
        raw::touch(MEMORY)?;
        escaped(format!("{} MiB", MEMORY >> 20))
    })
    .needs(Needs::Job),
    attempt("oom-survivor", "a job that goes on when the kernel has killed a part of it", oom_survivor)
        .needs(Needs::Job),
    attempt("disk-bomb", "more room for files than the job was given", |scene| fill(&scene.home)).needs(Needs::Job),
    attempt("tmp-bomb", "the same in /tmp", |_| fill(Path::new("/tmp"))).needs(Needs::Job),
    attempt("shm-bomb", "the same in /dev/shm", |_| fill(Path::new("/dev/shm"))).needs(Needs::Job),
    attempt("memfd-bomb", "the same in files without a name", |_| {
        let fd = call!(libc::SYS_memfd_create, c"bomb", 0)?;
        call!(libc::SYS_fallocate, fd, 0, 0, MEMORY)?;
        escaped(format!("{} MiB", MEMORY >> 20))
    })
    .needs(Needs::Job),
    attempt("inode-bomb", "more files than the machine has room for", inode_bomb).needs(Needs::Job),
    attempt("cpu-bomb", "more of the processors than the job was given", cpu_bomb).needs(Needs::Job),
];

/// Every directory of the cgroup tree that can be seen.
fn cgroups() -> Vec<PathBuf> {
    let mut tree = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut next = 0;
    while let Some(path) = tree.get(next) {
        let below = fs::read_dir(path).into_iter().flatten().flatten();
        let below: Vec<_> =
            below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect();
        tree.extend(below);
        next += 1;
    }
    tree
}

fn limits() -> Vec<PathBuf> {
    let files = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.subtree_control"];
    cgroups().into_iter().flat_map(|path| files.map(|file| path.join(file))).collect()
}

fn procs() -> Vec<PathBuf> {
    cgroups().into_iter().map(|path| path.join("cgroup.procs")).collect()
}

/// The job's own name is in its path, as far as it can see it.
fn cgroup_member(_: &Scene) -> Tried {
    let cgroup = fs::read_to_string("/proc/self/cgroup")?;
    let path = cgroup.trim().rsplit("::").next().unwrap_or_default().to_owned();
    let job = std::env::var("JOB_ID").unwrap_or_default();
    if path == "/" || path.ends_with(&format!("/{job}")) { denied(path) } else { seen(path) }
}

fn cgroup_view(_: &Scene) -> Tried {
    let count = cgroups().len();
    // A job has one and makes none, and that of a machine is the parent of others.
    match fs::metadata("/sys/fs/cgroup/memory.max") {
        Ok(_) if count == 1 => denied("its own alone"),
        Err(_) if count == 1 => denied("none to be seen"),
        _ => seen(format!("{count} cgroups")),
    }
}

/// Children that wait for their end.
fn fork_bomb(_: &Scene) -> Tried {
    let mut children: Vec<Pid> = Vec::new();
    let stopped = loop {
        match raw::fork(|| {
            loop {
                sleep(Duration::from_secs(60))
            }
        }) {
            Ok(child) => children.push(child),
            Err(errno) => break Some(errno),
        }
        if children.len() >= PROCESSES {
            break None;
        }
    };
    for &child in &children {
        let _ = kill(child, Signal::SIGKILL);
    }
    match stopped {
        None => escaped(format!("{} processes", children.len())),
        Some(errno) => denied(format!("{errno:?} after {} processes", children.len())),
    }
}

fn oom_survivor(_: &Scene) -> Tried {
    let greedy = raw::fork(|| u8::from(raw::touch(MEMORY).is_err()))?;
    match super::run::wait(greedy, super::LIMIT) {
        Some(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => seen("its other processes live"),
        other => denied(format!("not killed: {other:?}")),
    }
}

fn fill(place: &Path) -> Tried {
    let path = place.join("fill");
    let mut file = File::create(&path)?;
    let block = vec![1; 1 << 20];
    let mut result = escaped(format!("{} MiB in {}", DISK >> 20, place.display()));
    for written in 0..DISK >> 20 {
        if let Err(error) = file.write_all(&block) {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            result = denied(format!("{errno:?} after {written} MiB"));
            break;
        }
    }
    let _ = fs::remove_file(&path);
    result
}

/// Empty files: what they take is the kernel's memory.
fn inode_bomb(scene: &Scene) -> Tried {
    let place = scene.home.join("inodes");
    fs::create_dir_all(&place)?;
    let made = (0..INODES).map(|number| File::create(place.join(number.to_string())));
    let stopped = made.zip(0..).find_map(|(made, number)| made.err().map(|error| (error, number)));
    let result = match &stopped {
        None => escaped(format!("{INODES} files")),
        Some((error, number)) => {
            denied(format!("{:?} after {number} files", Errno::from_raw(error.raw_os_error().unwrap_or(0))))
        }
    };
    let _ = fs::remove_dir_all(&place);
    result
}

/// Two that spin: with half a processor they get through half of the time at most.
fn cpu_bomb(_: &Scene) -> Tried {
    const SPAN: Duration = Duration::from_secs(2);
    let start = std::time::Instant::now();
    let spinner = raw::fork(|| {
        while start.elapsed() < SPAN {
            std::hint::spin_loop();
        }
        0
    })?;
    while start.elapsed() < SPAN {
        std::hint::spin_loop();
    }
    let _ = waitpid(spinner, None);
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    // utime and stime, its own and of its children: fields 14 to 17, in hundredths of a second.
    let ticks: u64 = fields.get(11..15).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    let percent = ticks * 100 / (SPAN.as_secs() * 100);
    // A policy that gives 50, measured over 20 periods, on a machine that is emulated.
    if percent <= 65 {
        denied(format!("{percent} % of a processor"))
    } else {
        escaped(format!("{percent} % of a processor"))
    }
}
