//! Jobs: one token's work, done by a program without any privilege.
//!
//! A job is its cgroup. It has a user of its own that is never used again, a directory of its own in
//! bounded memory, and no way to more. A step of that which fails means that the job does not start.

pub mod choice;
pub mod directory;
pub mod error;
pub mod filter;
pub mod given;
pub mod isolation;
pub mod keeper;
pub mod landlock;
pub mod lurkers;
pub mod mutation;
pub mod outcome;
mod proofs;
pub mod reason;
pub mod result;
pub mod shell;
pub mod steps;
pub mod sysctl;
pub mod view;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::statvfs::statvfs;
use nix::unistd::pipe2;

use crate::cgroup::{Cgroup, Limits};
use crate::disk::UserDisk;
use crate::ids;
use crate::image::payload::Payload;
use crate::launch::{self, Vectors};
use crate::protocol::Token;
use crate::protocol::channel::MAX_BODY;
use crate::starting::{SpawnError, StageError, Starting};
use crate::sys::process::{Child, Exit};

use directory::{DISK, JobDir};
use error::JobError;
use given::{Given, JobEnd, Outputs};
use isolation::{Isolation, Outside};
use result::ResultError;
use shell::{Inside, Shell};

/// The kernel's unit of the limits.
const MIB: u64 = 1024 * 1024;

/// A job that runs, or is on its way to that.
#[derive(Debug)]
pub struct Job {
    /// `job-1`, unique in the life of the machine.
    pub name: String,
    /// Its user and group.
    pub uid: u32,
    /// Everything that it started, its keeper included.
    pub cgroup: Cgroup,
    starting: Starting,
    /// How the payload ended, once it has.
    status: File,
    /// The way to its shell, where image and site allow one.
    shell: Option<Shell>,
    dir: JobDir,
    /// What it was told last.
    end: JobEnd,
}

impl Job {
    /// Sets out to run the image's program on a token. `number` counts from 0; `given` is what the site
    /// has for it, `disk` is its home. The pipe is the program's output. The program's file system may be gone: [`Job::started`] would wait for it.
    ///
    /// # Errors
    /// What could not be made ready. Nothing runs then.
    pub fn begin(
        policy: &Payload,
        given: &Given,
        disk: Option<&UserDisk>,
        number: u32,
        token: &Token,
        body: &[u8],
    ) -> Result<(Self, File), JobError> {
        mutation::choose(body);
        let value = given.pilot.is_none().then_some(body);
        let command = choice::of(policy, value)?;
        let uid = fresh_user(number)?;
        let name = name_of(number);
        let cgroup = Cgroup::create(&name)?;
        cgroup.limit(Limits {
            memory: u64::from(policy.memory_mb) * MIB,
            // The keeper is one of them, and so is the shell on the console.
            pids: policy.pids.saturating_add(1 + u32::from(policy.console_shell)),
            cpu_percent: policy.cpu_percent,
        })?;
        let dir = JobDir::make(&name, policy.scratch_mb)?;
        dir.furnish(uid, value, disk.is_some())?;
        dir.endow(uid, given)?;
        let disk = disk.map(|disk| disk.view_for(uid)).transpose().map_err(|error| dir.failed(DISK, error))?;

        let (leave, give_leave) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| SpawnError::Fork(errno.into()))?;
        let (output, writer) = launch::output_pipe().map_err(|errno| SpawnError::Fork(errno.into()))?;
        let outside = Outside::now().map_err(|error| dir.failed("/proc/self/ns", error))?;
        let device = dir.device()?;
        let mut job = Isolation {
            policy,
            uid,
            dir: dir.path(),
            device,
            cgroup: &cgroup.own_path(),
            cgroup_id: cgroup.id()?,
            program: Vectors::new(command.words(), &[]).map_err(SpawnError::from)?,
            filter: filter::program(policy),
            output: writer,
            input: None,
            leave: &leave,
            process: isolation::PROGRAM,
            outside,
            features: &given.variables,
            disk: disk.as_ref(),
        };
        let environment = environment(&job, &name, token, given);
        job.program = Vectors::new(command.words(), &environment).map_err(SpawnError::from)?;
        let (shell, inside) = match policy.console_shell {
            true => shell::pipes().map(|(shell, inside)| (Some(shell), Some(inside))),
            false => Ok((None, None)),
        }
        .map_err(|errno| SpawnError::Fork(errno.into()))?;
        let in_shell = inside.map(|Inside { input, output }| {
            let words = shell::WORDS.map(str::to_owned);
            let (name, value) = shell::PROMPT;
            let environment: Vec<_> = environment.into_iter().chain([(name.to_owned(), value.to_owned())]).collect();
            let program = Vectors::new(&words, &environment)?;
            let (input, process) = (Some(input), isolation::SHELL);
            Ok(Isolation {
                program,
                filter: job.filter.clone(),
                output,
                input,
                process,
                outside: job.outside.clone(),
                ..job
            })
        });
        let in_shell = in_shell.transpose().map_err(|error: StageError| SpawnError::from(error))?;
        let (starting, status) = keeper::begin(&job, in_shell.as_ref(), Some(cgroup.dir()?.as_fd()))?;
        drop((job, in_shell));
        // Meanwhile the keeper makes the view. Without this the program does not start, and says so.
        let _ = File::from(give_leave).write_all(word(uid).as_bytes());
        Ok((Self { name, uid, cgroup, starting, status, shell, dir, end: given.end }, output))
    }

    /// The way to its shell, once.
    pub fn take_shell(&mut self) -> Option<Shell> {
        self.shell.take()
    }

    /// Readable once [`Job::started`] does not wait.
    pub fn start_known(&self) -> BorrowedFd<'_> {
        self.starting.as_fd()
    }

    /// Waits for the program to run, or for the step that failed.
    ///
    /// # Errors
    /// [`SpawnError::Stage`] names the step and its errno; what is left is to kill the job.
    pub fn started(&mut self) -> Result<(), JobError> {
        Ok(self.starting.reported()?)
    }

    /// The first process of its pid namespace.
    pub fn keeper(&self) -> &Child {
        &self.starting.child
    }

    /// The program's process while it runs, as the machine numbers it.
    pub fn pid(&self) -> Option<u32> {
        self.payload_processes().into_iter().min()
    }

    /// Every process of it but the keeper.
    pub fn payload_processes(&self) -> Vec<u32> {
        let keeper = self.keeper().pid().as_raw() as u32;
        self.cgroup.members().into_iter().filter(|&pid| pid != keeper).collect()
    }

    /// Readable once [`Job::ended`] knows more.
    pub fn status(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Tells it when it ends, if that has changed.
    ///
    /// # Errors
    /// The file.
    pub fn tell_end(&mut self, end: JobEnd) -> Result<(), JobError> {
        if end != self.end {
            self.dir.tell_end(end)?;
            self.end = end;
        }
        Ok(())
    }

    /// What it has left for its site. Only after its last process has ended.
    ///
    /// # Errors
    /// Those of open(2) and readdir(3).
    pub fn outputs(&self) -> io::Result<Outputs> {
        given::outputs(&format!("{}/{}", self.dir.path(), given::OUTPUTS))
    }

    /// A file of at most `limit` bytes in its first working directory; empty if it is not there. Only after its last
    /// process has ended.
    ///
    /// # Errors
    /// A file that is no regular one, is too large or cannot be read.
    pub fn left(&self, name: &str, limit: usize) -> Result<Vec<u8>, ResultError> {
        result::take(&format!("{}/home/{name}", self.dir.path()), limit)
    }

    /// The same of its outputs.
    ///
    /// # Errors
    /// As [`given::output`].
    pub fn output(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        given::output(&format!("{}/{}", self.dir.path(), given::OUTPUTS), name, limit as u64)
    }

    /// How the program ended, once it has. A keeper that died before it could tell was killed, and everybody with it.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn ended(&mut self) -> io::Result<Option<Exit>> {
        let mut bytes = [0; 4];
        match self.status.read(&mut bytes) {
            Ok(4) => Ok(Some(Exit::from_bytes(bytes))),
            Ok(_) => Ok(Some(Exit::Signal(libc::SIGKILL))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the program left as its result; empty if it left nothing. Only after its last process has ended.
    ///
    /// # Errors
    /// [`ResultError`].
    pub fn result(&self) -> Result<Vec<u8>, ResultError> {
        result::take(&format!("{}/home/result", self.dir.path()), MAX_BODY)
    }

    /// Bytes that lie in its directory.
    pub fn scratch_bytes(&self) -> Option<u64> {
        let of = statvfs(self.dir.path()).ok()?;
        Some(of.blocks().saturating_sub(of.blocks_free()) * of.fragment_size())
    }

    /// Removes its directory and its cgroup, and makes sure that they are gone.
    ///
    /// # Errors
    /// What is still there; `EBUSY` may be for a moment.
    pub fn remove(&mut self) -> Result<(), JobError> {
        self.dir.remove()?;
        Ok(self.cgroup.remove()?)
    }
}

/// The last user of a job.
static LAST: AtomicU32 = AtomicU32::new(0);

/// A user whom no job has had. Whoever had one before has ended: that none of its processes is left is looked at then.
/// The rest of that is [`word`].
/// User and name that the job of this number is going to have.
pub fn to_be(number: u32) -> Option<(u32, String)> {
    let uid = ids::PAYLOAD.start.checked_add(number).filter(|uid| ids::PAYLOAD.contains(uid))?;
    Some((uid, name_of(number)))
}

fn name_of(number: u32) -> String {
    format!("job-{}", number + 1)
}

fn fresh_user(number: u32) -> Result<u32, JobError> {
    let uid = ids::PAYLOAD.start + if mutation::taken("fresh uid") { number } else { 0 };
    if !ids::PAYLOAD.contains(&uid) {
        return Err(JobError::NoUser { start: ids::PAYLOAD.start, end: ids::PAYLOAD.end - 1 });
    }
    if mutation::removed("fresh uid") {
        return Ok(uid);
    }
    let last = LAST.fetch_max(uid, Ordering::Relaxed);
    if uid <= last { Err(JobError::Stale { uid, last }) } else { Ok(uid) }
}

/// What a program waits for before it becomes this user: leave for it and its shell, or why the user is not its own.
fn word(uid: u32) -> String {
    match lurkers::of(uid).first() {
        Some(process) if !mutation::removed("fresh uid") => {
            format!("verify fresh uid: {uid}: it has {process} already")
        }
        _ => keeper::LEAVE.repeat(2),
    }
}

/// Names in a job's environment that are ctxinit's own: a site's variable cannot take one.
pub const VARIABLES: [&str; 18] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "JOB_ID",
    "MACHINEFEATURES",
    "JOBFEATURES",
    "JOBOUTPUTS",
    "TOKEN_ID",
    "TOKEN_TRIES",
    "TOKEN_FILE",
    "RESULT_FILE",
    "USER_DISK",
    "PILOT_UUID",
    "X509_USER_PROXY",
];

/// Everything that the program's environment holds.
fn environment(isolation: &Isolation<'_>, job: &str, token: &Token, given: &Given) -> Vec<(String, String)> {
    let inside = isolation.inside();
    let disk = isolation.disk_place();
    let home = format!("{inside}/home");
    let pairs = [
        ("PATH", launch::PATH),
        ("HOME", disk.as_ref().unwrap_or(&home)),
        ("TMPDIR", &format!("{inside}/tmp")),
        ("USER", "payload"),
        ("LOGNAME", "payload"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
        ("JOB_ID", given.pilot.as_deref().unwrap_or(job)),
        ("MACHINEFEATURES", &format!("{inside}/{}", given::MACHINE)),
        ("JOBFEATURES", &format!("{inside}/{}", given::JOB)),
        ("JOBOUTPUTS", &format!("{inside}/{}", given::OUTPUTS)),
    ];
    let tries = token.leases.map_or_else(String::new, |leases| leases.to_string());
    let of_token = [
        ("TOKEN_ID", token.id.clone()),
        ("TOKEN_TRIES", tries),
        ("TOKEN_FILE", format!("{home}/token")),
        ("RESULT_FILE", format!("{home}/result")),
    ];
    let of_token = of_token.map(|(name, value)| (name.to_owned(), value)).into_iter();
    let of_token = of_token.filter(|_| given.pilot.is_none());
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Whoever needs to know that it lasts.
    let disk = disk.map(|place| ("USER_DISK".to_owned(), place));
    let proxy = given.proxy.as_ref().map(|_| ("X509_USER_PROXY".to_owned(), format!("{inside}/{}", given::PROXY)));
    // A mutant hands on what the agent has.
    let more: Vec<_> = if mutation::taken("environment") { Vec::new() } else { std::env::vars().collect() };
    let site = isolation.features.iter().cloned();
    pairs.into_iter().chain(of_token).chain(disk).chain(proxy).chain(site).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_never_given_twice() {
        assert_eq!(fresh_user(7).unwrap(), ids::PAYLOAD.start + 7);
        let again = fresh_user(7).unwrap_err().to_string();
        assert_eq!(again, "verify fresh uid: 66007: the last was 66007");
        assert!(matches!(fresh_user(6), Err(JobError::Stale { .. })));
        assert!(matches!(fresh_user(40_000), Err(JobError::NoUser { .. })));
        assert!(fresh_user(8).is_ok());
    }

    /// Every name that a token may leave out is that of a step.
    #[test]
    fn all_steps_can_be_left_out() {
        let limits = ["fresh uid", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"];
        let agent = [&limits[..], &["scratch size", "scratch inodes", "keeper user"]].concat();
        let tables = [keeper::CGROUP, keeper::CGROUP_NAMESPACE, keeper::AROUND, view::VIEW, view::RUN]
            .into_iter()
            .chain(steps::ROUNDS)
            .flatten()
            .map(|step| step.name);
        let steps: std::collections::BTreeSet<&str> =
            agent.into_iter().chain(tables).filter(|name| *name != "mount namespace").collect();
        let names: std::collections::BTreeSet<&str> = mutation::NAMES.iter().copied().collect();
        assert_eq!(steps, names);
    }
}
