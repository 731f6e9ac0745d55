//! The same program, started in several ways.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use ctxinit::ban::owner::Owner;
use ctxinit::cgroup::{Cgroup, populated};
use ctxinit::image::payload::Payload;
use ctxinit::launch::{self, Program};
use ctxinit::payload::Job;
use ctxinit::payload::error::JobError;
use ctxinit::payload::given::Given;
use ctxinit::payload::view::Shared;
use ctxinit::protocol::Token;
use ctxinit::starting::{self, StageError};
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{dup2_stderr, dup2_stdout};

use super::now;

/// Numbers that no job of the machine gets in its life.
const FIRST_JOB: u32 = 20_000;
/// Everything of its own, nothing writable, no capability, no environment, a session of its own; it ends with its parent.
const BWRAP: &str = "/usr/bin/bwrap --unshare-all --die-with-parent --new-session --cap-drop ALL --clearenv \
    --uid 66000 --gid 66000 --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run --tmpfs /dev/shm \
    --tmpfs /var/tmp --chdir / --";

/// One way: nanoseconds from the wish to the program.
type Way<'a> = (&'static str, Box<dyn Fn(u32) -> Result<i64, String> + 'a>);

/// Runs each way so many times, in turn, and prints their figures. `program` is this one, `token` a job's.
pub fn run(program: &str, rounds: u32, token: &[u8]) -> Result<(), String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let plain = words(&format!("{program} first"));
    let bwrap = words(&format!("{BWRAP} {program} first"));
    // Fewer files than usual: a container's root may not raise that limit.
    let text = format!(r#"{{"command": ["{program}", "first"], "cpu_percent": 200, "open_files": 1024}}"#);
    let policy: Payload = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    // What all jobs share; the agent makes it once.
    let _shared = Shared::make(&policy).map_err(|error| error.to_string())?;
    let mut ways: Vec<Way<'_>> = vec![("fork and exec", Box::new(|_| by_exec(&plain)))];
    ways.push(("a job of ctxinit", Box::new(|number| by_job(&policy, number, token))));
    if Path::new("/usr/bin/bwrap").exists() {
        ways.push(("bwrap", Box::new(|_| by_exec(&bwrap))));
    }
    let mut times = vec![Vec::new(); ways.len()];
    // The first of each reads its files.
    for round in 0..=rounds {
        for ((name, way), times) in ways.iter().zip(&mut times) {
            let took = way(round).map_err(|why| format!("{name}: {why}"))?;
            if round > 0 {
                times.push(took / 1000);
            }
        }
    }
    for ((name, _), mut times) in ways.iter().zip(times) {
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() - 1) * percent / 100).copied().unwrap_or(0);
        println!("race;{name};{};{};{};{}", times.len(), at(5), at(50), at(95));
    }
    Ok(())
}

fn by_exec(words: &[String]) -> Result<i64, String> {
    let begun = now();
    let (output, writer) = launch::output_pipe().map_err(|errno| errno.to_string())?;
    let child = starting::spawn(|| -> Result<Infallible, StageError> {
        dup2_stdout(&writer).and_then(|()| dup2_stderr(&writer)).map_err(StageError::at("output"))?;
        launch::exec(&Program { dir: "/", words, environment: &[] })
    });
    let child = child.map_err(|error| error.to_string())?;
    drop(writer);
    let took = told(output).map(|then| then - begun);
    child.wait().map_err(|error| error.to_string())?;
    took
}

/// As the agent does it, from the claimed token to the program.
fn by_job(policy: &Payload, number: u32, body: &[u8]) -> Result<i64, String> {
    let token = Token { id: "1".to_owned(), leases: Some(1), media_type: None, owner: Owner::Unknown, pilot: false };
    let begun = now();
    let said = |error: JobError| error.to_string();
    let (mut job, output) =
        Job::begin(policy, &Given::default(), None, FIRST_JOB + number, &token, body).map_err(said)?;
    let took = job.started().map_err(said).and_then(|()| told(output)).map(|then| then - begun);
    let empty = end(&job.cgroup);
    job.keeper().wait().map_err(|error| error.to_string())?;
    empty.and_then(|()| job.remove().map_err(said)).and(took)
}

/// Kills who is in it, and waits for the last of them.
pub fn end(cgroup: &Cgroup) -> Result<(), String> {
    cgroup.kill().map_err(|error| error.to_string())?;
    let events = cgroup.events().map_err(|error| error.to_string())?;
    while populated(&events) {
        poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], 100_u16).map_err(|errno| errno.to_string())?;
    }
    Ok(())
}

/// What the program says: when it began.
fn told(mut output: File) -> Result<i64, String> {
    let mut text = String::new();
    let mut bytes = [0; 256];
    loop {
        poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], 10_000_u16).map_err(|errno| errno.to_string())?;
        match output.read(&mut bytes).map_err(|error| error.to_string())? {
            0 => return Err(format!("the program says {text:?}")),
            count => text += &String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()),
        }
        if let Some(line) = text.strip_suffix('\n') {
            return line.parse().map_err(|_| format!("the program says {line:?}"));
        }
    }
}
