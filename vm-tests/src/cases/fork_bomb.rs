//! A payload makes 400 processes, each in a session of its own, deaf to every signal and never idle: the machine
//! answers while they run, all are gone soon after the job's end, and the next token runs clean.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use nix::unistd::{pipe, read, setsid, write};
use serde_json::json;

use crate::case::Case;
use crate::guest::{ARGUMENT, IN_IMAGE, Job, payload_processes};
use crate::http;
use crate::probe::raw;
use crate::site::{Site, WORK};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case { deadline: 240, ..Case::new("fork-bomb", host).with_payload(guest) };

/// The words behind `guest` for root's processes that look on; the first is done before there is a job.
pub const IDLER: &str = "fork-bomb-idler";
pub const ASKER: &str = "fork-bomb-asker";
pub const WATCHER: &str = "fork-bomb-watcher";

const CHILDREN: usize = 400;
const PIDS: u64 = 500;
const WALL_SECS: u64 = 25;
/// From the first process that is gone to the last.
const GONE: Duration = Duration::from_secs(5);
/// The usual call of `ctxinit status`, by the machine's own clock. The usual one: on a host that is shared, an emulated
/// processor may stand still for a second by itself.
const ANSWER: Duration = Duration::from_secs(1);
/// The usual call where nothing else runs, on a host for which these figures are. On one that emulates more slowly, all
/// that is measured here takes that much longer.
const IDLE: Duration = Duration::from_millis(100);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["fork-bomb stays", "fork-bomb clean", "fork-bomb exits", "fork-bomb clean"])?;
    let epilog = format!(
        "[ \"$1\" = start ] || exit 0\n\
         /{IN_IMAGE} {ARGUMENT} {IDLER}\n\
         /{IN_IMAGE} {ARGUMENT} {ASKER} &\n\
         /{IN_IMAGE} {ARGUMENT} {WATCHER} &\n"
    );
    let cd = stage.cd(&[("context.json", &site.context()), ("epilog.sh", &epilog)])?;
    let mut policy = policy();
    for (key, value) in [("pids", PIDS), ("wall_secs", WALL_SECS), ("grace_secs", 2), ("memory_mb", 200)] {
        policy["payload"][key] = json!(value);
    }
    let machine = stage.tiny(&policy)?.cd(&cd).boot()?;
    // Its token would come again, as of any job that failed.
    machine.wait_console("token 1 is free again")?;
    http::ask(site.port, "DELETE", &format!("/4.1/pools/{WORK}/tokens/1"), "", "")?;
    let ended = machine.end()?;
    // A machine with somebody left would have taken no more work.
    ended.expect_end("200 3 of 4 tokens completed")?;
    ended.expect_report("/tokens/0/end", format!("stopped after {WALL_SECS} s"))?;
    ended.expect_report("/tokens/2/end", "exit 0")?;
    ended.expect_report("/tokens/2/left_behind", CHILDREN)?;

    let said: Vec<String> =
        site.syslog.records().into_iter().filter(|record| record.app == "epilog").map(|record| record.text).collect();
    let numbers = |before: &str| -> Vec<u64> {
        let number = |line: &String| line.strip_prefix(before)?.split(' ').next()?.parse().ok();
        said.iter().filter_map(number).collect()
    };
    let (answers, idle, gone) =
        (numbers("answered after "), numbers("idle: answered after "), numbers("all gone after "));
    if let Some(line) = said.iter().find(|line| line.starts_with("no answer")) {
        return Err(format!("expected an answer of ctxinit status to each call, got {line:?}"));
    }
    println!(
        "fork-bomb: ctxinit status answered after {answers:?} ms, idle {idle:?} ms, all were gone after {gone:?} ms"
    );
    let usual_idle = usual(&idle).ok_or("expected answers before the first job")?;
    let slower = (usual_idle as f64 / IDLE.as_millis() as f64).max(1.0);
    let usual: Vec<u64> = usual(&answers).into_iter().collect();
    within("the usual answer of ctxinit status", &usual, 1, ANSWER.mul_f64(slower))?;
    within("the end of all processes", &gone, 2, GONE.mul_f64(slower))
}

fn usual(found: &[u64]) -> Option<u64> {
    let mut sorted = found.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn within(what: &str, found: &[u64], least: usize, limit: Duration) -> Result<(), String> {
    if found.len() >= least && found.iter().all(|&millis| u128::from(millis) <= limit.as_millis()) {
        return Ok(());
    }
    Err(format!("expected {what} {least} times at least, within {limit:?} each; after ms: {found:?}"))
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    let before = payload_processes()?.len();
    // Itself.
    if before > 1 {
        return Err(format!("{} processes of other payloads are there", before - 1));
    }
    let word = job.words.first().map(String::as_str).unwrap_or_default();
    if word == "clean" {
        return Ok(ExitCode::SUCCESS);
    }
    bomb().map_err(|errno| format!("bomb: {errno}"))?;
    // Long enough to be asked about.
    sleep(Duration::from_secs(if word == "stays" { 3600 } else { 10 }));
    Ok(ExitCode::SUCCESS)
}

/// All are made before the first one begins to spin: a parent that shares the processor with 400 would take minutes.
fn bomb() -> nix::Result<()> {
    let (ready, tell) = pipe()?;
    let (gate, open) = pipe()?;
    for number in 0..CHILDREN {
        raw::fork(|| u8::from(deaf().and_then(|()| write(&tell, b"x")).and_then(|_| spin(&gate)).is_err()))?;
        if read(&ready, &mut [0])? != 1 {
            println!("child {number} did not come");
        }
    }
    drop(gate);
    write(&open, &[0; CHILDREN]).map(drop)
}

fn deaf() -> nix::Result<()> {
    setsid()?;
    raw::ignore_term()?;
    SigSet::all().thread_block()
}

fn spin(gate: &impl std::os::fd::AsFd) -> nix::Result<()> {
    read(gate, &mut [0])?;
    loop {
        std::hint::spin_loop();
    }
}

/// As root: asks a few times.
pub fn idle() -> ExitCode {
    for _ in 0..5 {
        println!("idle: {}", status());
    }
    ExitCode::SUCCESS
}

/// As whoever looks at the machine asks.
fn status() -> String {
    let begun = Instant::now();
    let answer = Command::new("/init").arg("status").stdin(Stdio::null()).output();
    let millis = begun.elapsed().as_millis();
    match answer {
        Ok(answer) if !answer.stdout.is_empty() => format!("answered after {millis} ms"),
        other => format!("no answer after {millis} ms: {other:?}"),
    }
}

/// As root: asks as long as the machine lives.
pub fn ask() -> ExitCode {
    loop {
        let answer = status();
        let living = living().unwrap_or(0);
        if living >= CHILDREN {
            println!("{answer}, {living} processes");
        }
        sleep(Duration::from_millis(500));
    }
}

/// As root: takes the time from the first that is gone to the last.
pub fn watch() -> ExitCode {
    loop {
        while living().is_none_or(|living| living < CHILDREN) {
            sleep(LOOK);
        }
        while living().is_some_and(|living| living >= CHILDREN) {
            sleep(LOOK);
        }
        let begun = Instant::now();
        while populated() {
            sleep(LOOK);
        }
        println!("all gone after {} ms", begun.elapsed().as_millis());
    }
}

fn of_job(file: &str) -> Option<String> {
    let entries = fs::read_dir("/sys/fs/cgroup/ctxinit").ok()?.flatten();
    let mut jobs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("job-"));
    fs::read_to_string(jobs.next()?.path().join(file)).ok()
}

fn living() -> Option<usize> {
    of_job("pids.current")?.trim_end().parse().ok()
}

fn populated() -> bool {
    of_job("cgroup.events").is_some_and(|text| text.lines().any(|line| line == "populated 1"))
}
