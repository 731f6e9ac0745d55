//! What the site's scripts see, beside what they would see in a guest of the HEPiX working group.
//!
//! A model of such a guest, a shell script written from the description of its protocol, and ctxinit's own code run
//! the same CDs in the same machine, in the order of a life: prolog, epilog, then epilog's and prolog's stop. Everything
//! that the scripts print, which is all that they see, and how they end must be the same, but for what table.rs names.

mod table;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use ctxinit::cgroup::Cgroup;
use ctxinit::context::medium::COPY;
use ctxinit::context::shell;
use ctxinit::image::policy::ScriptLimits;
use ctxinit::script::{self, CONTEXT_DIR, Script, VARIABLES};
use ctxinit::sys::process::Exit;
use ctxinit::{launch, mounts};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use self::table::{CDS, Cd};
use crate::case::{Case, marker};
use crate::guest;
use crate::stage::{Stage, policy_with};

/// Seconds. Some hundred shells, each under TCG.
const DEADLINE: u32 = 900;

pub const CASE: Case = Case { deadline: DEADLINE, ..Case::new("hepix-protocol", host) };

/// The word of the guest's program for what is called from the prolog.
pub const COMPARE: &str = "compare-hepix";
/// Where the CDs lie on the one CD that the machine gets.
const CDS_DIR: &str = "cds";
/// Complaints that are printed of a CD.
const SHOWN: usize = 20;
/// The steps of a machine's life, in their order.
const LIFE: [(&str, &str); 4] = [("prolog", "start"), ("epilog", "start"), ("epilog", "stop"), ("prolog", "stop")];

fn host(stage: &Stage) -> Result<(), String> {
    let prolog = format!("[ \"$1\" = start ] || return 0\n/{} {} {COMPARE}\n", guest::IN_IMAGE, guest::ARGUMENT);
    let all: Vec<(String, &str)> = CDS
        .iter()
        .flat_map(|cd| cd.files.iter().map(move |(path, text)| (format!("{CDS_DIR}/{}/{path}", cd.name), *text)))
        .collect();
    let mut files: Vec<(&str, &str)> = all.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    files.extend([
        ("prolog.sh", prolog.as_str()),
        ("model.sh", include_str!("model.sh")),
        ("see.sh", include_str!("see.sh")),
    ]);
    let policy = policy_with(json!({"scripts": {"prolog": {"timeout_secs": DEADLINE}}}));
    let ended = stage.debian(&policy)?.cd(&stage.cd(&files)?).run()?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))?;
    ended.expect_end("200 the scripts are done, and no work source is named")
}

/// The guest half: runs every CD twice, and says where the two are not alike.
pub fn compare() -> ExitCode {
    match compare_all() {
        Ok(0) => {
            println!("{}", marker(CASE.name));
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("{wrong} of {} CDs are not as the table says", CDS.len());
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("{}{why}", guest::COMPLAINT);
            ExitCode::FAILURE
        }
    }
}

fn compare_all() -> Result<usize, String> {
    // The copy that this machine's own scripts have is covered for nobody but us.
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("unshare: {errno}"))?;
    mounts::make_private().map_err(|error| error.to_string())?;
    let (mut wrong, mut lines) = (0, 0);
    for cd in CDS {
        let model = life(cd, by_model)?;
        let ours = life(cd, by_ctxinit)?;
        let complaints = unlike(cd, &model, &ours);
        match &cd.differs {
            Some(differs) if complaints.is_empty() => println!("{}: differs, as {}", cd.name, differs.why),
            _ => complaints.iter().take(SHOWN).for_each(|line| println!("{}: {line}", cd.name)),
        }
        wrong += usize::from(!complaints.is_empty());
        lines += ours.len();
    }
    println!("{} CDs, {lines} lines compared", CDS.len());
    Ok(wrong)
}

/// How the two differ, where the table does not say so: lines of the model alone, of ours alone, their order.
fn unlike(cd: &Cd, model: &[String], ours: &[String]) -> Vec<String> {
    let (mut model_only, mut ours_only) = (only(model, ours), only(ours, model));
    let mut complaints = Vec::new();
    if only(model, &model_only) != only(ours, &ours_only) {
        complaints.push("the same lines in another order".to_owned());
    }
    if let Some(differs) = &cd.differs {
        let meant = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        if model_only == meant(differs.model) && ours_only == meant(differs.ours) {
            (model_only, ours_only) = (Vec::new(), Vec::new());
        } else {
            complaints.push(format!("this does not differ as the table says: {}", differs.why));
        }
    }
    complaints.extend(model_only.iter().map(|line| format!("model alone: {line}")));
    complaints.extend(ours_only.iter().map(|line| format!("ctxinit alone: {line}")));
    complaints
}

/// The lines of one that the other does not have, or not as often.
fn only(one: &[String], other: &[String]) -> Vec<String> {
    let mut other: Vec<&String> = other.iter().collect();
    let mut left = Vec::new();
    for line in one {
        match other.iter().position(|each| *each == line) {
            Some(at) => drop(other.swap_remove(at)),
            None => left.push(line.clone()),
        }
    }
    left
}

type Step = fn(&Cd, &str, &str) -> Result<Seen, String>;

/// What a step printed and how it ended, `None` if there was nothing to run.
struct Seen {
    output: String,
    end: Option<i32>,
}

/// A CD's whole life with a fresh copy of it.
fn life(cd: &Cd, step: Step) -> Result<Vec<String>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", cd.name);
    mounts::tmpfs(CONTEXT_DIR, 8, "mode=0700").map_err(|error| failed(&error))?;
    let copied = Command::new("cp").args(["-a", &format!("{COPY}/{CDS_DIR}/{}/.", cd.name), CONTEXT_DIR]).status();
    if !copied.map_err(|error| failed(&error))?.success() {
        return Err(failed(&"cp fails"));
    }
    let mut lines = Vec::new();
    for (script, action) in LIFE {
        let seen = step(cd, script, action)?;
        let end = seen.end.map(|end| format!("end {end}"));
        let output = seen.output.strip_suffix('\n').unwrap_or(&seen.output).split('\n').filter(|line| !volatile(line));
        let output = output.map(|line| line.replace('\r', "\\r")).chain(end);
        lines.extend(output.map(|line| format!("{script} {action}: {line}")));
    }
    mounts::unmount(CONTEXT_DIR).map_err(|error| failed(&error))?;
    Ok(lines)
}

/// `declare -x NAME="value"` of one of the variables that cannot be alike.
fn volatile(line: &str) -> bool {
    let name = line.strip_prefix("declare -").and_then(|rest| rest.split_once(' ')).map(|(_, rest)| rest);
    let name = name.map(|rest| rest.split_once('=').map_or(rest, |(name, _)| name));
    name.is_some_and(|name| table::VARIABLES.contains(&name))
}

fn by_model(_: &Cd, script: &str, action: &str) -> Result<Seen, String> {
    let failed = |error: std::io::Error| format!("model.sh: {error}");
    // A file and no pipe: nobody waits for a daemon that keeps it open.
    let output = Path::new("/run/model.output");
    let file = File::create(output).map_err(failed)?;
    let status = Command::new("/bin/bash")
        .args([&format!("{COPY}/model.sh"), script, action])
        .env_clear()
        .envs([("PATH", launch::PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")])
        .stdin(Stdio::null())
        .stderr(file.try_clone().map_err(failed)?)
        .stdout(file)
        .status()
        .map_err(failed)?;
    let output = String::from_utf8_lossy(&fs::read(output).map_err(failed)?).into_owned();
    let ran = !["no context CD\n", "not there\n"].contains(&output.as_str());
    Ok(Seen { output, end: status.code().filter(|_| ran) })
}

/// What the agent does with the copy of a CD, less what the table of phases decides.
fn by_ctxinit(cd: &Cd, script: &str, action: &str) -> Result<Seen, String> {
    let said = |output: String| Ok(Seen { output, end: None });
    let failed = |error: &dyn std::fmt::Display| format!("{} {script} {action}: {error}", cd.name);
    let text = fs::read_to_string(format!("{CONTEXT_DIR}/context.sh")).unwrap_or_default();
    let variables = match shell::parse(&text) {
        Err(error) => return said(error.to_string()),
        Ok(variables) => shell::usable(variables).0,
    };
    fs::write(VARIABLES, shell::assignments(&variables)).map_err(|error| failed(&error))?;
    if !Path::new(&format!("{CONTEXT_DIR}/{script}.sh")).exists() {
        return said("not there".to_owned());
    }
    let cgroup = Cgroup::create(&format!("hepix-{}-{script}-{action}", cd.name)).map_err(|error| failed(&error))?;
    let script = Script::of_context(script, ScriptLimits::default());
    let ready = match script::ready(&script, action) {
        Ok(ready) => ready,
        Err(unfit) => return said(unfit.why),
    };
    let started = script::start(&script, &ready, &variables, &cgroup).map_err(|error| failed(&error))?;
    let child = started.child.result().map_err(|error| failed(&error))?;
    let mut printed = started.output;
    let mut output = Vec::new();
    let exit = loop {
        let exit = child.try_wait().map_err(|error| failed(&error))?;
        match printed.read_to_end(&mut output) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(failed(&error)),
            _ => {}
        }
        match exit {
            Some(exit) => break exit,
            None => sleep(Duration::from_millis(2)),
        }
    };
    // As a shell counts.
    let end = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    };
    Ok(Seen { output: String::from_utf8_lossy(&output).into_owned(), end: Some(end) })
}
