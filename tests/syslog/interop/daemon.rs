//! A server's program, with a configuration of docs/examples.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::machine::PATIENCE;
use super::written::{self, Written};

/// Where the examples keep certificates, and where records.
const CERTIFICATES: &str = "/etc/grid-log";
const RECORDS: &str = "/var/log/grid";

/// One that runs; it ends with the test.
pub struct Daemon {
    child: Child,
    out: PathBuf,
}

/// An example whose files are in `dir`, with other words in the place of some.
pub fn configure(example: &str, dir: &Path, instead: &[(&str, &str)]) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples");
    let mut text = std::fs::read_to_string(examples.join(example)).unwrap();
    let here = dir.display().to_string();
    for (old, new) in [(RECORDS, here.as_str()), (CERTIFICATES, &here)].iter().chain(instead) {
        assert!(text.contains(old) || *old == CERTIFICATES, "{example} has no {old}");
        text = text.replace(old, new);
    }
    let path = dir.join(example);
    std::fs::write(&path, text).unwrap();
    path
}

impl Daemon {
    /// Starts it, and waits until it listens. `None`, with a word, on a machine that does not have it.
    pub fn start(command: &mut Command, protocol: &str, port: u16, dir: &Path) -> Option<Self> {
        let name = command.get_program().display().to_string();
        let child = match command.stdin(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                println!("skipped: {name} is not here; scripts/setup brings it");
                return None;
            }
            Err(error) => panic!("{name}: {error}"),
        };
        let daemon = Self { child, out: dir.join("vms.log") };
        wait_until(&name, || listens(protocol, port));
        Some(daemon)
    }

    /// Its file, once it has that many lines, and a moment later for any more.
    pub fn written(mut self, count: usize) -> Vec<Written> {
        let lines = || std::fs::read(&self.out).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        let deadline = Instant::now() + PATIENCE;
        while lines() < count && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        self.end();
        written::read(&self.out)
    }

    /// In order: what it has in its buffers is written.
    fn end(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come up");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether somebody has this port in the network of this thread, by the kernel's own list: a first connection of ours
/// would be one more for the server to write about.
fn listens(protocol: &str, port: u16) -> bool {
    let local = format!(": {:08X}:{port:04X} ", u32::from(Ipv4Addr::UNSPECIFIED));
    let list = std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).unwrap_or_default();
    list.lines().any(|line| line.contains(&local))
}
