//! Jobs: one token's work, done by a program without any privilege.
//!
//! A job is its cgroup. It has a user of its own that is never used again, a directory of its own in
//! bounded memory, and no way to more. A step of that which fails means that the job does not start.

pub mod mutation;
pub mod outcome;

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, chown};
use thiserror::Error;

use crate::agent::channel::MAX_BODY;
use crate::agent::protocol::Token;
use crate::cgroup::{Cgroup, CgroupError, Limits};
use crate::ids;
use crate::image::payload::Payload;
use crate::launch::{self, Program};
use crate::mounts::{self, MountError};
use crate::sys::credentials;
use crate::sys::process::{self, Child, SpawnError, StageError};

/// Job directories; each is a tmpfs of its own.
const JOBS: &str = "/run/ctxinit/jobs";

/// Why a job was not started. None of its program has run.
#[derive(Debug, Error)]
pub enum JobError {
    /// Its cgroup, or a limit of it.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its directory.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A file in its directory.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A step of the drop, or the exec.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// Every user of the range was used.
    #[error("no payload user is left of {start}-{end}")]
    NoUser {
        /// First.
        start: u32,
        /// Last.
        end: u32,
    },
}

/// A job that runs.
#[derive(Debug)]
pub struct Job {
    /// `job-1`, unique in the life of the machine.
    pub name: String,
    /// Its user and group.
    pub uid: u32,
    /// Its first process.
    pub child: Child,
    /// Everything that it started.
    pub cgroup: Cgroup,
    dir: JobDir,
}

/// A job directory; unmounted when dropped, with everything in it.
#[derive(Debug)]
struct JobDir(String);

impl Drop for JobDir {
    fn drop(&mut self) {
        let removed = mounts::unmount(&self.0).map_err(|error| error.to_string());
        let removed = removed.and_then(|()| fs::remove_dir(&self.0).map_err(|error| error.to_string()));
        if let Err(error) = removed {
            log::warn!("job directory: {error}");
        }
    }
}

impl Job {
    /// Starts the image's program on a token. `number` counts from 0; `features` are variables of the site's for it. The
    /// pipe is the program's output.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn start(
        policy: &Payload,
        features: &[(String, String)],
        number: u32,
        token: &Token,
        body: &[u8],
    ) -> Result<(Self, File), JobError> {
        let uid = ids::PAYLOAD.start + number;
        if !ids::PAYLOAD.contains(&uid) {
            return Err(JobError::NoUser { start: ids::PAYLOAD.start, end: ids::PAYLOAD.end - 1 });
        }
        let name = format!("job-{}", number + 1);
        let cgroup = Cgroup::create(&name)?;
        cgroup.limit(Limits {
            memory: u64::from(policy.memory_mb) * 1024 * 1024,
            pids: policy.pids,
            cpu_percent: policy.cpu_percent,
        })?;
        let dir = make_dir(&name, uid, policy.scratch_mb)?;
        write_token(&dir.0, uid, body)?;

        let environment = environment(&dir.0, &name, token, features);
        let mut door = cgroup.door()?;
        let (output, writer) = launch::output_pipe().map_err(|errno| SpawnError::Fork(errno.into()))?;
        let program = Program { dir: &dir.0, words: policy.command.words(), environment: &environment };
        let child = process::spawn(|| become_payload(uid, &program, &mut door, &writer))?;
        Ok((Self { name, uid, child, cgroup, dir }, output))
    }

    /// The file that the program left as its result; empty if it left none. Only after its last process has ended.
    ///
    /// # Errors
    /// A result that is no regular file or larger than a token may be.
    pub fn result(&self) -> Result<Vec<u8>, JobError> {
        let path = format!("{}/result", self.dir.0);
        let failed = |error: io::Error| JobError::File { path: path.clone(), error };
        // The directory is the payload's: what lies there may be a link to anything, or a pipe that never ends.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.map_err(failed)?,
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("the result is no regular file")));
        }
        let mut result = Vec::new();
        file.take(MAX_BODY as u64 + 1).read_to_end(&mut result).map_err(failed)?;
        if result.len() > MAX_BODY {
            return Err(failed(io::Error::other(format!("the result is larger than {MAX_BODY} bytes"))));
        }
        Ok(result)
    }
}

fn make_dir(name: &str, uid: u32, mebibytes: u32) -> Result<JobDir, JobError> {
    let path = format!("{JOBS}/{name}");
    fs::create_dir_all(&path).map_err(|error| JobError::File { path: path.clone(), error })?;
    mounts::tmpfs(&path, mebibytes, &format!("mode=0700,uid={uid},gid={uid}"))?;
    Ok(JobDir(path))
}

/// The token's value goes in a file and never near a shell: whoever knows a pool's name can write to it.
fn write_token(dir: &str, uid: u32, body: &[u8]) -> Result<(), JobError> {
    let path = format!("{dir}/token");
    let failed = |error: io::Error| JobError::File { path: path.clone(), error };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(body).map_err(failed)?;
    chown(path.as_str(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid))).map_err(|errno| failed(errno.into()))
}

/// Everything that the program's environment holds.
fn environment(dir: &str, job: &str, token: &Token, features: &[(String, String)]) -> Vec<(String, String)> {
    let tries = token.leases.map_or_else(String::new, |leases| leases.to_string());
    let pairs = [
        ("PATH", launch::PATH),
        ("HOME", dir),
        ("TMPDIR", dir),
        ("USER", "payload"),
        ("LOGNAME", "payload"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
        ("JOB_ID", job),
        ("TOKEN_ID", &token.id),
        ("TOKEN_TRIES", &tries),
        ("TOKEN_FILE", &format!("{dir}/token")),
        ("RESULT_FILE", &format!("{dir}/result")),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    pairs.into_iter().chain(features.iter().cloned()).collect()
}

fn become_payload(
    uid: u32,
    program: &Program<'_>,
    door: &mut File,
    output: &OwnedFd,
) -> Result<Infallible, StageError> {
    launch::detach(Some(door), output)?;
    // The pipe is root's: without this a payload could not open /dev/stdout by name.
    nix::sys::stat::fchmod(output.as_fd(), nix::sys::stat::Mode::from_bits_truncate(0o622))
        .map_err(StageError::at("output mode"))?;
    // Whatever the machine's roles have: a payload's core file is nobody's business, and the kernel's
    // out-of-memory killer takes it first.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(StageError::at("limit core"))?;
    fs::write("/proc/self/oom_score_adj", "500")
        .map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))
        .map_err(StageError::at("oom_score_adj"))?;
    launch::become_user(uid)?;
    // Changing users clears it, so it comes after. Nobody would watch a payload whose agent is gone.
    credentials::die_with_parent().map_err(StageError::at("parent death signal"))?;
    launch::exec(program)
}
