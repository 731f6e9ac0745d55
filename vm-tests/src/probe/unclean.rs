//! A start that is not clean: process 1 before ctxinit, which leaves to it whatever a process can inherit. A drop whose
//! parent is clean anyway proves nothing.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::IntoRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Gid, execve, execvpe, getpid};

use super::raw::call;

/// Where ctxinit lies in an initramfs whose init this program is.
pub const CTXINIT: &str = "ctxinit";
/// The word behind `guest` for swapping to every disk that is made for it.
pub const SWAP: &str = "swap";
/// The word for starting another program as uncleanly.
pub const SPOILED: &str = "spoiled";
/// A variable that no payload may see.
const SECRET: &CStr = c"ROOT_SECRET=of process 1";

/// Whether this program is process 1, and what comes of that: it becomes ctxinit.
pub fn become_ctxinit() -> Option<Errno> {
    (getpid().as_raw() == 1).then(|| match spoil().and_then(|()| exec()) {
        Err(errno) => errno,
        Ok(never) => match never {},
    })
}

fn spoil() -> Result<(), Errno> {
    nix::unistd::setgroups(&[0, 5, 6].map(Gid::from_raw))?;
    // Every capability is inheritable, and one of them ambient.
    let own = [u64::from(u32::MAX) * 0x1_0000_0001, u64::from(u32::MAX) | 0x1ff << 32, 0x1ff | 0x1ff << 32];
    call!(libc::SYS_capset, &[0x2008_0522u64], &own)?;
    const CAP_SYS_ADMIN: u32 = 21;
    call!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0)?;
    // A session keyring with a key of root's in it.
    const JOIN_SESSION_KEYRING: i32 = 1;
    call!(libc::SYS_keyctl, JOIN_SESSION_KEYRING, c"root-keys")?;
    call!(libc::SYS_add_key, c"user", c"root-secret", c"value", 5, -3)?;
    call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, -3)?;
    // The best-effort class, its best level.
    call!(libc::SYS_ioprio_set, 1, 0, 1 << 13)?;
    call!(libc::SYS_prctl, libc::PR_SET_TIMERSLACK, 1_000_000, 0, 0, 0)?;
    call!(libc::SYS_sched_setaffinity, 0, 8, &[1u64])?;
    let limits =
        [libc::RLIMIT_CORE, libc::RLIMIT_MEMLOCK, libc::RLIMIT_MSGQUEUE, libc::RLIMIT_RTPRIO, libc::RLIMIT_NICE];
    for resource in limits {
        call!(libc::SYS_prlimit64, 0, resource as i64, &[u64::MAX, u64::MAX], 0)?;
    }
    call!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE as i64, &[1 << 20, 1 << 20], 0)?;
    call!(libc::SYS_umask, 0)?;
    let blocked: SigSet = [Signal::SIGUSR1].into_iter().collect();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None)?;
    // A way to the root directory that no exec closes: it is the initramfs', as root sees it.
    for target in [9, 77] {
        let root = std::fs::File::open("/").map_err(|_| Errno::EIO)?;
        call!(libc::SYS_dup2, root.into_raw_fd(), target)?;
    }
    Ok(())
}

fn exec() -> Result<Infallible, Errno> {
    let path = CString::new(format!("/{CTXINIT}")).unwrap_or_default();
    execve(&path, &[c"init"], &environment())
}

/// With the secret.
fn environment() -> Vec<CString> {
    let own = std::env::vars().filter_map(|(key, value)| CString::new(format!("{key}={value}")).ok());
    own.chain([SECRET.to_owned()]).collect()
}

/// As root, for a program that is compared with ctxinit: the same start.
pub fn spoiled(words: &[String]) -> std::process::ExitCode {
    let words: Vec<CString> = words.iter().filter_map(|word| CString::new(word.as_str()).ok()).collect();
    let started = spoil().and_then(|()| match words.first() {
        Some(program) => execvpe(program, &words, &environment()),
        None => Err(Errno::EINVAL),
    });
    println!("no spoiled start: {started:?}");
    std::process::ExitCode::FAILURE
}

/// As root, in a script: memory beyond a job's must not come from a disk either.
pub fn swap() -> std::process::ExitCode {
    for letter in 'b'..='f' {
        let path = CString::new(format!("/dev/vd{letter}")).unwrap_or_default();
        if call!(libc::SYS_swapon, path.as_c_str(), 0).is_ok() {
            println!("swapping to {}", path.to_string_lossy());
            return std::process::ExitCode::SUCCESS;
        }
    }
    println!("no disk to swap to");
    std::process::ExitCode::FAILURE
}

/// The head of a disk of this many pages that is made for swapping (linux/swap.h): version, last page, no bad ones, and
/// the signature at the end of the first page.
pub fn swap_head(pages: u32) -> Vec<u8> {
    let mut head = vec![0; 4096];
    head[1024..1028].copy_from_slice(&1u32.to_ne_bytes());
    head[1028..1032].copy_from_slice(&(pages - 1).to_ne_bytes());
    head[4086..].copy_from_slice(b"SWAPSPACE2");
    head
}
