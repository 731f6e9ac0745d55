//! PID 1: early mounts, console, reaping, power button, and the end.
//!
//! It parses nothing but the kernel command line and one-line notices of its own agent, never blocks
//! without a deadline, and holds no socket. Whatever goes wrong, it ends the machine with a reason.

pub mod cmdline;
mod end;
mod power;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::agent::{self, notice::Notice, report};
use crate::clock::Deadline;
use crate::sys::process::{self, Child, Exit, Reaped};
use crate::verdict::Verdict;
use crate::{logging, mounts, sys};

/// The life of PID 1.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        end::end(&Verdict::machine_fault(format!("init failed at {place}")));
    }));
    // From here on nothing returns an error upward: every way out is `end`.
    match begin() {
        Ok(init) => init.watch(),
        Err(why) => end::end(&Verdict::machine_fault(why)),
    }
}

/// Mounts, signals, and the agent.
fn begin() -> Result<Init, String> {
    let start_ms = report::now_ms();
    // Blocked before the first fork, or a child's death in between is lost.
    let signals = sys::signals::block().map_err(|error| format!("cannot take signals: {error}"))?;
    let mounted = mounts::early_table();
    // A panic of the kernel, PID 1's death among its causes, must not leave a machine that hangs and is
    // paid for: Debian's kernels wait for ever by default. -1 resets at once.
    let _ = fs::write("/proc/sys/kernel/panic", "-1");
    // The kernel otherwise drops lines that user space logs too fast; a value set at boot cannot be changed.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on");
    logging::to_kernel();
    mounted.map_err(|error| error.to_string())?;
    silence_standard_streams();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let _ = nix::unistd::chdir("/");
    // Ctrl-Alt-Del comes as SIGINT instead of resetting the machine behind our back.
    let _ = set_cad_enabled(false);

    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let (reader, writer) = nix::unistd::pipe2(flags).map_err(|errno| format!("cannot make a pipe: {errno}"))?;
    // init's view of the processes; the agent takes /proc along when it changes the root.
    let proc_dir = File::open("/proc").map_err(|error| format!("/proc: {error}"))?;
    let agent =
        process::fork(|| agent::run(writer, start_ms)).map_err(|error| format!("cannot start the agent: {error}"))?;
    Ok(Init { signals, agent, notices: reader.into(), unread: Vec::new(), proc_dir, buttons: Vec::new(), stop: None })
}

/// Nothing of ours prints on them, and a program that inherits them cannot block on a dead console.
fn silence_standard_streams() {
    if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&null);
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}

struct Init {
    signals: sys::signals::Signals,
    agent: Child,
    notices: File,
    unread: Vec<u8>,
    proc_dir: File,
    buttons: Vec<File>,
    /// Set once the agent was asked to end: by when it must have.
    stop: Option<Deadline>,
}

impl Init {
    /// The loop: whatever happens, it ends in `end`.
    fn watch(mut self) -> ! {
        loop {
            self.wait();
            while let Some(signal) = self.signals.next() {
                match signal {
                    // SIGHUP comes from a console that hangs up, and from nobody who means the machine.
                    Signal::SIGCHLD | Signal::SIGHUP => {}
                    Signal::SIGINT => self.ask_for_end("Ctrl-Alt-Del"),
                    signal => self.ask_for_end(&format!("{signal}")),
                }
            }
            if power::pressed(&mut self.buttons) {
                self.ask_for_end("power button");
            }
            // The agent's last words stand in the pipe before its death can be seen.
            let verdict = self.hear();
            if let Some(exit) = self.reap() {
                let verdict = verdict.or_else(|| self.hear()).unwrap_or_else(|| {
                    end::let_roles_finish();
                    Verdict::machine_fault(format!("the agent died: {exit}"))
                });
                end::end(&verdict);
            }
            if let Some(verdict) = verdict {
                end::end(&verdict);
            }
            if self.stop.is_some_and(Deadline::passed) {
                end::end(&Verdict::host_asked("asked to end, but the agent did not in time"));
            }
        }
    }

    fn wait(&self) {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.notices.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.buttons.iter().map(|button| PollFd::new(button.as_fd(), PollFlags::POLLIN)));
        let timeout = self.stop.map_or(PollTimeout::NONE, Deadline::poll_timeout);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Cannot happen with these arguments; if it does, do not spin.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }

    /// Drains every ended child; whether the agent was among them decides, not the signal that came first.
    fn reap(&self) -> Option<Exit> {
        let mut agent = None;
        while let Reaped::Ended(pid, exit) = process::reap_any() {
            if pid == self.agent.pid() {
                agent = Some(exit);
            }
        }
        agent
    }

    fn ask_for_end(&mut self, why: &str) {
        if self.stop.is_none() {
            log::info!("{why}: asking for an orderly end");
            self.stop = Some(Deadline::after(agent::end::LONGEST));
        }
        let _ = self.agent.signal(Signal::SIGTERM);
    }

    /// Reads the agent's notices; the last of them is its verdict.
    fn hear(&mut self) -> Option<Verdict> {
        let mut chunk = [0; 1024];
        loop {
            match self.notices.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match Notice::parse(&String::from_utf8_lossy(&line)) {
                Some(Notice::Devices) => self.buttons = power::buttons(),
                Some(Notice::Root) => {
                    self.follow_root(self.agent.pid());
                    // The first notice may have come when /dev was on its way into the image.
                    self.buttons = power::buttons();
                }
                Some(Notice::End(verdict)) => return Some(verdict),
                None => {}
            }
        }
        None
    }

    /// Goes where the agent's root is: into the image.
    fn follow_root(&self, agent: Pid) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root =
            nix::fcntl::openat(&self.proc_dir, format!("{agent}/root").as_str(), flags, nix::sys::stat::Mode::empty());
        let moved = root.and_then(|root: OwnedFd| nix::unistd::fchdir(root)).and_then(|()| nix::unistd::chroot("."));
        if let Err(errno) = moved {
            log::warn!("init stays in the initramfs: {errno}");
        }
    }
}
