//! Runs cases, two at a time, and tells how they went.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::case::Case;
use crate::guest::COMPLAINT;
use crate::process::{self, interrupted};
use crate::stage::{CTXTOOL, PLACE, Stage};

const MUSL: &str = "x86_64-unknown-linux-musl";
const GNU: &str = "x86_64-unknown-linux-gnu";
/// Lines of the console that are shown of a failed case.
const TAIL: usize = 20;

/// Runs the cases.
pub fn run(cases: &[&'static Case], jobs: usize) -> ExitCode {
    let guest = match prepare() {
        Ok(guest) => guest,
        Err(why) => {
            eprintln!("vm-tests: {why}");
            return ExitCode::FAILURE;
        }
    };
    let queue: Mutex<VecDeque<_>> = Mutex::new(cases.iter().copied().collect());
    let passed = AtomicUsize::new(0);
    let next = || queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = next().filter(|_| !interrupted()) {
                    passed.fetch_add(usize::from(one(case, &guest)), Ordering::Relaxed);
                }
            });
        }
    });
    let passed = passed.into_inner();
    println!("{passed} of {} cases passed", cases.len());
    if passed == cases.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// From anywhere in the project to its root, and the guest's program.
fn prepare() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    env::set_current_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    for made in ["target/ctxinit", CTXTOOL] {
        if !Path::new(made).exists() {
            return Err(format!("{made} is not there; scripts/build makes it"));
        }
    }
    process::catch_signals()?;
    build_guest()
}

/// This program again, static, for the inside: for the same target as scripts/build takes.
fn build_guest() -> Result<PathBuf, String> {
    let target = guest_target()?;
    let mut command = Command::new(cargo());
    command
        .args(["build", "--quiet", "--package", "vm-tests", "--no-default-features", "--target", target])
        .args(["--config", "profile.dev.strip=true"])
        .envs([STATIC]);
    process::make(&mut command, Duration::from_secs(600))?;
    Ok(Path::new("target").join(target).join("debug/vm-tests"))
}

/// For a program without musl.
pub const STATIC: (&str, &str) = ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");

/// The one that runs us.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// What programs of the guest are built for, as scripts/build chooses it.
pub fn guest_target() -> Result<&'static str, String> {
    let mut rustc = Command::new("rustc");
    let sysroot = rustc.args(["--print", "sysroot"]).output().map_err(|error| format!("rustc: {error}"))?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim_end().to_owned();
    Ok(if Path::new(&sysroot).join("lib/rustlib").join(MUSL).exists() { MUSL } else { GNU })
}

/// One case; true if it passed. Only what is needed to look into a failure is kept.
fn one(case: &'static Case, guest: &Path) -> bool {
    let begun = Instant::now();
    let stage = match Stage::new(case, guest) {
        Ok(stage) => stage,
        Err(why) => {
            println!("{}: {why}", case.name);
            return false;
        }
    };
    let result = (case.host)(&stage);
    let seconds = begun.elapsed().as_secs_f64();
    let Err(why) = result else {
        println!("{:24} {}     {seconds:6.1} s", case.name, paint("32", "ok"));
        let _ = fs::remove_dir_all(&stage.dir);
        return true;
    };
    // A payload's words stand in the log only.
    let log = fs::read_to_string(stage.dir.join("syslog.log")).unwrap_or_default();
    let complaint = |line: &str| Some(format!("\n{COMPLAINT}{}", line.split_once(COMPLAINT)?.1));
    let why = why + &log.lines().filter_map(complaint).collect::<String>();
    let console = stage.console.all();
    let shown = console.iter().skip(console.len().saturating_sub(TAIL));
    let lines: String = shown.map(|line| format!("    | {line}\n")).collect();
    // One print, so that two cases that fail together do not mix their lines.
    println!(
        "{:24} {} {seconds:6.1} s\n    {}\n{lines}    kept: {PLACE}/{}/console.log",
        case.name,
        paint("31;1", "FAILED"),
        why.replace('\n', "\n    "),
        case.name
    );
    false
}

fn paint(colour: &str, word: &str) -> String {
    if io::stdout().is_terminal() { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
}
