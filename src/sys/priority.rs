//! Processor and disk time: what nobody else wants, or what everybody gets.

use nix::errno::Errno;
use nix::libc;

const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// Takes processor time and disk time that nobody else wants. A kernel that refuses lets it run as before.
pub fn lowest() {
    // linux/ioprio.h: the idle class, in the upper bits.
    const IDLE: libc::c_int = 3 << 13;
    // SAFETY: both calls take integers; 0 is this process.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IDLE);
    }
}

/// The nice value that every process has unless somebody says otherwise.
///
/// # Errors
/// Those of setpriority(2).
pub fn set_usual_nice() -> Result<(), Errno> {
    // SAFETY: setpriority takes integers; 0 is this process.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) }).map(drop)
}

/// No class of its own at the disk, which follows the nice value then.
///
/// # Errors
/// Those of ioprio_set(2).
pub fn set_usual_io() -> Result<(), Errno> {
    // SAFETY: ioprio_set takes integers; 0 is this process.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0) }).map(drop)
}

/// The nice value.
pub fn nice() -> i32 {
    // SAFETY: the system call takes integers; unlike the C library's it returns 20 - nice.
    let raw = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    20 - raw as i32
}

/// The class at the disk, linux/ioprio.h; 0 is none of its own.
pub fn io_class() -> i32 {
    // SAFETY: ioprio_get takes integers.
    let raw = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) };
    raw as i32 >> 13
}
