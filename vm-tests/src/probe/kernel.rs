//! Calls that give the kernel work, or that are the kernel's own business.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;

use super::raw::{self, call};
use super::{Attempt, Scene, Tried, attempt, escaped};

pub const ATTEMPTS: &[Attempt] = &[
    attempt("init-module", "loading a module", |_| through(call!(libc::SYS_init_module, 0, 0, c""))),
    attempt("finit-module", "loading a module from a file", finit_module),
    attempt("delete-module", "removing a module", |_| through(call!(libc::SYS_delete_module, c"none-such", 0))),
    attempt("kexec-load", "another kernel", |_| through(call!(libc::SYS_kexec_load, 0, 0, 0, 0))),
    attempt("kexec-file-load", "another kernel from a file", |_| {
        through(call!(libc::SYS_kexec_file_load, -1, -1, 0, c"", 0))
    }),
    attempt("bpf-map", "a map of bpf", |_| {
        // BPF_MAP_CREATE of an array: type 2, keys and values of 4 bytes, one entry.
        got(call!(libc::SYS_bpf, 0, &[2u64 | 4 << 32, 4 | 1 << 32, 0, 0, 0, 0, 0, 0, 0], 72))
    }),
    attempt("bpf-program", "a program of bpf", bpf_program),
    attempt("perf-event", "counting events of the processor", |_| {
        // Of itself, in software (type 1, its size 64), the processor's clock (config 0), without the kernel's part.
        let event = [1u64 | 64 << 32, 0, 0, 0, 0, 0b110_0000, 0, 0];
        got(call!(libc::SYS_perf_event_open, &event, 0, -1, -1, 0))
    }),
    attempt("userfaultfd", "holding the kernel up in a page fault", |_| {
        const UFFD_USER_MODE_ONLY: i32 = 1;
        got(call!(libc::SYS_userfaultfd, UFFD_USER_MODE_ONLY).or_else(|_| call!(libc::SYS_userfaultfd, 0)))
    }),
    attempt("io-uring", "an io_uring", |_| got(call!(libc::SYS_io_uring_setup, 4, &mut [0u8; 120][..]))),
    attempt("keyctl", "a session keyring of its own making", |_| {
        const JOIN_SESSION_KEYRING: i32 = 1;
        got(call!(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0))
    }),
    attempt("add-key", "a key in the kernel", |_| {
        const USER_KEYRING: i32 = -4;
        got(call!(libc::SYS_add_key, c"user", c"probe", c"value", 5, USER_KEYRING))
    }),
    attempt("request-key", "the kernel starts a program of root's to find a key", |_| {
        // Without a program that would make it, the answer of an open door is that there is no such key.
        match call!(libc::SYS_request_key, c"user", c"no-such-key", c"x", -4) {
            Ok(_) | Err(Errno::ENOKEY | Errno::ENOENT) => escaped("asked for"),
            Err(errno) => Err(errno.into()),
        }
    }),
    attempt("reboot", "the machine's end", |_| {
        // RB_DISABLE_CAD, which harms nobody.
        through(call!(libc::SYS_reboot, 0xfee1_deadu64, 672_274_793, 0, 0))
    }),
    attempt("sethostname", "the machine's name", |_| through(call!(libc::SYS_sethostname, c"probe", 5))),
    attempt("setdomainname", "the machine's domain", |_| through(call!(libc::SYS_setdomainname, c"probe", 5))),
    attempt("settimeofday", "the machine's clock", |_| through(call!(libc::SYS_settimeofday, &[now(), 0], 0))),
    attempt("clock-settime", "the machine's clock, the other way", |_| {
        through(call!(libc::SYS_clock_settime, 0, &[now(), 0]))
    }),
    attempt("adjtimex", "the clock's speed", |_| {
        // ADJ_FREQUENCY in the first word.
        let mut timex = [0u8; 208];
        timex[0] = 2;
        through(call!(libc::SYS_adjtimex, &mut timex[..]))
    }),
    attempt("swapon", "swapping", |_| through(call!(libc::SYS_swapon, c"/etc/passwd", 0))),
    attempt("swapoff", "no swapping", |_| through(call!(libc::SYS_swapoff, c"/etc/passwd"))),
    attempt("quotactl", "quotas", |_| {
        // Q_QUOTAON of users; a device that is not there says nothing of the right to ask.
        match call!(libc::SYS_quotactl, 0x8000_0200u64, c"/dev/vda", 1, c"") {
            Err(errno @ (Errno::ENOENT | Errno::ENOTBLK)) => Err(errno.into()),
            other => through(other),
        }
    }),
    attempt("acct", "a record of every process of the machine", |_| through(call!(libc::SYS_acct, 0))),
    attempt("syslog", "the kernel's log by its call", |_| {
        const READ_ALL: i32 = 3;
        got(call!(libc::SYS_syslog, READ_ALL, &mut [0u8; 4096][..], 4096))
    }),
    // Not ADDR_NO_RANDOMIZE, which debuggers ask for and which harms the asker alone.
    attempt("personality", "memory that can be executed because it can be read", |_| {
        got(call!(libc::SYS_personality, libc::READ_IMPLIES_EXEC))
    }),
    attempt("ioperm", "the machine's ports", |_| through(call!(libc::SYS_ioperm, 0x80, 1, 1))),
    attempt("iopl", "all of the machine's ports", |_| through(call!(libc::SYS_iopl, 3))),
    attempt("modify-ldt", "segments of its own", |_| {
        // A data segment: number 0, no base, limit 0xfff, 32 bits.
        got(call!(libc::SYS_modify_ldt, 1, &[0u64, 0xfff | 1 << 32], 16))
    }),
    attempt("i386-getpid", "the gate of 32-bit programs", |_| {
        raw::i386(20, 0).map(|pid| format!("process {pid}")).map(escaped)?
    }),
    attempt("x32-getpid", "the numbers of x32", |_| got(call!(libc::SYS_getpid | 0x4000_0000))),
    attempt("kcmp", "comparing its own tables with those of process 1", |_| got(call!(libc::SYS_kcmp, 1, 1, 0, 0, 0))),
    attempt("vhangup", "hanging up the terminal", |_| through(call!(libc::SYS_vhangup))),
    attempt("fanotify", "watching everybody's files", |_| got(call!(libc::SYS_fanotify_init, 4, 0))),
    attempt("move-pages", "moving the memory of process 1", |_| {
        got(call!(libc::SYS_migrate_pages, 1, 64, &[1u64], &[1u64]))
    }),
    attempt("lookup-dcookie", "names of files by their numbers", |_| {
        through(call!(libc::SYS_lookup_dcookie, 1, &mut [0u8; 64][..], 64))
    }),
];

/// Succeeded, or failed for the arguments, which are looked at only after the right to ask.
fn through(result: Result<i64, Errno>) -> Tried {
    match result {
        Ok(_) => escaped("done"),
        Err(errno @ (Errno::EINVAL | Errno::EFAULT | Errno::EBADF | Errno::ENOENT | Errno::ENOEXEC | Errno::EBUSY)) => {
            escaped(format!("allowed: it is the arguments that are wrong ({errno:?})"))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Where such a call is allowed it does no harm: the machine goes on with its work.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Succeeded, and nothing else counts.
fn got(result: Result<i64, Errno>) -> Tried {
    result?;
    escaped("given")
}

fn finit_module(_: &Scene) -> Tried {
    let file = std::fs::File::open("/proc/self/exe")?;
    through(call!(libc::SYS_finit_module, std::os::fd::AsRawFd::as_raw_fd(&file), c"", 0))
}

/// The shortest program of a socket filter: `r0 = 0; exit`.
fn bpf_program(_: &Scene) -> Tried {
    let program = [0xb7u64, 0x95];
    let license = *b"GPL\0\0\0\0\0";
    const SOCKET_FILTER: u64 = 1;
    let attributes = [SOCKET_FILTER | 2 << 32, program.as_ptr() as u64, license.as_ptr() as u64, 0, 0, 0, 0, 0, 0];
    const PROG_LOAD: i32 = 5;
    got(call!(libc::SYS_bpf, PROG_LOAD, &attributes, 72))
}
