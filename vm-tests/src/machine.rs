//! A machine: what it is made of, while it runs, and after its end.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::lines::Lines;
use crate::process::Process;
use crate::qmp;
use crate::report;
use crate::stage::Stage;

/// scripts/vm ends QEMU at the case's deadline; it gets this much longer to say so.
const SLACK: u32 = 20;
/// What a host reads last of a machine.
const END: &str = "ctxinit: end ";

/// A CD and what it hangs on.
pub struct Medium {
    pub image: PathBuf,
    pub bus: &'static str,
}

impl Medium {
    pub fn virtio(image: PathBuf) -> Self {
        Self { image, bus: "virtio" }
    }
}

/// A machine to be.
pub struct Machine {
    dir: PathBuf,
    deadline: u32,
    lines: Arc<Lines>,
    words: Vec<OsString>,
    qemu: Vec<OsString>,
    console: bool,
    keys: Option<File>,
}

impl Machine {
    pub fn new(stage: &Stage) -> Self {
        let (dir, deadline, lines) = (stage.dir.clone(), stage.case.deadline, Arc::clone(&stage.console));
        Self { dir, deadline, lines, words: Vec::new(), qemu: Vec::new(), console: true, keys: None }
    }

    /// More of scripts/vm's words.
    pub fn words<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.words.extend(words.map(OsString::from));
        self
    }

    /// One more.
    pub fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Words for QEMU itself.
    pub fn qemu<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.qemu.extend(words.map(OsString::from));
        self
    }

    /// The context CD.
    pub fn cd(self, medium: &Medium) -> Self {
        self.words(["--cd"]).word(&medium.image).words(["--bus", medium.bus])
    }

    /// There is no console in it, so there is no line of it either.
    pub fn no_console(mut self) -> Self {
        self.console = false;
        self.words(["--no-console"])
    }

    /// Somebody sits at its console.
    pub fn typing(mut self) -> Result<Self, String> {
        let path = self.dir.join("keys");
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).map_err(|errno| failed(errno.into()))?;
        // For reading too, so that neither side waits for the other.
        self.keys = Some(OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?);
        Ok(self.words(["--keys"]).word(path))
    }

    /// Switches it on.
    pub fn boot(self) -> Result<Running, String> {
        let monitor = self.dir.join("qmp");
        let mut command = Command::new("scripts/vm");
        command.args(["--timeout", &self.deadline.to_string(), "--console"]).arg(self.dir.join("console.log"));
        command.arg("--report").arg(self.dir.join("report.json")).args(&self.words).arg("--").args(&self.qemu);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (Some(report), Some(errors)) = (process.child().stdout.take(), process.child().stderr.take()) else {
            return Err("scripts/vm without pipes".to_owned());
        };
        let lines = Arc::clone(&self.lines);
        lines.clear();
        let reader = thread::spawn(move || lines.read(errors));
        let report = thread::spawn(move || io::read_to_string(report).unwrap_or_default());
        Ok(Running { machine: self, process, monitor, reader, report })
    }

    /// Switches it on, and waits for its end.
    pub fn run(self) -> Result<Ended, String> {
        self.boot()?.end()
    }
}

/// A machine that runs. It is ended when this is dropped.
pub struct Running {
    machine: Machine,
    process: Process,
    monitor: PathBuf,
    reader: JoinHandle<()>,
    report: JoinHandle<String>,
}

impl Running {
    /// Types a line on the console.
    pub fn type_line(&mut self, line: &str) -> Result<(), String> {
        let keys = self.machine.keys.as_mut().ok_or("nobody sits at this console")?;
        keys.write_all(format!("{line}\n").as_bytes()).map_err(|error| format!("keys: {error}"))
    }

    /// Has QEMU do what only a host can do.
    pub fn host_does(&self, command: &str) -> Result<(), String> {
        qmp::run(&self.monitor, command).map(drop)
    }

    /// Asks QEMU.
    pub fn host_says(&self, command: &str) -> Result<String, String> {
        qmp::run(&self.monitor, command)
    }

    /// The port of this host behind which a port of the machine is. QEMU was told to take any that is free, as in
    /// `hostfwd=tcp:127.0.0.1:0-:4000`: one that we had found free might be somebody else's by then.
    pub fn host_port(&self, protocol: &str, inside: u16) -> Result<u16, String> {
        const INFO: &str = r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info usernet"}}"#;
        let answer: Value = serde_json::from_str(&self.host_says(INFO)?).unwrap_or_default();
        let table = answer["return"].as_str().unwrap_or_default();
        let port = forwarded(table, protocol, inside);
        port.ok_or_else(|| format!("QEMU forwards no {protocol} to port {inside}: {table}"))
    }

    /// For as long as it may take anything in this machine.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.machine.deadline.into())
    }

    /// Waits for a line on the console that holds these words.
    pub fn wait_console(&self, words: &str) -> Result<(), String> {
        let what = format!("a console line with {words:?}");
        self.machine.lines.wait_for(self.patience(), &what, |line| line.contains(words))
    }

    /// Waits for the end, and checks what holds for every machine: it tells why it ended, in the same words on the
    /// console and in the report, which is as its schema promises, and its kernel has not panicked.
    pub fn end(mut self) -> Result<Ended, String> {
        let limit = Duration::from_secs((self.machine.deadline + SLACK).into());
        let waited = self.process.wait(limit);
        drop(self.process);
        let _ = self.reader.join();
        let (console, report) = (self.machine.lines.all(), self.report.join().unwrap_or_default());
        // As timeout(1) has it.
        if waited?.code() == Some(124) {
            return Err(format!("expected the machine to end within {} s", self.machine.deadline));
        }
        let ended = Ended { console, report: serde_json::from_str(&report).unwrap_or_default() };
        ended.expect_no_console("Kernel panic")?;
        let verdict = ended.verdict().ok_or("expected a report with a verdict, got none")?;
        report::check(&ended.report)?;
        let ends: Vec<&String> = ended.console.iter().filter(|line| line.starts_with(END)).collect();
        match ends.as_slice() {
            [line] if self.machine.console && **line == format!("{END}{verdict}") => Ok(ended),
            [] if !self.machine.console => Ok(ended),
            other => Err(format!("expected one console line \"{END}{verdict}\", as the report has it, got {other:?}")),
        }
    }
}

/// Rows are `TCP[HOST_FORWARD] 9 127.0.0.1 35107 10.0.2.15 4000 0 0`: descriptor, from, to, queues.
fn forwarded(table: &str, protocol: &str, inside: u16) -> Option<u16> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let state = format!("{protocol}[HOST_FORWARD]");
    let mut ports = rows.filter_map(|row| match row.as_slice() {
        [found, _, _, port, _, to, ..] if *found == state && *to == inside.to_string() => port.parse().ok(),
        _ => None,
    });
    ports.next()
}

/// A machine after its end.
pub struct Ended {
    console: Vec<String>,
    report: Value,
}

impl Ended {
    /// Code and text, as the report has them.
    pub fn verdict(&self) -> Option<String> {
        let verdict = &self.report["verdict"];
        Some(format!("{} {}", verdict["code"].as_u64()?, verdict["text"].as_str()?))
    }

    /// Checks code and text, word for word.
    pub fn expect_end(&self, expected: &str) -> Result<(), String> {
        let verdict = self.verdict().unwrap_or_default();
        if verdict == expected { Ok(()) } else { Err(format!("expected the end {expected:?}, got {verdict:?}")) }
    }

    /// Checks for a console line that starts so.
    pub fn expect_console(&self, line: &str) -> Result<(), String> {
        self.position(line).map(drop)
    }

    /// Checks for a console line that ends so.
    pub fn expect_console_end(&self, end: &str) -> Result<(), String> {
        let found = self.console.iter().any(|line| line.ends_with(end));
        if found { Ok(()) } else { Err(format!("expected a console line that ends in {end:?}, there is none")) }
    }

    /// Checks for console lines in this order.
    pub fn expect_order(&self, lines: &[&str]) -> Result<(), String> {
        let places = lines.iter().map(|line| self.position(line)).collect::<Result<Vec<_>, _>>()?;
        if places.is_sorted() { Ok(()) } else { Err(format!("expected the console lines {lines:?} in this order")) }
    }

    /// The first line that starts so.
    fn position(&self, line: &str) -> Result<usize, String> {
        let found = self.console.iter().position(|each| each.starts_with(line));
        found.ok_or_else(|| format!("expected a console line that starts with {line:?}, there is none"))
    }

    /// Checks that no console line holds these words.
    pub fn expect_no_console(&self, words: &str) -> Result<(), String> {
        match self.console.iter().find(|line| line.contains(words)) {
            None => Ok(()),
            Some(line) => Err(format!("expected no console line with {words:?}, got {line:?}")),
        }
    }

    /// Checks how a phase ended, `None` if it was never come to.
    pub fn expect_phase(&self, name: &str, outcome: Option<&str>) -> Result<(), String> {
        let phases = self.report["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = phases.iter().find(|phase| phase["name"] == name).and_then(|phase| phase["outcome"].as_str());
        let tell = |outcome: Option<&str>| outcome.unwrap_or("not in the report").to_owned();
        if found == outcome {
            return Ok(());
        }
        Err(format!("expected phase {name} {}, it is {}", tell(outcome), tell(found)))
    }

    /// The report, without what the schema says may differ from boot to boot.
    pub fn steady_report(&self) -> Result<Value, String> {
        report::steady(&self.report)
    }

    /// A number of the report, by its JSON pointer.
    pub fn number(&self, pointer: &str) -> Result<u64, String> {
        let found = self.report.pointer(pointer).and_then(Value::as_u64);
        found.ok_or_else(|| format!("expected a number at {pointer} of the report"))
    }

    /// Checks how a text of the report begins.
    pub fn expect_report_start(&self, pointer: &str, start: &str) -> Result<(), String> {
        let found = self.report.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if found.starts_with(start) {
            return Ok(());
        }
        Err(format!("expected {start:?}... at {pointer} of the report, got {found:?}"))
    }

    /// Milliseconds of a phase.
    pub fn millis(&self, name: &str) -> Result<u64, String> {
        self.in_phase(name, "/millis").as_u64().ok_or_else(|| format!("expected phase {name} in the report"))
    }

    /// A value in a phase's part of the report, by its JSON pointer; null if there is none.
    pub fn in_phase(&self, name: &str, pointer: &str) -> &Value {
        let phases = self.report["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let phase = phases.iter().find(|phase| phase["name"] == name);
        phase.and_then(|phase| phase.pointer(pointer)).unwrap_or(&Value::Null)
    }

    /// Checks such a value.
    pub fn expect_in_phase(&self, name: &str, pointer: &str, expected: impl Into<Value>) -> Result<(), String> {
        let (expected, found) = (expected.into(), self.in_phase(name, pointer));
        if *found == expected {
            Ok(())
        } else {
            Err(format!("expected {expected} at {pointer} of phase {name}, got {found}"))
        }
    }

    /// One value of the report, by its JSON pointer; null if there is none.
    pub fn report(&self, pointer: &str) -> &Value {
        self.report.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Checks for a change of the image in a phase, with its violation as the report has it.
    pub fn expect_change(&self, phase: &str, path: &str, violation: Option<&str>) -> Result<(), String> {
        let phases = self.report["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
        let changes = phases.iter().filter(|each| each["name"] == phase).filter_map(|each| each["changes"].as_array());
        let paths: Vec<&Value> = changes.flatten().collect();
        // A path may be changed and also mounted over.
        let of_path: Vec<&&Value> = paths.iter().filter(|change| change["path"] == path).collect();
        if of_path.iter().any(|change| change["violation"].as_str() == violation) {
            return Ok(());
        }
        Err(format!("expected a change of {path} in phase {phase} with violation {violation:?}, got {of_path:?}"))
    }

    /// Checks one value of the report, by its JSON pointer.
    pub fn expect_report(&self, pointer: &str, expected: impl Into<Value>) -> Result<(), String> {
        let (expected, found) = (expected.into(), self.report.pointer(pointer));
        if found == Some(&expected) {
            return Ok(());
        }
        Err(format!("expected {expected} at {pointer} of the report, got {}", found.unwrap_or(&Value::Null)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_ports_are_read() {
        let table = "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
             TCP[ESTABLISHED]   12       127.0.0.1 40001       10.0.2.15  4000     0     0\r\n  \
             TCP[HOST_FORWARD]   9       127.0.0.1 35107       10.0.2.15  4000     0     0\r\n  \
             UDP[HOST_FORWARD]   3       127.0.0.1 43593       10.0.2.15  4000     0     0\r\n";
        assert_eq!(forwarded(table, "TCP", 4000), Some(35107));
        assert_eq!(forwarded(table, "UDP", 4000), Some(43593));
        assert_eq!(forwarded(table, "TCP", 4001), None);
    }
}
