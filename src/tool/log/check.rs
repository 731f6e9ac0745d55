//! `ctxtool log check`: whether everything is there that machines have logged.
//!
//! One pass, and memory for each machine alone: the numbers that came as ranges, what its last records said, its jobs.

use std::collections::HashMap;
use std::fs::File;
use std::hash::RandomState;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::input::Input;
use super::machine::Machine;
use super::record::{self, Record};
use super::show::{Findings, Found, Unreadable, Verdict, owner_line};
use super::trail::Job;
use super::{LogError, Outcome};
use crate::status::words::bytes;
use crate::text;

/// A look at the clock once in so many records: one at each would cost more than the rest.
const LOOK: u64 = 4096;
const PROGRESS: Duration = Duration::from_millis(200);
/// Read at a time.
const CHUNK: usize = 1024 * 1024;

/// Prove that nothing is missing in what a log server received, and name the owner of any job
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Check {
    /// Files of a log server, or a captured stream; - is standard input. Several are taken as one log
    #[arg(value_name = "FILE|-", required = true)]
    files: Vec<PathBuf>,
    /// One line for this job of each machine: whose it was, when, and how it ended (7, or job-7)
    #[arg(long, value_name = "N")]
    job: Option<String>,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Reads RFC 5424 lines as rsyslog and syslog-ng keep them (docs/log.md has their settings), streams with a length in front of
each record (one connection a file), and RFC 3164 text of ctxinit. Other senders' records are counted and passed over.

For each life of each machine (vm, boot): numbers from 1 without a gap, or a log-gap record that explains it; the same
number twice only with the same text, as after a reconnect; vm-start and vm-stop, each job's and script's start and end;
vm-stop's own counts. RFC 3164 has no year and no zone: times are shown as they stand. What is missing behind the last
record is seen by the missing vm-stop alone.

Exit codes: 0 complete; 3 something is missing without a word, not paired, or forged; 4 only what the machine itself says
it dropped, or may have lost with a logger that died; 1 if it cannot be read or has no record of a machine; 2 wrong usage

Example:
  $ ctxtool log check /var/log/grid/vms.log
  machine 6b1f2a9e-... boot 0a1b2c3d, vm7.example.org
    records  1 to 5012, all there; 31 came twice, 1 resend
    jobs     3 started, 3 ended
             job-1  /C=NL/O=nikhef/CN=Jan Jansen  exit 0, 1 min 1 s, completed
    ...
  complete: 5012 records of 1 machine
  $ ctxtool log check --job 2 /var/log/grid/vms.log
  job-2 of machine 6b1f2a9e-... boot 0a1b2c3d: owner /C=NL/O=nikhef/CN=Jan Jansen, token 17 of https://..., uid 66001, ...";

/// Checks files.
///
/// # Errors
/// If one cannot be read, or there is no machine in any of them.
pub fn check(options: &Check) -> Result<Outcome, LogError> {
    let mut checker = Checker::default();
    for path in &options.files {
        let name = path.display().to_string();
        let at = |error| LogError::Io { path: path.clone(), error };
        if path == Path::new("-") {
            checker.read(&name, None, io::stdin().lock()).map_err(at)?;
        } else {
            let file = File::open(path).map_err(at)?;
            let length = file.metadata().map_err(at)?.len();
            checker.read(&name, Some(length), BufReader::with_capacity(CHUNK, file)).map_err(at)?;
        }
    }
    let names: Vec<String> = options.files.iter().map(|path| path.display().to_string()).collect();
    let found = checker.finish(&names.join(", "))?;
    Ok(match &options.job {
        Some(job) => of_job(&found, job, options.json),
        None if options.json => Outcome { text: json(&found), code: found.verdict.code(), ..Outcome::default() },
        None => Outcome { text: found.table(text::in_colours()), code: found.verdict.code(), ..Outcome::default() },
    })
}

fn json(of: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(of).unwrap_or_default()
}

fn of_job(found: &Findings, job: &str, as_json: bool) -> Outcome {
    let name = if job.bytes().all(|byte| byte.is_ascii_digit()) { format!("job-{job}") } else { job.to_owned() };
    let jobs = found.machines.iter().flat_map(|machine| machine.jobs.iter().map(move |job| (machine, job)));
    let jobs: Vec<_> = jobs.filter(|(_, job)| job.job == name).collect();
    let text = if as_json {
        let with_machine = |(machine, job): &(&Found, &Job)| serde_json::json!({"vm": machine.vm, "boot": machine.boot, "host": machine.host, "job": job});
        json(&jobs.iter().map(with_machine).collect::<Vec<_>>())
    } else {
        jobs.iter().map(|(machine, job)| owner_line(machine, job)).collect::<Vec<_>>().join("\n")
    };
    let mut warnings = String::new();
    if jobs.is_empty() {
        warnings = format!("ctxtool: no job {:?} in this log\n", text::printable(&name));
    }
    // Of two records with one number nobody can say which is the machine's.
    let forged = jobs.iter().filter(|(machine, _)| machine.conflicting > 0);
    let doubts: String = forged
        .map(|(machine, _)| {
            format!("ctxtool: {} has records that contradict each other: check it as a whole\n", machine.vm)
        })
        .collect();
    let code = if jobs.is_empty() || !doubts.is_empty() { Verdict::Incomplete.code() } else { 0 };
    Outcome { text, warnings: warnings + &doubts, code }
}

/// Takes records, and says in the end what is missing.
#[derive(Debug, Default)]
pub struct Checker {
    machines: Vec<Machine>,
    /// By UUID, a NUL, and boot.
    index: HashMap<Vec<u8>, usize>,
    /// The last record's: most come in rows.
    last: Vec<u8>,
    last_index: usize,
    key: Vec<u8>,
    hashes: RandomState,
    read: u64,
    foreign: u64,
    unreadable: u64,
    first_unreadable: Option<Unreadable>,
}

impl Checker {
    /// Takes a file of this name; its length is for the progress on a terminal.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(&mut self, name: &str, length: Option<u64>, from: impl BufRead) -> io::Result<()> {
        self.machines.iter_mut().for_each(|machine| machine.numbers.begin_file());
        let mut input = Input::new(from);
        let mut progress = Progress::new(name, length);
        loop {
            let line = input.line + 1;
            let Some(next) = input.next()? else { break };
            match next.and_then(record::parse) {
                Ok(record) => self.take(&record),
                Err(fault) => {
                    self.unreadable += 1;
                    self.first_unreadable.get_or_insert_with(|| Unreadable {
                        file: name.to_owned(),
                        line,
                        why: fault.to_string(),
                    });
                }
            }
            self.read += 1;
            if self.read.is_multiple_of(LOOK) {
                progress.show(input.bytes, self.read);
            }
        }
        progress.clear();
        Ok(())
    }

    /// Takes one record.
    pub fn take(&mut self, record: &Record<'_>) {
        if record.facts.vm.is_empty() {
            self.foreign += 1;
            return;
        }
        let Self { key, last, last_index, index, machines, .. } = self;
        key.clear();
        key.extend_from_slice(record.facts.vm);
        key.push(0);
        key.extend_from_slice(record.facts.boot);
        if key != last {
            *last_index = index.get(key).copied().unwrap_or_else(|| {
                index.insert(key.clone(), machines.len());
                machines.push(Machine::new(record.facts.vm, record.facts.boot));
                machines.len() - 1
            });
            last.clone_from(key);
        }
        if let Some(machine) = machines.get_mut(*last_index) {
            machine.take(record, &self.hashes);
        }
    }

    /// What came of it; `names` says of what.
    ///
    /// # Errors
    /// If there was no record of a machine.
    pub fn finish(self, names: &str) -> Result<Findings, LogError> {
        let Self { machines, read, foreign, unreadable, first_unreadable, .. } = self;
        if machines.is_empty() {
            let first = first_unreadable
                .map(|first| format!("\n{}:{}: {}", first.file, first.line, first.why))
                .unwrap_or_default();
            return Err(LogError::Nothing { names: names.to_owned(), read, first });
        }
        Ok(Findings::new(machines, foreign, unreadable, first_unreadable))
    }
}

/// One line on a terminal, written over until it is gone.
struct Progress<'a> {
    name: &'a str,
    length: Option<u64>,
    shown: Option<Instant>,
    on: bool,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str, length: Option<u64>) -> Self {
        Self { name, length, shown: None, on: io::stderr().is_terminal() }
    }

    fn show(&mut self, taken: u64, records: u64) {
        if !self.on || self.shown.is_some_and(|shown| shown.elapsed() < PROGRESS) {
            return;
        }
        self.shown = Some(Instant::now());
        let of = self.length.map(|length| format!(" of {}", bytes(length))).unwrap_or_default();
        let name = text::printable(self.name);
        let _ = write!(io::stderr(), "\r\x1b[K{name}: {}{of}, {records} records", bytes(taken));
    }

    fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
