//! Landlock: where a payload may write, whatever owners and modes say.
//!
//! One world-writable directory that an image's builder forgot, and one job has a place to leave something for the next.
//! So a payload reads and executes what its user may, and writes only below its own directories. Not every kernel has
//! Landlock: it is used if it is there and is never the only barrier.

use std::error::Error;
use std::fmt;
use std::io;

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, make_bitflags,
};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::unlink;

use crate::image::payload::Payload;
use crate::starting::StageError;

pub use crate::sys::landlock::abi;

/// The first Landlock lets nobody rename a file to another directory, not even below directories that are all his. Too
/// many programs do (git, pip, every build), so it counts as none.
const FIRST_USEFUL_ABI: u32 = 2;

/// What is ruled about at all. From here on a kernel's news would need a decision: connecting to sockets by name (9)
/// would shut out `/dev/log`.
const KNOWN: ABI = ABI::V6;

/// Below `/`.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir});

/// Below `/dev`, where the nodes are chosen, and `/proc`, where a debugger writes to `PID/mem` and libc to
/// `task/TID/comm`, and where owner and mode are enough: what is there already, and nothing new.
const USE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev});

/// What Landlock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// In force, with what this ABI knows: truncating from 3 on, ioctl on devices from 5, signals and abstract sockets
    /// from 6.
    Restricted(u32),
    /// The kernel has none, or only the first, which is of no use.
    Absent,
    /// The policy's switch for containers is on, and Landlock forbids every mount.
    SwitchedOff,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restricted(abi) => write!(f, "abi {abi}"),
            Self::Absent => f.write_str("absent"),
            Self::SwitchedOff => f.write_str("off, as containers mount"),
        }
    }
}

/// Restricts this process and whatever it starts. `own` are the job's own directories as it sees them; with the policy's
/// `writable` they are all it can write to, make, rename or remove in. Of the latter one that is not there is left out.
///
/// no_new_privs must be set already. With `user_namespaces` or `setuid_programs` nothing is restricted: a restricted
/// process cannot mount anything, in no namespace and with no capability.
///
/// # Errors
/// The own directory or the call that failed.
pub fn restrict(payload: &Payload, own: &[&str]) -> Result<Status, StageError> {
    let status = status(payload);
    if !matches!(status, Status::Restricted(_)) {
        return Ok(status);
    }
    let mut rules = vec![rule("/", READ)?, rule("/dev", USE)?, rule("/proc", USE)?];
    for path in own {
        rules.push(rule(path, tree())?);
    }
    // A place that this job cannot even reach it cannot write to either.
    rules.extend(payload.writable.iter().filter_map(|path| rule(path, tree()).ok()));
    match enforce(rules) {
        Ok(RulesetStatus::NotEnforced) => {
            Err(StageError { stage: "landlock: nothing enforced".to_owned(), errno: Errno::EINVAL })
        }
        Ok(_) => Ok(status),
        Err(error) => Err(StageError { stage: format!("landlock: {error}"), errno: errno_of(&error) }),
    }
}

fn switched_off(payload: &Payload) -> bool {
    payload.user_namespaces || payload.setuid_programs
}

/// What [`restrict`] comes to on this kernel.
pub fn status(payload: &Payload) -> Status {
    match abi() {
        _ if switched_off(payload) => Status::SwitchedOff,
        Some(abi) if abi >= FIRST_USEFUL_ABI => Status::Restricted(abi),
        _ => Status::Absent,
    }
}

/// Whether [`restrict`] restricts anything on this kernel.
pub fn expected(payload: &Payload) -> bool {
    matches!(status(payload), Status::Restricted(_))
}

/// Whether [`restrict`] is in force, asked by what it alone answers with EACCES: a block device 0:0, which is no device,
/// in `own`, a directory of the caller's. The kernel's own EPERM comes later on the same way.
///
/// The character device 0:0, which everybody may make, is no proof: Debian's 6.1.0-56 counts that whiteout as a regular file.
pub fn in_force(own: &str) -> bool {
    let path = format!("{own}/.landlock");
    match mknod(path.as_str(), SFlag::S_IFBLK, Mode::empty(), 0) {
        Ok(()) => {
            // Root asks.
            let _ = unlink(path.as_str());
            false
        }
        Err(errno) => errno == Errno::EACCES,
    }
}

/// Everything but device nodes.
fn tree() -> BitFlags<AccessFs> {
    AccessFs::from_all(KNOWN) & !make_bitflags!(AccessFs::{MakeChar | MakeBlock})
}

fn rule(path: &str, access: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, StageError> {
    let fd = PathFd::new(path);
    let fd = fd.map_err(|error| StageError { stage: format!("landlock: {path}"), errno: errno_of(&error) })?;
    Ok(PathBeneath::new(fd, access))
}

fn enforce(rules: Vec<PathBeneath<PathFd>>) -> Result<RulesetStatus, RulesetError> {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
    let rules = rules.into_iter().map(Ok::<_, RulesetError>);
    // no_new_privs is a step of its own in the drop.
    Ok(ruleset.create()?.add_rules(rules)?.no_new_privs(false).restrict_self()?.ruleset)
}

/// The errno at the bottom of the crate's error.
fn errno_of(error: &(dyn Error + 'static)) -> Errno {
    let mut error = Some(error);
    while let Some(this) = error {
        if let Some(code) = this.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Errno::from_raw(code);
        }
        error = this.source();
    }
    Errno::EINVAL
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(switches: &str) -> Payload {
        serde_json::from_str(&format!(r#"{{"command": ["/bin/true"]{switches}}}"#)).unwrap()
    }

    // What the rules do is tested where a kernel has Landlock, in a virtual machine.

    #[test]
    fn containers_mount() {
        for switch in [r#", "user_namespaces": true"#, r#", "setuid_programs": true"#] {
            assert_eq!(restrict(&policy(switch), &["/nonexistent"]), Ok(Status::SwitchedOff));
        }
    }

    #[test]
    fn an_error_names_the_place() {
        assert_eq!(
            rule("/nonexistent/x", READ).unwrap_err().to_string(),
            "landlock: /nonexistent/x: ENOENT: No such file or directory"
        );
    }

    #[test]
    fn nobody_makes_devices() {
        assert!(tree().contains(READ | USE | AccessFs::Refer | AccessFs::MakeSock));
        assert!(!tree().intersects(AccessFs::MakeChar | AccessFs::MakeBlock));
        assert!(!tree().contains(AccessFs::ResolveUnix));
    }

    #[test]
    fn a_process_without_rules_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!in_force(dir.path().to_str().unwrap()));
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
