//! Words put into somebody's mouth: input into a terminal that others read from.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;

use super::raw::call;
use super::{Attempt, Tried, any, attempt, escaped, raw};

pub const ATTEMPTS: &[Attempt] = &[
    attempt("tiocsti", "TIOCSTI on its standard streams", |_| streams(inject)),
    attempt("tiocsti-high-bits", "the same with a bit that only a careless filter sees", |_| streams(inject_high)),
    attempt("tiocsti-pty", "TIOCSTI on a terminal of its own", |_| own_terminal(inject)),
    attempt("tiocsti-pty-high-bits", "the same with a bit that only a careless filter sees", |_| {
        own_terminal(inject_high)
    }),
    attempt("tiocsti-i386", "TIOCSTI by the gate of 32-bit programs", |_| {
        // ioctl is 54 there; without a second and a third argument it is the gate itself that is tried.
        match raw::i386(54, 0) {
            Ok(_) => escaped("done"),
            Err(Errno::ENOTTY | Errno::EINVAL | Errno::EFAULT) => escaped("the call itself is open"),
            Err(errno) => Err(errno.into()),
        }
    }),
    attempt("tioclinux", "pasting into a console", |_| streams(paste)),
    attempt("tioclinux-high-bits", "the same with a bit that only a careless filter sees", |_| {
        streams(|fd| ioctl(fd, TIOCLINUX | HIGH, PASTE))
    }),
    attempt("tiocconsole", "the console's output", |_| {
        own_terminal(|fd| {
            call!(libc::SYS_ioctl, fd, libc::TIOCCONS, 0)?;
            escaped("taken")
        })
    }),
    attempt("controlling-terminal", "somebody's terminal as its own", |_| {
        call!(libc::SYS_setsid)?;
        any(["/dev/console", "/dev/ttyS0", "/dev/hvc0", "/dev/tty0", "/dev/tty1"], |path| {
            OpenOptions::new().read(true).write(true).open(path)?;
            escaped(format!("{path} is open"))
        })
    }),
];

const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
/// The kernel takes 32 bits of a request; a filter that compares 64 lets this one pass (CVE-2019-10063).
const HIGH: u64 = 1 << 32;
/// TIOCL_PASTESEL.
const PASTE: u8 = 3;

fn ioctl(fd: i32, request: u64, byte: u8) -> Tried {
    call!(libc::SYS_ioctl, fd, request, &mut [byte, 0, 0, 0][..])?;
    escaped(format!("descriptor {fd} took it"))
}

fn inject(fd: i32) -> Tried {
    ioctl(fd, TIOCSTI, b'x')
}

fn inject_high(fd: i32) -> Tried {
    ioctl(fd, TIOCSTI | HIGH, b'x')
}

fn paste(fd: i32) -> Tried {
    ioctl(fd, TIOCLINUX, PASTE)
}

fn streams(try_one: fn(i32) -> Tried) -> Tried {
    any(0..3, try_one)
}

/// A pseudo-terminal, as the controlling one of a new session.
fn own_terminal(try_one: fn(i32) -> Tried) -> Tried {
    call!(libc::SYS_setsid)?;
    let open = |path: &str| OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    let master: OwnedFd = open("/dev/ptmx").or_else(|_| open("/dev/pts/ptmx"))?.into();
    call!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, &mut [0u8; 4][..])?;
    let mut number = [0u8; 4];
    call!(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTN, &mut number[..])?;
    let path = format!("/dev/pts/{}", u32::from_ne_bytes(number));
    let path = CString::new(path).unwrap_or_default();
    let terminal = call!(libc::SYS_openat, libc::AT_FDCWD, path.as_c_str(), libc::O_RDWR)? as i32;
    call!(libc::SYS_ioctl, terminal, libc::TIOCSCTTY, 0)?;
    let tried = try_one(terminal);
    // Its end would be this process's: a hangup.
    std::mem::forget(master);
    tried
}
