//! Where the lines of `log::info!` and its kin go, in each role.
//!
//! PID 1 writes to the kernel's log: it is there before anything else, and the logger reads it from its
//! first record. The agent writes to the console and to the logger. Every other role writes lines with a
//! severity in front, `<4>text`, to its standard error, a pipe that the agent reads.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, TryLockError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc;

use crate::agent::channel::Channel;
use crate::agent::protocol;

/// The one logger of this process; its target changes as the process takes up its role.
static SINK: Sink = Sink(Mutex::new(Target::None));

/// Bytes that may wait for a stalled logger before records are dropped and counted: the logger's own
/// queue is the place to wait in.
const LOGGER_BACKLOG: usize = 1024 * 1024;

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
    logger: Logger,
}

enum Logger {
    /// Not started yet: what is said meanwhile.
    Early(Vec<protocol::Record>),
    Running {
        channel: Channel,
        dropped: u64,
        /// Of the last record.
        number: u64,
    },
    Gone,
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
    let outlets = Outlets { console: open_console().ok(), logger: Logger::Early(Vec::new()) };
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

/// Hands the agent's lines to a logger that has just started, those that waited for it first.
pub fn attach_logger(channel: Channel) {
    let mut target = SINK.target();
    if let Some(Target::Agent(outlets)) = target.as_deref_mut() {
        let before = std::mem::replace(&mut outlets.logger, Logger::Running { channel, dropped: 0, number: 0 });
        if let Logger::Early(records) = before {
            records.into_iter().for_each(|record| outlets.log(record));
        }
    }
}

/// Runs `act` on the channel to the logger, if one runs; an error of it is the end of that logger.
pub fn with_logger<T>(act: impl FnOnce(&mut Channel) -> io::Result<T>) -> Option<T> {
    let mut target = SINK.target();
    let Some(Target::Agent(outlets)) = target.as_deref_mut() else { return None };
    let Logger::Running { channel, .. } = &mut outlets.logger else { return None };
    let result = act(channel).ok();
    if result.is_none() {
        outlets.lose_logger();
    }
    result
}

/// Gives the channel to the logger away, if one runs: what is logged from now on is for the console alone.
pub fn detach_logger() -> Option<Channel> {
    let mut target = SINK.target();
    let Some(Target::Agent(outlets)) = target.as_deref_mut() else { return None };
    match std::mem::replace(&mut outlets.logger, Logger::Gone) {
        Logger::Running { channel, .. } => Some(channel),
        Logger::Early(_) | Logger::Gone => None,
    }
}

/// A line of a script, a payload or a role: to the logger, and to the console if `show`.
pub fn forward(record: protocol::Record, show: bool) {
    let mut target = SINK.target();
    if let Some(Target::Agent(outlets)) = target.as_deref_mut() {
        if show {
            outlets.show(&format!("{}: {}", record.tag, record.text));
        }
        outlets.log(record);
    }
}

impl Outlets {
    fn log(&mut self, record: protocol::Record) {
        if self.logger.send(record).is_err() {
            self.lose_logger();
        }
    }

    fn lose_logger(&mut self) {
        self.logger = Logger::Gone;
        self.show("ctxinit: the logger is gone: from here on nothing is forwarded");
    }

    fn show(&mut self, line: &str) {
        if let Some(console) = &mut self.console {
            // Carriage return: the console is a raw terminal line.
            let _ = console.write(format!("{}\r\n", crate::text::printable(line)).as_bytes());
        }
    }
}

impl Logger {
    fn send(&mut self, record: protocol::Record) -> io::Result<()> {
        match self {
            Self::Early(records) => records.push(record),
            Self::Running { channel, dropped, number } => {
                // An audit record is not lost because a payload talks: there are few of them, and small ones.
                let room = if record.msgid.is_some() { 2 * LOGGER_BACKLOG } else { LOGGER_BACKLOG };
                if channel.backlog() > room {
                    *dropped += 1;
                    return Ok(());
                }
                if *dropped > 0 {
                    let text = format!("{dropped} lines dropped between agent and logger");
                    *dropped = 0;
                    let note = protocol::Record::now(4, "ctxinit", text);
                    *number += 1;
                    channel.send(&protocol::ToLogger::Record { number: *number, record: note }, &[])?;
                }
                *number += 1;
                channel.send(&protocol::ToLogger::Record { number: *number, record }, &[])?;
            }
            Self::Gone => {}
        }
        Ok(())
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
                outlets.log(protocol::Record { pid, ..protocol::Record::now(severity, "ctxinit", text) });
            }
            Some(Target::Role) => drop(io::stderr().write(format!("<{severity}>{text}\n").as_bytes())),
        }
    }

    fn flush(&self) {}
}
