//! Every way in which a program can bring about its end, in one boot: the report has the number of each, and what the
//! kernel counted. And a program that is not there, in another: not started, three times, and that is the machine's end.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::machine::Ended;
use crate::site::{RESULTS, Site};
use crate::stage::{Stage, policy};

pub const CASE: Case = Case { deadline: 300, ..Case::new("end-reasons", host).with_payload(guest) };
pub const NOT_STARTED: Case = Case::new("end-not-started", not_started);

/// Word of the token, what its job is said to have ended with, code and subcode.
type Way = (&'static str, &'static str, u64, Option<i32>);

/// Never three failures in a row: that would be the machine's end. It comes when the failed ones come again.
const WAYS: &[Way] = &[
    ("exit-3", "exit 3", 1, Some(3)),
    ("signal", "killed by SIGUSR1", 2, Some(libc::SIGUSR1)),
    ("well", "exit 0", 1, Some(0)),
    ("real-time-signal", "killed by signal 37", 2, Some(37)),
    ("abort", "killed by SIGABRT", 2, Some(libc::SIGABRT)),
    ("no-more-processes", "exit 0", 1, Some(0)),
    ("no-more-memory", "killed for lack of memory", 3, None),
    ("hang", "stopped after 20 s", 4, None),
    ("no-more-time", "exit 0", 1, Some(0)),
    ("result-is-a-link", "", 8, Some(libc::ELOOP)),
    ("result-is-a-pipe", "", 8, Some(libc::EINVAL)),
    ("no-more-room", "exit 0", 1, Some(0)),
    ("result-is-too-large", "", 8, Some(libc::EFBIG)),
];
const BALLAST: u64 = 1 << 20;
const TERM_HEARD: &str = "the grandchild was asked";

fn host(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    let tokens: Vec<String> = WAYS.iter().map(|(word, ..)| format!("{} {word}", stage.case.name)).collect();
    site.fill(&tokens.iter().map(String::as_str).collect::<Vec<_>>())?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let mut policy = policy();
    for (key, value) in
        [("memory_mb", 40), ("pids", 12), ("scratch_mb", 20), ("wall_secs", 20), ("grace_secs", 5), ("cpu_percent", 60)]
    {
        policy["payload"][key] = json!(value);
    }
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    for (at, way) in WAYS.iter().enumerate() {
        expect(&ended, at, way).map_err(|why| format!("{}: {why}", way.0))?;
    }
    ended.expect_end("700 3 jobs in a row failed, the last: killed by SIGUSR1")?;
    starts(&site, "job-1 ended: token 1, exit 3 (reason 1/3), ")?;
    starts(&site, "job-7 ended: token 7, killed for lack of memory (reason 3), ")?;
    // SIGTERM went to more than the first process, and before SIGKILL.
    site.expect_record("payload", TERM_HEARD)?;
    let results = site.tokens(RESULTS)?.len();
    if results == 4 { Ok(()) } else { Err(format!("expected 4 results, found {results}")) }
}

fn starts(site: &Site, start: &str) -> Result<(), String> {
    let found = site.syslog.records().iter().any(|record| record.app == "ctxinit" && record.text.starts_with(start));
    if found { Ok(()) } else { Err(format!("expected a record of ctxinit that starts with {start:?}, there is none")) }
}

fn expect(ended: &Ended, at: usize, &(word, end, code, subcode): &Way) -> Result<(), String> {
    let of = |field: &str| format!("/tokens/{at}/{field}");
    if !end.is_empty() {
        ended.expect_report(&of("end"), end)?;
    }
    ended.expect_report(&of("reason/code"), code)?;
    ended.expect_report(&of("reason/subcode"), subcode.map_or(Value::Null, Value::from))?;
    let at_least = |field: &str, least: u64| match ended.number(&of(field))? {
        found if found >= least => Ok(()),
        found => Err(format!("expected {field} of at least {least}, got {found}")),
    };
    // Whatever happens, there is processor time and memory; the kernel of the tests counts what goes to drives.
    for (field, least) in [("cpu_millis", 1), ("memory_kib", 100), ("disk_written_bytes", 0), ("throttled_millis", 0)] {
        at_least(&format!("usage/{field}"), least)?;
    }
    let parts = ended.number(&of("usage/cpu_user_millis"))? + ended.number(&of("usage/cpu_system_millis"))?;
    let whole = ended.number(&of("usage/cpu_millis"))?;
    // Each is rounded down.
    if !(parts..=parts + 1).contains(&whole) {
        return Err(format!("{whole} ms of processor time have parts of {parts} ms"));
    }
    match word {
        "well" => at_least("usage/scratch_bytes", BALLAST),
        "no-more-processes" => at_least("usage/pids_refused", 1),
        "no-more-memory" => at_least("usage/oom_kills", 1),
        "no-more-time" => at_least("usage/throttled_millis", 100),
        "no-more-room" => at_least("usage/scratch_bytes", 19 << 20),
        "hang" => at_least("millis", 20_000),
        _ => ended.expect_report(&of("usage/oom_kills"), 0),
    }
}

fn guest(job: &Job) -> Result<ExitCode, String> {
    let [word] = job.words.as_slice() else { return Err(format!("expected one word, got {:?}", job.words)) };
    let done = |what: std::io::Result<()>| what.map(|()| ExitCode::SUCCESS).map_err(|error| format!("{word}: {error}"));
    match word.as_str() {
        "exit-3" => Ok(ExitCode::from(3)),
        "well" => done(fs::write("ballast", vec![1; BALLAST as usize])),
        "signal" => raise(Signal::SIGUSR1).map(|()| ExitCode::SUCCESS).map_err(|errno| errno.to_string()),
        // nix has no name for it.
        "real-time-signal" => shell("kill -37 $PPID; sleep 100"),
        "abort" => std::process::abort(),
        "no-more-memory" => memory_bomb(),
        "no-more-processes" => no_more_processes(),
        "no-more-time" => Ok(spin(Duration::from_secs(2))),
        "no-more-room" => no_more_room(),
        "hang" => shell(&format!("trap 'echo {TERM_HEARD}; exit' TERM; while :; do sleep 1; done")),
        "result-is-a-link" => done(symlink("/etc/ctxinit/image.json", &job.result)),
        "result-is-a-pipe" => done(mkfifo(job.result.as_str(), Mode::S_IRWXU).map_err(Into::into)),
        // A hole: it takes no room.
        "result-is-too-large" => done(File::create(&job.result).and_then(|file| file.set_len((16 << 20) + 1))),
        _ => Err(format!("no way {word:?}")),
    }
}

/// A process of a process, that this one waits for.
fn shell(text: &str) -> Result<ExitCode, String> {
    let status = Command::new("/bin/sh").args(["-c", text]).status();
    status.map(|_| ExitCode::SUCCESS).map_err(|error| format!("/bin/sh: {error}"))
}

fn memory_bomb() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 1 << 20]);
    }
}

fn no_more_processes() -> Result<ExitCode, String> {
    let sleeper = || Command::new("/bin/sh").args(["-c", "sleep 100"]).stdin(Stdio::null()).spawn();
    let made = (0..100).take_while(|_| sleeper().is_ok()).count();
    if made < 12 { Ok(ExitCode::SUCCESS) } else { Err(format!("{made} processes are more than the limit")) }
}

fn spin(time: Duration) -> ExitCode {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
    ExitCode::SUCCESS
}

fn no_more_room() -> Result<ExitCode, String> {
    let full = fs::write("ballast", vec![1; 10 << 20]).and_then(|()| fs::write("more", vec![1; 12 << 20]));
    match full {
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(ExitCode::SUCCESS),
        other => Err(format!("expected no space left, got {other:?}")),
    }
}

fn not_started(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["no word of it is read"])?;
    let cd = stage.cd(&[("context.json", &site.context())])?;
    let mut policy = policy();
    policy["payload"]["command"] = json!(["/no/such/program"]);
    let ended = stage.tiny(&policy)?.cd(&cd).run()?;
    let why = "not started: open /no/such/program: ENOENT: No such file or directory";
    ended.expect_end(&format!("700 3 jobs in a row failed, the last: {why}"))?;
    for token in 0..3 {
        ended.expect_report(&format!("/tokens/{token}/end"), why)?;
        ended.expect_report(
            &format!("/tokens/{token}/reason"),
            json!({"code": 7, "subcode": 2, "name": "not-started"}),
        )?;
        ended.expect_report(&format!("/tokens/{token}/fate"), "released")?;
        // Nothing was counted, which is not the same as nothing.
        ended.expect_report(&format!("/tokens/{token}/usage/memory_kib"), Value::Null)?;
    }
    site.expect_free(1)
}
