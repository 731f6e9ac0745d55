//! Children that never outlive us.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// After SIGTERM: scripts/vm ends QEMU, which takes a moment on a loaded machine.
const GRACE: Duration = Duration::from_secs(10);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants us to stop; every wait looks here.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// From now on Ctrl-C and SIGTERM end the waits, so that every machine is ended on the way out. Call it before the
/// first thread is started.
pub fn catch_signals() -> Result<(), String> {
    signals().thread_block().map_err(|errno| format!("cannot block signals: {errno}"))?;
    thread::spawn(|| {
        if signals().wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// A child in a process group of its own, ended when this is dropped.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it without standard input.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        // A child inherits the mask of this thread, and a shell with SIGTERM blocked cannot be ended.
        let _ = signals().thread_unblock();
        let child = command.process_group(0).stdin(Stdio::null()).spawn();
        let _ = signals().thread_block();
        Ok(Self { child: child.map_err(|error| format!("{name}: {error}"))?, name })
    }

    /// Its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Err(error) => return Err(format!("{}: {error}", self.name)),
                Ok(None) if interrupted() => return Err("interrupted".to_owned()),
                Ok(None) if Instant::now() > deadline => {
                    return Err(format!("{} did not end in {} s", self.name, limit.as_secs()));
                }
                Ok(None) => thread::sleep(LOOK),
            }
        }
    }

    /// Tries until something succeeds, for as long as this one lives: what a server that starts does not yet answer.
    pub fn until<T>(&mut self, limit: Duration, attempt: impl Fn() -> Result<T, String>) -> Result<T, String> {
        let deadline = Instant::now() + limit;
        loop {
            match (attempt(), self.child.try_wait()) {
                (Ok(done), _) => return Ok(done),
                (Err(_), Ok(None)) if !interrupted() && Instant::now() < deadline => thread::sleep(LOOK),
                (Err(why), Ok(Some(status))) => return Err(format!("{}: {status}: {why}", self.name)),
                (Err(why), _) => return Err(format!("{}: {why}", self.name)),
            }
        }
    }

    fn signal(&self, pid: i32, signal: Signal) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = self.child.id() as i32;
        let deadline = Instant::now() + GRACE;
        // The number is ours as long as nobody has waited for it.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(pid, Signal::SIGTERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.signal(-pid, Signal::SIGKILL);
                let _ = self.child.wait();
                return;
            }
            thread::sleep(LOOK);
        }
    }
}

/// Runs a command that makes something; what it says is part of the error if it fails.
pub fn make(command: &mut Command, limit: Duration) -> Result<(), String> {
    let mut process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let errors = process.child().stderr.take().ok_or("no standard error")?;
    let said = thread::spawn(move || std::io::read_to_string(errors).unwrap_or_default());
    let status = process.wait(limit)?;
    let said = said.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(format!("{}: {status}\n{}", process.name, said.trim_end())) }
}

/// Runs a program that is quick, and returns what it prints.
pub fn output(command: &mut Command, limit: Duration) -> Result<String, String> {
    let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()))?;
    let printed = process.child().stdout.take().ok_or("no standard output")?;
    let said = thread::spawn(move || std::io::read_to_string(printed).unwrap_or_default());
    let status = process.wait(limit)?;
    let said = said.join().unwrap_or_default();
    if status.success() { Ok(said) } else { Err(format!("{}: {status}", process.name)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_command_says_is_told() {
        let second = Duration::from_secs(10);
        assert_eq!(make(Command::new("sh").args(["-c", "exit 0"]), second), Ok(()));
        let failed = make(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), second).unwrap_err();
        assert_eq!(failed, "sh: exit status: 3\nwhy");
        let slow = make(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(slow.starts_with("sleep did not end"), "{slow}");
    }

    #[test]
    fn a_server_is_waited_for_as_long_as_it_lives() {
        let tries = std::cell::Cell::new(0);
        let third = || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err("not yet".to_owned()) } else { Ok(tries.get()) }
        };
        let mut alive = Process::start(Command::new("sleep").arg("60")).unwrap();
        assert_eq!(alive.until(Duration::from_secs(60), third), Ok(3));
        let never = || Err::<(), _>("never".to_owned());
        assert_eq!(alive.until(Duration::ZERO, never), Err("sleep: never".to_owned()));
        let mut dead = Process::start(Command::new("sh").args(["-c", "exit 3"])).unwrap();
        assert_eq!(dead.until(Duration::from_secs(60), never), Err("sh: exit status: 3: never".to_owned()));
    }

    #[test]
    fn a_child_is_gone_with_its_owner() {
        let process = Process::start(Command::new("sleep").arg("60")).unwrap();
        let pid = Pid::from_raw(process.child.id() as i32);
        drop(process);
        assert_eq!(kill(pid, None), Err(nix::Error::ESRCH));
    }
}
