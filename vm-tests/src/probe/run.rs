//! One attempt after the other, each in a child of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::raw;
use super::verdict::Line;
use super::{Attempt, Breach, Denied, LIMIT, Needs, Scene, Tried, all, leftovers};
use crate::guest::Job;

/// As the guest half of a case: `LABEL WHICH key=value...`.
pub fn payload(job: &Job) -> Result<ExitCode, String> {
    let [label, which, told @ ..] = job.words.as_slice() else {
        return Err(format!("expected a label and what to try, got {:?}", job.words));
    };
    let lines = run(label, which, told)?;
    // Where the standard output leads nowhere, the result still comes home.
    std::fs::write(&job.result, lines.join("\n")).map_err(|error| format!("{}: {error}", job.result))?;
    Ok(ExitCode::SUCCESS)
}

/// As a program of its own, under whatever shuts it in.
pub fn judged(words: &[String]) -> ExitCode {
    let label = words.first().map_or("judge", String::as_str);
    let told = run(label, "judge", &[]);
    if let Err(why) = told {
        println!("probe: {why}");
        return ExitCode::FAILURE;
    }
    println!("probe: {label} is through");
    ExitCode::SUCCESS
}

/// Tries what is asked for: `all`, `judge`, `leave`, `found`, or names of attempts with commas between.
fn run(label: &str, which: &str, told: &[String]) -> Result<Vec<String>, String> {
    let scene = Scene::new(told)?;
    if which == "leave" {
        leftovers::leave(&scene);
        return Ok(Vec::new());
    }
    let wanted = |attempt: &&Attempt| match which {
        "all" => !matches!(attempt.needs, Needs::Job | Needs::Left | Needs::Alone),
        "judge" => attempt.needs == Needs::Nothing,
        "found" => attempt.needs == Needs::Left,
        names => names.split(',').any(|name| name == attempt.name),
    };
    let lines = all().filter(wanted).map(|attempt| {
        let line = Line::new(label, attempt.name, &try_one(attempt, &scene)).to_string();
        println!("{line}");
        line
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { Err(format!("nothing is called {which}")) } else { Ok(lines) }
}

/// In a child, whose death is an answer as well.
fn try_one(attempt: &Attempt, scene: &Scene) -> Tried {
    // A child that attacks its own standard output must not spoil the log: it answers on a pipe.
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let child = raw::fork(|| {
        let line = Line::new("-", attempt.name, &(attempt.make)(scene));
        u8::from(File::from(writer).write_all(line.to_string().as_bytes()).is_err())
    })?;
    let status = wait(child, LIMIT);
    // The attempt's own children may hold the other end of the pipe.
    let mut answer = vec![0; 4096];
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    let length = File::from(reader).read(&mut answer).unwrap_or(0);
    let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    match (Line::parse(&answer), status) {
        (Some(line), _) => match line.how {
            super::verdict::How::Succeeded => Ok(Breach::Escaped(line.detail)),
            super::verdict::How::Seen => Ok(Breach::Seen(line.detail)),
            super::verdict::How::Denied => Err(Denied::Said(line.detail)),
        },
        (None, Some(WaitStatus::Signaled(_, signal, _))) => Err(Denied::Said(format!("killed by {signal}"))),
        (None, None) => Err(Denied::Said(format!("nothing came of it in {} s", LIMIT.as_secs()))),
        (None, Some(status)) => Err(Denied::Said(format!("no answer: {status:?}"))),
    }
}

/// Waits for a child; one that does not end is killed, and counts as `None`.
pub fn wait(child: nix::unistd::Pid, limit: Duration) -> Option<WaitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::from_bits_truncate(libc::__WALL))) {
            Ok(WaitStatus::StillAlive) if Instant::now() > deadline => {
                let _ = kill(child, Signal::SIGKILL);
                let _ = waitpid(child, None);
                return None;
            }
            Ok(WaitStatus::StillAlive) => sleep(Duration::from_millis(2)),
            Err(Errno::EINTR) => {}
            Ok(status) => return Some(status),
            Err(_) => return None,
        }
    }
}
