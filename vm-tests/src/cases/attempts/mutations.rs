//! One step of a job's isolation is left out at a time, in a ctxinit that can do so (cargo feature `mutation`). Without
//! it, an attempt of the probe goes through: a step whose removal nobody notices is an untested step. And where it was
//! only not taken, its proof stops the job.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::table::Table;
use super::trial::{self, Outcome};
use crate::case::Case;
use crate::probe;
use crate::probe::verdict::How;
use crate::stage::Stage;
use crate::{process, runner};

pub const CASE: Case = Case { deadline: 900, ..Case::new("mutations", host).with_payload(probe::payload) };
/// The same for what is there only where payloads have no network.
pub const ALONE: Case = Case { deadline: 120, ..Case::new("mutations-alone", host_alone).with_payload(probe::payload) };

/// A step, and who notices that it is not there.
struct Row {
    step: &'static str,
    /// Steps that cover the same: they are left out with it, or nothing would be noticed. Only their own rows tell of
    /// them.
    also: &'static [&'static str],
    /// Attempts of one job.
    attempts: &'static str,
    /// Whether a job before it leaves something behind.
    after: bool,
}

const fn row(step: &'static str, attempts: &'static str) -> Row {
    Row { step, also: &[], attempts, after: false }
}

const ROWS: &[Row] = &[
    // The host tells: it is the number that an earlier job had.
    row("fresh uid", "ids"),
    row("memory.max", "memory-bomb"),
    row("memory.swap.max", "memory-bomb"),
    row("memory.oom.group", "oom-survivor"),
    row("pids.max", "fork-bomb"),
    row("cpu.max", "cpu-bomb"),
    row("scratch size", "disk-bomb,tmp-bomb,shm-bomb"),
    row("scratch inodes", "inode-bomb"),
    row("environment", "environment"),
    row("cgroup", "cgroup-member,fork-bomb"),
    row("cgroup namespace", "cgroup-namespace"),
    row("pid namespace", "pid-namespace,see-others"),
    Row { after: true, ..row("ipc namespace", "ipc-namespace,left-shared-memory,left-semaphores,left-messages") },
    row("nosuid", "nosuid"),
    row("nodev", "nodev"),
    row("own proc", "see-others,proc-cmdline"),
    // The machine's own nodes are none where no node is a device.
    Row { also: &["nodev"], ..row("own dev", "devices,kmsg-read,dev-disk") },
    row("own pts", "own-terminals"),
    row("own shm", "own-shm"),
    row("own tmp", "own-tmp"),
    row("own var tmp", "own-var-tmp"),
    row("own accounts", "accounts"),
    row("own cgroup", "cgroup-view"),
    row("read-only sys", "writable-sys"),
    row("hide policy", "config"),
    row("hide context", "context-place"),
    row("own run", "report,run-ctxinit,other-jobs"),
    // A job does not see its keeper.
    Row { also: &["own proc"], ..row("keeper user", "keeper") },
    row("signals", "blocked-signals,ignored-signals"),
    row("setsid", "session"),
    Row { also: &["output mode"], ..row("streams", "standard-input,standard-output") },
    row("output mode", "stdout-by-name"),
    // The filter lets nobody ask for it.
    Row { also: &["seccomp"], ..row("keyring", "session-keyring,known-keys") },
    row("umask", "umask"),
    row("rlimits", "core-limit,open-files-limit,memlock-limit,message-queue-limit,realtime-limit,nice-limit"),
    row("nice", "nice-value"),
    row("ioprio", "io-class"),
    row("affinity", "affinity"),
    row("timer slack", "timer-slack"),
    row("oom_score_adj", "oom-score"),
    // Leaving uid 0 empties it, and so does capset; with the rights that are left, no change of ids is for good.
    Row { also: &["setresuid", "setresgid", "capset", "securebits", "bounding set"], ..row("ambient", "ambient-set") },
    row("bounding set", "bounding-set"),
    row("securebits", "securebits,keep-caps"),
    row("setgroups", "groups"),
    row("setresgid", "ids,setgid,setregid,setresgid"),
    // Root without any right does not even read the job's token, and there would be nobody to notice.
    Row {
        also: &["setresgid", "capset", "securebits", "bounding set", "chdir"],
        ..row("setresuid", "ids,setuid,setreuid,setresuid,shadow")
    },
    row("capset", "inheritable-set"),
    row("pdeathsig", "death-signal"),
    row("chdir", "working-directory"),
    // The kernel wants it for a filter and for a domain of somebody without privileges; the rest is what else keeps a
    // setuid program from being one.
    Row {
        also: &["seccomp", "landlock", "nosuid", "bounding set", "securebits"],
        ..row("no_new_privs", "no-new-privs,setuid-program,file-capabilities")
    },
    row("close_range", "descriptors"),
    row("landlock", "landlock,world-writable,elsewhere"),
    row(
        "seccomp",
        "seccomp,unshare-user,clone-user,clone3-user,i386-unshare,userfaultfd,io-uring,keyctl,add-key,request-key,\
         personality,modify-ldt,i386-getpid,tiocsti-pty,tiocsti-pty-high-bits,tiocsti-i386",
    ),
];

const ALONE_ROWS: &[Row] = &[row("net namespace", "links")];

fn host(stage: &Stage) -> Result<(), String> {
    table(stage, ROWS, "all", "mutations")
}

fn host_alone(stage: &Stage) -> Result<(), String> {
    table(stage, ALONE_ROWS, "none", "mutations-alone")
}

/// Of each row: a job without the step, a job that skips it, and a good one, as three failures in a row end a machine.
fn table(stage: &Stage, rows: &[Row], access: &str, name: &'static str) -> Result<(), String> {
    let guest = build()?;
    let mut jobs = vec!["good ids".to_owned()];
    for row in rows {
        let steps = [row.step].into_iter().chain(row.also.iter().copied());
        let without: String = steps.map(|step| format!(" without={}", word(step))).collect();
        if row.after {
            jobs.push(format!("before-{} leave{without}", word(row.step)));
        }
        jobs.push(format!("without-{} {}{without}", word(row.step), row.attempts));
        jobs.push(format!("skip-{0} ids skip={0}", word(row.step)));
        jobs.push(format!("good-{} ids", word(row.step)));
    }
    let outcome = trial::run(stage, &guest, access, &jobs)?;

    let mut table = Table::new(name, &["step", "left out with it", "attempts that then go through", "the proof says"]);
    let mut faults = Vec::new();
    for row in rows {
        let noticed = noticed(&outcome, row);
        let proof = outcome.end_of(&format!("skip-{}", word(row.step)));
        let good = outcome.end_of(&format!("good-{}", word(row.step)));
        table.row(&[row.step, &row.also.join(", "), &noticed, proof]);
        if noticed.is_empty() {
            let end = outcome.end_of(&format!("without-{}", word(row.step)));
            faults.push(format!("without {}: nothing notices; the job: {end}", row.step));
        }
        if !(proof.starts_with("not started: ") && proof.contains(row.step)) {
            faults.push(format!("{} skipped: expected a proof that names it, the job: {proof}", row.step));
        }
        if good != "exit 0" {
            faults.push(format!("after {}: expected a good job, it ended: {good}", row.step));
        }
    }
    table.write()?;
    println!("{name}: {} of {} steps are noticed and proved", rows.len() - faults.len().min(rows.len()), rows.len());
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// What went through, an attempt each.
fn noticed(outcome: &Outcome, row: &Row) -> String {
    let label = format!("without-{}", word(row.step));
    let lines = outcome.lines.iter().filter(|line| line.label == label);
    let mut through: Vec<String> = Vec::new();
    for line in lines {
        let as_before = row.step == "fresh uid"
            && outcome.lines.iter().any(|other| other.label == "good" && other.detail == line.detail);
        if as_before {
            through.push(format!("{} (seen: {} again)", line.name, line.detail));
        } else if line.how != How::Denied {
            through.push(format!("{} ({}: {})", line.name, line.how, line.detail));
        }
    }
    through.sort();
    through.dedup();
    through.join("; ")
}

/// As a token says it.
fn word(step: &str) -> String {
    step.replace(' ', "-")
}

/// ctxinit with the feature, and nothing else of it: its speed does not matter here.
fn build() -> Result<std::path::PathBuf, String> {
    let guest = Path::new("target/ctxinit-mutation");
    let mut command = Command::new(runner::cargo());
    let target = runner::guest_target()?;
    command.args(["build", "--quiet", "--no-default-features", "--features", "mutation", "--bin", "ctxinit"]);
    command.args(["--target", target, "--config", "profile.dev.strip=true"]).envs([runner::STATIC]);
    process::make(&mut command, Duration::from_secs(600))?;
    let built = Path::new("target").join(target).join("debug/ctxinit");
    std::fs::copy(&built, guest).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(guest.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ctxinit::payload::mutation::NAMES;

    use super::*;

    #[test]
    fn every_step_has_a_row() {
        let rows: BTreeSet<&str> = ROWS.iter().chain(ALONE_ROWS).map(|row| row.step).collect();
        assert_eq!(rows, NAMES.iter().copied().collect());
        let attempts: BTreeSet<&str> = probe::all().map(|attempt| attempt.name).collect();
        for row in ROWS.iter().chain(ALONE_ROWS) {
            let unknown = row.attempts.split(',').find(|name| !attempts.contains(name));
            assert_eq!(unknown, None, "{}", row.step);
            assert!(row.also.iter().all(|step| NAMES.contains(step)), "{}", row.step);
        }
    }
}
