//! Where the lines of `log::info!` and its kin go, in each role.
//!
//! PID 1 writes to the kernel's log: it is there before anything else, and the logger reads it from its
//! first record. The agent writes to the console and to the logger. Every other role writes lines with a
//! severity in front, `<4>text`, to its standard error, a pipe that the agent reads.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, TryLockError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc;

use crate::agent::logger::Feed;
use crate::protocol;

/// The one logger of this process; its target changes as the process takes up its role.
static SINK: Sink = Sink(Mutex::new(Target::None));

/// Bytes of the console's lines that are kept for the site: some hundred of them, the reason of an end among the last.
const RECENT: usize = 64 * 1024;

struct Sink(Mutex<Target>);

enum Target {
    None,
    Kernel(File),
    Agent(Outlets),
    Role,
}

/// The agent's two ways out.
struct Outlets {
    console: Option<File>,
    /// What was shown there last, [`RECENT`] bytes at most.
    recent: VecDeque<u8>,
    feed: Feed,
}

impl Sink {
    /// Roles have one thread, so the lock is taken only if that thread panics while it logs: then it must not wait
    /// for itself.
    fn target(&self) -> Option<MutexGuard<'_, Target>> {
        match self.0.try_lock() {
            Ok(target) => Some(target),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn set(&'static self, target: Target, level: LevelFilter) {
        if let Some(mut slot) = self.target() {
            *slot = target;
        }
        // Fails when a forked role sets it again; the logger is the same one.
        let _ = log::set_logger(self);
        log::set_max_level(level);
    }
}

/// PID 1: lines go to the kernel's log.
pub fn to_kernel() {
    if let Ok(kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        SINK.set(Target::Kernel(kmsg), LevelFilter::Info);
    }
}

/// The agent: lines go to the console and, once it runs, to the logger.
pub fn to_console_and_logger() {
    let outlets = Outlets { console: open_console().ok(), recent: VecDeque::new(), feed: Feed::default() };
    SINK.set(Target::Agent(outlets), LevelFilter::Info);
}

/// A role below the agent: lines go to standard error, which the agent reads.
pub fn to_agent() {
    SINK.set(Target::Role, LevelFilter::Info);
}

/// The console, for whole lines that may be lost but never block: flow control or an unplugged port
/// would otherwise hold the writer for ever (systemd #30420).
///
/// # Errors
/// Those of open(2): there are machines without a console.
pub fn open_console() -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/dev/console")
}

/// The lines that the agent's console showed last; empty in every other process.
pub fn recent() -> String {
    match SINK.target().as_deref_mut() {
        Some(Target::Agent(outlets)) => String::from_utf8_lossy(outlets.recent.make_contiguous()).into_owned(),
        _ => String::new(),
    }
}

/// Runs `act` on the agent's records for the logger; `None` in every other process. It must not log.
pub fn with_feed<T>(act: impl FnOnce(&mut Feed) -> T) -> Option<T> {
    match SINK.target().as_deref_mut() {
        Some(Target::Agent(outlets)) => Some(act(&mut outlets.feed)),
        _ => None,
    }
}

/// A line of a script, a payload or a role: to the logger, and to the console if `show`.
pub fn forward(record: protocol::Record, show: bool) {
    let mut target = SINK.target();
    if let Some(Target::Agent(outlets)) = target.as_deref_mut() {
        if show {
            outlets.show(&format!("{}: {}", record.tag, record.text));
        }
        outlets.feed.push(record);
    }
}

impl Outlets {
    fn show(&mut self, line: &str) {
        let line = crate::text::printable(line);
        self.recent.extend(line.bytes().chain([b'\n']));
        let excess = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..excess);
        if let Some(console) = &mut self.console {
            // Carriage return: the console is a raw terminal line.
            let _ = console.write(format!("{line}\r\n").as_bytes());
        }
    }
}

/// RFC 5424 severity of a log level.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries' own chatter (ureq, rustls) is nobody's business at a site.
        metadata.target().starts_with("ctxinit")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let severity = severity(record.level());
        let text = record.args().to_string().replace('\n', " ");
        let mut target = self.target();
        match target.as_deref_mut() {
            None | Some(Target::None) => {}
            Some(Target::Kernel(kmsg)) => drop(kmsg.write(format!("<{severity}>ctxinit: {text}").as_bytes())),
            Some(Target::Agent(outlets)) => {
                outlets.show(&format!("ctxinit: {text}"));
                let pid = Some(std::process::id());
                outlets.feed.push(protocol::Record { pid, ..protocol::Record::now(severity, "ctxinit", text) });
            }
            Some(Target::Role) => drop(io::stderr().write(format!("<{severity}>{text}\n").as_bytes())),
        }
    }

    fn flush(&self) {}
}
