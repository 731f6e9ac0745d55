//! What runs of the CD, with which limits, and what the guard lets it change.

use super::super::finding::Finding;
use super::{Known, Part, first_of};
use crate::agent::hooks::{IN_IMAGE, ON_CD};
use crate::context::opennebula::START_SCRIPT;
use crate::guard::policy::OnViolation;
use crate::image::policy::{OnFailure, ScriptLimits};
use crate::script::{self, CONTEXT_DIR, Interpreter};

pub fn prolog(known: &Known<'_>) -> Part {
    of_cd(known, "prolog", known.policy.scripts.prolog, "before any interface is up")
}

pub fn epilog(known: &Known<'_>) -> Part {
    of_cd(known, "epilog", known.policy.scripts.epilog, "with the network up")
}

fn of_cd(known: &Known<'_>, name: &'static str, limits: ScriptLimits, when: &str) -> Part {
    let file = format!("{name}.sh");
    if known.tree.get(&file).is_none() {
        return Part::new(name, vec![format!("skipped: no {file} on the CD")]);
    }
    let text = match known.tree.read(&file) {
        Ok(Some(text)) if text.is_empty() => {
            return Part::new(name, vec![format!("skipped: {file} on the CD is empty")]);
        }
        text => text.ok().flatten().unwrap_or_default(),
    };
    let init = if known.tree.has_file("init.sh") { ", after init.sh" } else { "" };
    let how = match script::interpreter(&text) {
        Interpreter::Shell => format!("{file} start, sourced by bash (else sh) in {CONTEXT_DIR}{init}, {when}"),
        Interpreter::Other(words) => format!("{file} start, run by {} in {CONTEXT_DIR}, {when}", words.join(" ")),
    };
    part(known, name, vec![how], limits, |error| error.file == file)
}

pub fn start_script(known: &Known<'_>) -> Part {
    let name = "start-script";
    let Some(script) = &known.settings.nebula.start_script else {
        let empty = START_SCRIPT.iter().find(|name| known.settings.variables.iter().any(|each| each.name == **name));
        let why = empty.map_or("no START_SCRIPT in a context.sh".to_owned(), |name| format!("{name} is empty"));
        return Part::new(name, vec![format!("skipped: {why}")]);
    };
    let by = match script::interpreter(&script.text) {
        Interpreter::Shell => "bash (else sh)".to_owned(),
        Interpreter::Other(words) => words.join(" "),
    };
    let what = format!("the script in {}, run by {by} in {CONTEXT_DIR}, without arguments", script.name);
    let how = vec![what, "it sees the variables of context.sh in its environment".to_owned()];
    part(known, name, how, known.policy.scripts.epilog, |error| error.file == "context.sh" && error.key == script.name)
}

pub fn hooks(known: &Known<'_>) -> Part {
    let image = format!("the image's own in {IN_IMAGE} come first, and cannot be seen from here");
    let names: Vec<&str> = known.hooks.hooks.iter().map(|hook| hook.name.as_str()).collect();
    let how = match names.as_slice() {
        [] => format!("none of the CD, as it has no {ON_CD}/*.sh; {image}"),
        names => format!("{}, each as epilog.sh is; {image}", names.join(", ")),
    };
    let is_its = |error: &Finding| error.file == ON_CD || names.contains(&error.file.as_str());
    if names.is_empty() && known.error(is_its).is_none() {
        return Part::new("hooks", vec![how]);
    }
    part(known, "hooks", vec![how], known.policy.scripts.epilog, is_its)
}

/// With its limits, and the error that it fails by.
fn part(
    known: &Known<'_>,
    name: &'static str,
    mut lines: Vec<String>,
    limits: ScriptLimits,
    is_its: impl Fn(&Finding) -> bool,
) -> Part {
    let ScriptLimits { timeout_secs, on_failure, memory_mb, output_kb } = limits;
    let meaning = match on_failure {
        OnFailure::Stop => "the machine ends with code 500",
        OnFailure::Continue => "it is reported, and the boot goes on",
    };
    let limits = format!("at most {timeout_secs} s, {memory_mb} MiB of memory and {output_kb} KiB of output");
    lines.push(format!("{limits}; if it fails, {meaning}"));
    let broken = known.error(is_its).map(|error| format!("it fails: {error}"));
    let fatal = match on_failure {
        OnFailure::Stop => broken,
        OnFailure::Continue => {
            lines.extend(broken);
            None
        }
    };
    Part { name, lines, fatal }
}

/// What the guard does, before this phase and in it.
pub fn seal(known: &Known<'_>) -> Part {
    let guard = &known.policy.guard;
    let become_of = match guard.on_violation {
        OnViolation::Report => "is reported",
        OnViolation::Revert => "is put back; if it cannot be, the machine ends with code 500",
        OnViolation::Refuse => "ends the machine with code 500",
    };
    let open = first_of(&guard.site_writable.of_state());
    Part::new(
        "seal",
        vec![
            format!("what each of these scripts changed of the image, but for guard.site_writable, {become_of}"),
            format!("from here on the image's directories are read-only, for stop as well; writable: {open}"),
            "not where the image is the initramfs itself: there is nothing to compare with".to_owned(),
        ],
    )
}

/// `over` is the phase that failed.
pub fn end(known: &Known<'_>, over: Option<&str>) -> String {
    let scripts: &[&str] = match over {
        Some("medium") => &[],
        Some("prolog" | "start-script") => &["prolog.sh"],
        _ => &["epilog.sh", "prolog.sh"],
    };
    let ran_hooks = !matches!(over, Some("medium" | "prolog" | "start-script" | "epilog"));
    let hooks = known.hooks.hooks.iter().rev().map(|hook| hook.name.as_str()).filter(|_| ran_hooks);
    let runs = |file: &&str| known.tree.read(file).is_ok_and(|text| text.is_some_and(|text| !text.is_empty()));
    let scripts = scripts.iter().copied().filter(runs);
    let stops: Vec<String> = hooks.chain(scripts).map(|file| format!("{file} stop")).collect();
    let scripts = if stops.is_empty() {
        "no script to stop".to_owned()
    } else {
        format!("{} (if its start ran; at most 30 s each, hooks 30 s together)", stops.join(", then "))
    };
    format!("{scripts}; the last log records, the report, power off")
}
