//! The end of the machine: one function that never returns, for every way out.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::Deadline;
use crate::sys::process::{self, Reaped};
use crate::verdict::Verdict;
use crate::{logging, mounts};

/// The logger takes 2 s, the worker 10 s to give a token back.
const ORPHANS: Duration = Duration::from_secs(12);
/// For what the scripts left running, after their own `stop` has run.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// SIGKILL works at once but for processes in the kernel's hands.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// A sync or an unmount that takes longer hangs on a disk that is gone.
const DISK_LIMIT: Duration = Duration::from_secs(10);
/// The firmware takes some time to act; then the next way is tried.
const OFF_LIMIT: Duration = Duration::from_secs(5);

static ENDING: AtomicBool = AtomicBool::new(false);

/// Waits for roles that the agent left behind by dying: the logger delivers, the worker gives its token back. What
/// scripts left running does not end by itself and makes this take its whole time.
pub fn let_roles_finish() {
    reap_until(Deadline::after(ORPHANS));
}

/// Tells why, stops every process, puts file systems in order, and turns the machine off.
/// Each step is bounded, and the next one runs whatever became of it.
pub fn end(verdict: &Verdict) -> ! {
    // A panic in here comes back through the hook: then there is nothing left to try but the last step.
    if ENDING.swap(true, Ordering::Relaxed) {
        off();
    }
    stop_processes();
    in_child(nix::unistd::sync);
    in_child(|| {
        for trouble in mounts::teardown() {
            log::warn!("unmount: {trouble}");
        }
    });
    tell(verdict);
    off()
}

/// The last line on the console, or in the kernel's log where there is no console.
fn tell(verdict: &Verdict) {
    let line = crate::text::printable(&format!("ctxinit: end {verdict}"));
    match logging::open_console() {
        Ok(mut console) => {
            // The line may be behind others in the terminal's buffer, but not for ever.
            let mut writable = [PollFd::new(console.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut writable, PollTimeout::from(1000u16));
            let _ = console.write(format!("{line}\r\n").as_bytes());
        }
        Err(_) => log::info!("end {verdict}"),
    }
}

fn stop_processes() {
    // To everybody but PID 1. Stopped processes must run to die of SIGTERM.
    let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
    let _ = kill(Pid::from_raw(-1), Signal::SIGCONT);
    if reap_until(Deadline::after(TERM_GRACE)) {
        return;
    }
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    reap_until(Deadline::after(KILL_GRACE));
}

/// Reaps until no process is left; false at the deadline. Asked of wait, as kill(-1) also counts kernel threads.
fn reap_until(deadline: Deadline) -> bool {
    loop {
        match process::reap_any() {
            Reaped::Nobody => return true,
            Reaped::Ended(..) => {}
            Reaped::Running if deadline.passed() => return false,
            Reaped::Running => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// What may hang on a dead disk, and then hangs a child that nobody waits for.
fn in_child(act: impl FnOnce()) {
    let child = process::fork(|| {
        act();
        0
    });
    let Ok(child) = child else { return };
    let mut done = [PollFd::new(child.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut done, Deadline::after(DISK_LIMIT).poll_timeout());
}

/// Power off; where that does not work, reset, which ends a machine whose hypervisor knows nothing else
/// (Firecracker #598) or whose domain is set to be destroyed.
fn off() -> ! {
    for mode in [RebootMode::RB_POWER_OFF, RebootMode::RB_AUTOBOOT] {
        let Err(errno) = reboot(mode);
        log::error!("{mode:?}: {errno}");
        std::thread::sleep(OFF_LIMIT);
    }
    let _ = fs::write("/proc/sysrq-trigger", "o");
    std::thread::sleep(OFF_LIMIT);
    let _ = fs::write("/proc/sysrq-trigger", "b");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
