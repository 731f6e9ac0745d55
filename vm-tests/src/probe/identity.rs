//! To be somebody else again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getegid, geteuid};

use super::raw::call;
use super::{Attempt, HELPER, Scene, Tried, attempt, denied, escaped};
use crate::guest::{ARGUMENT, status};

/// Copies of this program in the image, one with the mode of a setuid-root program, one with capabilities.
pub const SETUID_HELPER: &str = "usr/lib/vm-tests/setuid-root";
pub const CAPS_HELPER: &str = "usr/lib/vm-tests/file-caps";

pub const ATTEMPTS: &[Attempt] = &[
    attempt("setuid", "setuid(0)", |_| becomes_root(call!(libc::SYS_setuid, 0))),
    attempt("setreuid", "setreuid(0, 0)", |_| becomes_root(call!(libc::SYS_setreuid, 0, 0))),
    attempt("setresuid", "setresuid(0, 0, 0)", |_| becomes_root(call!(libc::SYS_setresuid, 0, 0, 0))),
    attempt("setgid", "setgid(0)", |_| becomes_root(call!(libc::SYS_setgid, 0))),
    attempt("setregid", "setregid(0, 0)", |_| becomes_root(call!(libc::SYS_setregid, 0, 0))),
    attempt("setresgid", "setresgid(0, 0, 0)", |_| becomes_root(call!(libc::SYS_setresgid, 0, 0, 0))),
    attempt("setgroups", "setgroups of root's group", |_| {
        becomes_root(call!(libc::SYS_setgroups, 1, &mut [0u8; 4][..]))
    }),
    attempt("setfsuid", "setfsuid(0)", |_| file_system_id(libc::SYS_setfsuid)),
    attempt("setfsgid", "setfsgid(0)", |_| file_system_id(libc::SYS_setfsgid)),
    attempt("capset", "all capabilities by capset", |_| capset(u32::MAX, u32::MAX, 0)),
    attempt("capset-inheritable", "inheritable capabilities by capset", |_| capset(0, 0, u32::MAX)),
    attempt("ambient-raise", "CAP_NET_RAW into the ambient set", |_| {
        call!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0)?;
        escaped("raised")
    }),
    attempt("securebits-clear", "securebits without a lock", |_| {
        call!(libc::SYS_prctl, libc::PR_SET_SECUREBITS, 0, 0, 0, 0)?;
        escaped("cleared")
    }),
    attempt("keep-caps", "keeping capabilities over setuid", |_| {
        call!(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0)?;
        escaped("set")
    }),
    attempt("setuid-program", "a setuid-root program of the image gives root", |_| helper(SETUID_HELPER)),
    attempt("file-capabilities", "a program of the image gives its capabilities", |_| helper(CAPS_HELPER)),
    attempt("chown", "giving a file to root", chown),
];

const CAP_NET_RAW: u32 = 13;

/// The call succeeded, or the ids say that it did.
fn becomes_root(result: Result<i64, Errno>) -> Tried {
    result?;
    escaped(format!("euid {}, egid {}", geteuid(), getegid()))
}

/// These two return the old id and no error: a second call that changes nothing tells.
fn file_system_id(number: libc::c_long) -> Tried {
    call!(number, 0)?;
    match call!(number, -1)? {
        0 => escaped("files are opened as 0"),
        id => denied(format!("still {id}")),
    }
}

/// As in capability.h: version 3 and this process, then two words of each set.
fn capset(effective: u32, permitted: u32, inheritable: u32) -> Tried {
    let low = u64::from(effective) | u64::from(permitted) << 32;
    // CAP_LAST_CAP is 40: the high words stay empty, so that the call fails for no other reason.
    call!(libc::SYS_capset, &[0x2008_0522u64], &[low, u64::from(inheritable), 0])?;
    escaped(format!("CapEff {}", status_line("CapEff")))
}

fn status_line(key: &str) -> String {
    status().ok().and_then(|mut status| status.remove(key)).unwrap_or_default()
}

/// Runs a helper and reads what it says of itself.
fn helper(path: &str) -> Tried {
    let path = format!("/{path}");
    fs::metadata(&path).map(|file| file.mode())?;
    let output = Command::new(&path).args([ARGUMENT, HELPER]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match said.split_once(": ") {
        Some(("privileged", how)) => escaped(how),
        Some(("plain", how)) => denied(how),
        _ => denied(format!("it says {said:?} and ends with {}", output.status)),
    }
}

/// As the helper: what came with the file.
pub fn help() -> ExitCode {
    let (uid, gid, permitted) = (geteuid(), getegid(), status_line("CapPrm"));
    let has = uid.is_root() || gid.as_raw() == 0 || permitted.bytes().any(|digit| digit != b'0');
    println!("{}: euid {uid}, egid {gid}, CapPrm {permitted}", if has { "privileged" } else { "plain" });
    ExitCode::SUCCESS
}

fn chown(scene: &Scene) -> Tried {
    let file = scene.home.join("chown");
    fs::write(&file, "")?;
    let result = std::os::unix::fs::chown(&file, Some(0), Some(0));
    let _ = fs::remove_file(&file);
    result?;
    escaped("given")
}
