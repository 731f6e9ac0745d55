//! The steps from a forked child to a program, and from root to a user without any privilege.
//!
//! Each step is mandatory: the first that fails is reported by name and errno, and the program does not
//! run. They are taken in a child that was just forked and has one thread.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setgroups, setresgid, setresuid, setsid,
};

use crate::sys::credentials;
use crate::sys::process::StageError;
use crate::sys::signals;

/// What a child becomes.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its working directory.
    pub dir: &'a str,
    /// Absolute path and arguments.
    pub words: &'a [String],
    /// All of its environment.
    pub environment: &'a [(String, String)],
}

/// The search path of scripts and payloads.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The two ends of a program's output: ours does not block, the program's does.
///
/// # Errors
/// Those of pipe2(2).
pub fn output_pipe() -> nix::Result<(File, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader.into(), writer))
}

/// Own session, default signals, own cgroup; standard input empty, both outputs into `output`.
///
/// # Errors
/// The first step that fails.
pub fn detach(door: Option<&mut File>, output: &OwnedFd) -> Result<(), StageError> {
    signals::reset().map_err(StageError::at("reset signals"))?;
    // Without a controlling terminal there is none to inject input into (TIOCSTI).
    setsid().map_err(StageError::at("setsid"))?;
    if let Some(door) = door {
        door.write_all(b"0").map_err(errno).map_err(StageError::at("enter cgroup"))?;
    }
    let null = OpenOptions::new().read(true).open("/dev/null").map_err(errno);
    let null = null.map_err(StageError::at("open /dev/null"))?;
    dup2_stdin(&null).map_err(StageError::at("standard input"))?;
    dup2_stdout(output.as_fd()).map_err(StageError::at("standard output"))?;
    dup2_stderr(output.as_fd()).map_err(StageError::at("standard error"))
}

/// Gives up every privilege for good and makes sure of it.
///
/// The order is the kernel's: groups before gid before uid (the other way round leaves gid 0, as the right
/// to change it went with the uid), bounding set and securebits while CAP_SETPCAP is there.
///
/// # Errors
/// The first step that fails, or the first proof that is missing.
pub fn become_user(id: u32) -> Result<(), StageError> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    if id == 0 {
        return Err(StageError { stage: "refuse uid 0".to_owned(), errno: Errno::EINVAL });
    }
    match credentials::new_session_keyring() {
        // A kernel without keyrings has none to leak.
        Err(Errno::ENOSYS) => {}
        result => result.map_err(StageError::at("new session keyring"))?,
    }
    credentials::clear_ambient_set().map_err(StageError::at("clear ambient set"))?;
    credentials::clear_bounding_set().map_err(StageError::at("clear bounding set"))?;
    credentials::set_securebits().map_err(StageError::at("securebits"))?;
    setgroups(&[]).map_err(StageError::at("setgroups"))?;
    setresgid(gid, gid, gid).map_err(StageError::at("setresgid"))?;
    setresuid(uid, uid, uid).map_err(StageError::at("setresuid"))?;
    credentials::clear_capabilities().map_err(StageError::at("capset"))?;
    nix::sys::prctl::set_no_new_privs().map_err(StageError::at("no_new_privs"))?;
    verify(id)
}

/// What the kernel says of this process, not what was asked for.
fn verify(id: u32) -> Result<(), StageError> {
    let status = fs::read_to_string("/proc/self/status").map_err(errno).map_err(StageError::at("read own status"))?;
    if let Some(wrong) = wrong_line(&status, id) {
        return Err(StageError { stage: format!("verify {wrong}"), errno: Errno::EPERM });
    }
    let root = Uid::from_raw(0);
    if setresuid(root, root, root).is_ok() || setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).is_ok() {
        return Err(StageError { stage: "verify: root came back".to_owned(), errno: Errno::EPERM });
    }
    Ok(())
}

/// The first line of `/proc/self/status` that is not as it must be.
fn wrong_line(status: &str, id: u32) -> Option<String> {
    let ids = format!("{id}\t{id}\t{id}\t{id}");
    let none = "0000000000000000";
    let wanted = [
        ("Uid", ids.as_str()),
        ("Gid", &ids),
        ("Groups", ""),
        ("CapInh", none),
        ("CapPrm", none),
        ("CapEff", none),
        ("CapBnd", none),
        ("CapAmb", none),
        ("NoNewPrivs", "1"),
    ];
    let value = |key: &str| status.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()));
    let wrong = wanted.into_iter().find(|(key, wanted)| value(key) != Some(wanted));
    wrong.map(|(key, _)| format!("{key}: {}", value(key).unwrap_or("absent")))
}

/// Becomes the program, with nothing inherited but the three standard streams.
///
/// # Errors
/// Always, as success does not return.
pub fn exec(program: &Program<'_>) -> Result<Infallible, StageError> {
    let Program { dir, words, environment } = *program;
    umask(Mode::from_bits_truncate(0o022));
    chdir(dir).map_err(StageError::at(format!("chdir {dir}")))?;
    credentials::close_on_exec().map_err(StageError::at("close descriptors"))?;
    let c_string = |text: &str| CString::new(text).map_err(|_| Errno::EINVAL);
    let words: Result<Vec<_>, _> = words.iter().map(|word| c_string(word)).collect();
    let words = words.map_err(StageError::at("arguments"))?;
    let environment: Result<Vec<_>, _> =
        environment.iter().map(|(name, value)| c_string(&format!("{name}={value}"))).collect();
    let environment = environment.map_err(StageError::at("environment"))?;
    let path = words.first().ok_or(Errno::EINVAL).map_err(StageError::at("empty command"))?;
    execve(path, &words, &environment).map_err(StageError::at(format!("exec {}", path.to_string_lossy())))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";

    #[test]
    fn each_line_of_the_proof_counts() {
        assert_eq!(wrong_line(GOOD, 7), None);
        assert_eq!(wrong_line(GOOD, 8).unwrap(), "Uid: 7\t7\t7\t7");
        let cases = [
            ("Gid:\t7\t7", "Gid:\t0\t7", "Gid: 0\t7\t7\t7"),
            ("Groups:\t \n", "Groups:\t0 \n", "Groups: 0"),
            ("CapBnd:\t0", "CapBnd:\t1", "CapBnd: 1000000000000000"),
            ("NoNewPrivs:\t1\n", "", "NoNewPrivs: absent"),
        ];
        for (good, bad, wrong) in cases {
            assert_eq!(wrong_line(&GOOD.replacen(good, bad, 1), 7).unwrap(), wrong);
        }
    }
}
