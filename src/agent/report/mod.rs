//! The report: what happened in this boot, as JSON in `/run/ctxinit/report.json`.

mod disk;
mod medium;
mod phase;
#[cfg(test)]
mod schema;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

pub use self::disk::{DiskState, UserDiskReport};
pub use self::medium::{MediumReport, MediumState};
pub use self::phase::{ALWAYS, Details, PhaseReport, ScriptReport, Spent};
use crate::clock::Deadline;
use crate::devices::entries;
use crate::guard::device::ImageDevice;
use crate::guard::policy::OnViolation;
use crate::image::policy::Identity;
use crate::payload::outcome::Usage;
use crate::payload::reason::Coded;
use crate::protocol::Fate;
use crate::verdict::Verdict;

/// Where it lies in the running machine.
pub const PATH: &str = "/run/ctxinit/report.json";
/// Tokens that the report names one by one; the log names them all.
pub const TOKENS: usize = 500;
/// The virtio-serial port that a host may give to a machine to have the report at the end.
const PORT: &str = "ctxinit.report";
/// A host that does not read keeps nobody longer than this.
pub const PORT_LIMIT: Duration = Duration::from_secs(2);

/// The whole report. Fields are added as they become known, and never change their meaning.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// Of the program.
    pub ctxinit: &'static str,
    /// Kernel's boot id.
    pub boot_id: String,
    /// Who the image is.
    pub image: Option<Identity>,
    /// The machine's name.
    pub hostname: Option<String>,
    /// The context CD, or why there is none; known when it was looked for.
    pub medium: Option<MediumReport>,
    /// In the order in which they ran.
    pub phases: Vec<PhaseReport>,
    /// The user's disk, or why there is none; known when it was looked for.
    pub user_disk: Option<UserDiskReport>,
    /// In the order in which they were settled; the first [`TOKENS`] of them.
    pub tokens: Vec<TokenReport>,
    /// How many came after these.
    pub more_tokens: u64,
    /// What contextualisation changed in all, known at the end; none where the initramfs is the image.
    pub guard: Option<GuardReport>,
    /// Whether the image is what it was, known at the end.
    pub image_device: Option<ImageDevice>,
    /// What became of the log so far; known once there is one.
    pub log: Option<LogReport>,
    /// Why the machine ended, known at the end.
    pub verdict: Option<Verdict>,
}

/// One token.
#[derive(Clone, Debug, Serialize)]
pub struct TokenReport {
    /// The pool's number for it.
    pub id: String,
    /// The job that worked on it.
    pub job: Option<String>,
    /// Milliseconds from the kernel's start to the claim.
    pub start_ms: u64,
    /// Milliseconds of the payload.
    pub millis: u64,
    /// How the payload ended.
    pub end: String,
    /// The same by number.
    pub reason: Coded,
    /// What became of the token.
    pub fate: Fate,
    /// The worker's word on that.
    pub note: String,
    /// Bytes of the result.
    pub result_bytes: u64,
    /// What the job used.
    pub usage: Usage,
    /// Processes that its first one left behind, and that were killed.
    pub left_behind: usize,
    /// Its last lines of output.
    pub tail: Vec<String>,
}

/// What contextualisation changed in all. Each change stands with its phase.
#[derive(Clone, Debug, Serialize)]
pub struct GuardReport {
    /// What becomes of a violation.
    pub on_violation: OnViolation,
    /// Files that are not as the image has them when the machine ends; they lie in memory and go with it.
    pub files_changed: u64,
    /// Changes that were not allowed, of files and of mounts, during the whole boot.
    pub violations: u64,
    /// How many of these were put back.
    pub reverted: u64,
    /// Whether the system part was read-only from the epilog on.
    pub sealed: bool,
    /// Whether every look at the changes came to its end. If not, there may be more of everything above.
    pub complete: bool,
    /// All of this in words.
    pub note: String,
}

/// What became of the log.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LogReport {
    /// Whether a server takes records, or did when the end came.
    pub reached: bool,
    /// Records that a server's kernel has acknowledged.
    pub delivered: u64,
    /// Records that nobody received: the next two.
    pub undelivered: u64,
    /// Records that wait for a server, or did so when the machine ended.
    pub waiting: u64,
    /// Records that there was no room for.
    pub dropped: u64,
    /// Loggers that died, each followed by another.
    pub restarts: u64,
    /// Records that wait on the spool for the next machine that has it, known at the end; none where there is no spool.
    pub spooled: Option<u64>,
}

impl Report {
    /// An empty one.
    pub fn new() -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            version: 1,
            ctxinit: env!("CARGO_PKG_VERSION"),
            boot_id: boot_id.trim_end().to_owned(),
            image: None,
            hostname: None,
            medium: None,
            phases: Vec::new(),
            user_disk: None,
            tokens: Vec::new(),
            more_tokens: 0,
            guard: None,
            image_device: None,
            log: None,
            verdict: None,
        }
    }

    /// Whether the site has given a context.
    pub fn has_context(&self) -> bool {
        self.medium.as_ref().is_some_and(|medium| medium.state == MediumState::Found)
    }

    /// Adds a token, or counts it: the report is kept in memory and written anew after each.
    pub fn add_token(&mut self, token: TokenReport) {
        if self.tokens.len() < TOKENS {
            self.tokens.push(token);
        } else {
            self.more_tokens += 1;
        }
    }

    /// Writes it where `ctxinit status` reads it; a reader sees the old or the new one, never a part.
    pub fn save(&self) {
        let temporary = format!("{PATH}.new");
        let saved =
            self.json().and_then(|json| fs::write(&temporary, json)).and_then(|()| fs::rename(&temporary, PATH));
        if let Err(error) = saved {
            log::warn!("{PATH}: {error}");
        }
    }

    /// As it is written everywhere.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn json(&self) -> io::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Writes it to the host's port, if the machine has it.
    pub fn send_to_host(&self) {
        let Some(node) = port() else { return };
        if let Err(error) = self.json().and_then(|json| write_bounded(&node, &json)) {
            log::warn!("{node}: {error}");
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds since the kernel's start, pauses of the machine not counted.
pub fn now_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1000 + time.tv_nsec() as u64 / 1_000_000)
}

/// Without udev there are no links by name; the kernel tells the name in sysfs.
fn port() -> Option<String> {
    let named = |path: &String| fs::read_to_string(format!("{path}/name")).is_ok_and(|name| name.trim_end() == PORT);
    let path = entries("/sys/class/virtio-ports").into_iter().find(named)?;
    Some(format!("/dev/{}", path.rsplit('/').next()?))
}

fn write_bounded(node: &str, mut bytes: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(node)?;
    let deadline = Deadline::after(PORT_LIMIT);
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock && !deadline.passed() => {
                poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], deadline.poll_timeout())?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
