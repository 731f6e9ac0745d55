//! Inside the machine: this program as a payload.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::case::marker;
use crate::{cases, probe, services};

/// Where this program lies in an image.
pub const IN_IMAGE: &str = "usr/bin/vm-tests";
/// The word behind the program's name that makes it a payload.
pub const ARGUMENT: &str = "guest";
/// The word behind that for a process that a payload leaves behind.
const DAEMON: &str = "daemon";
/// A daemon says so on its standard output, which is the payload's.
pub const DAEMON_RUNS: &str = "the daemon runs";

/// What a guest half that saw something wrong says before that.
pub const COMPLAINT: &str = "guest half: ";

/// The guest half of a case. An error fails the case; what it wants as its exit status comes after its marker.
pub type Guest = fn(&Job) -> Result<ExitCode, String>;

/// What the payload is told.
pub struct Job {
    /// The token's text behind the name of the case.
    pub words: Vec<String>,
    /// Where the result goes.
    pub result: String,
}

/// Runs the guest half of the case whose name the token begins with.
pub fn main(words: &[String]) -> ExitCode {
    match words.first().map(String::as_str) {
        Some(DAEMON) => return daemon(),
        Some(cases::hepix::COMPARE) => return cases::hepix::compare(),
        Some(cases::fork_bomb::IDLER) => return cases::fork_bomb::idle(),
        Some(cases::fork_bomb::ASKER) => return cases::fork_bomb::ask(),
        Some(cases::fork_bomb::WATCHER) => return cases::fork_bomb::watch(),
        Some(probe::unclean::SWAP) => return probe::unclean::swap(),
        Some(probe::unclean::SPOILED) => return probe::unclean::spoiled(words.get(1..).unwrap_or_default()),
        Some(probe::HELPER) => return probe::help(),
        Some(probe::JUDGED) => return probe::judged(words.get(1..).unwrap_or_default()),
        _ => {}
    }
    if let Some(ended) = services::main(words) {
        return ended;
    }
    match run() {
        Ok((name, status)) => {
            println!("{}", marker(&name));
            status
        }
        Err(why) => {
            println!("{COMPLAINT}{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(String, ExitCode), String> {
    let variable = |name| env::var(name).map_err(|_| format!("no variable {name}"));
    let token = read(&variable("TOKEN_FILE")?)?;
    let mut words = token.split_whitespace().map(str::to_owned);
    let name = words.next().unwrap_or_default();
    let case = cases::ALL.iter().find(|case| case.name == name).ok_or_else(|| format!("no case {name:?}"))?;
    let guest = case.guest.ok_or_else(|| format!("case {name} has no payload"))?;
    let job = Job { words: words.collect(), result: variable("RESULT_FILE")? };
    Ok((name, guest(&job)?))
}

/// Reads a file; the error names it.
pub fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// The fields of `/proc/self/status`.
pub fn status() -> Result<HashMap<String, String>, String> {
    let text = read("/proc/self/status")?;
    let field = |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
    Ok(text.lines().filter_map(field).collect())
}

/// Numbers of all processes of users that are nobody's account: payloads of this job and of others.
pub fn payload_processes() -> Result<Vec<u32>, String> {
    let entries = fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?;
    let entries = entries.flatten().filter(|entry| entry.metadata().is_ok_and(|of| of.uid() >= PAYLOAD_USERS.start));
    Ok(entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect())
}

/// As `ctxinit::ids` has them. Said again here: a test that takes the number from where it is tested proves less.
pub const PAYLOAD_USERS: std::ops::Range<u32> = 66_000..100_000;

/// Starts a process that nothing but SIGKILL ends, and returns when it has become one and has spoken.
pub fn leave_daemon() -> io::Result<()> {
    let mut daemon = Command::new(env::current_exe()?).args([ARGUMENT, DAEMON]).stderr(Stdio::piped()).spawn()?;
    daemon.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut [0])
}

fn daemon() -> ExitCode {
    // Blocked for good is as deaf as ignored, and needs no handler.
    let deaf = SigSet::all().thread_block();
    if deaf.is_err() || nix::unistd::setsid().is_err() {
        return ExitCode::FAILURE;
    }
    println!("{DAEMON_RUNS}");
    // To whoever started it.
    eprintln!();
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
