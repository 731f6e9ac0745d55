//! The scripts: whether a machine can run them, and what they count on that may not be there.

use super::super::CdError;
use super::super::finding::Finding;
use super::super::finding::Level::{self, Error, Hint, Warning};
use super::super::tree::{Kind, Tree};
use super::commands::{self, Command};
use super::settings::{self, Settings};
use super::{syntax, writes};
use crate::agent::hooks::{self, Found};
use crate::context::opennebula::StartScript;
use crate::image::policy::Policy;
use crate::script::{self, Fault, Interpreter};

/// Programs that are of no use without a network.
const NEED_NETWORK: &[&str] = &[
    "apt", "apt-get", "curl", "dig", "dnf", "getent", "git", "host", "nc", "nslookup", "ntpdate", "ping", "pip",
    "rsync", "scp", "ssh", "wget", "yum",
];

/// What the guest does with a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Runs it, with `start` and in the end with `stop`.
    Run,
    /// Runs it once, without arguments.
    RunOnce,
    /// Sources it before the others.
    Init,
    /// Nothing; the others may use it.
    Helper,
}

/// Checks every script of the CD, and the one in a variable.
///
/// # Errors
/// If one of them cannot be read.
pub fn check(tree: &Tree, policy: &Policy, settings: &Settings, findings: &mut Vec<Finding>) -> Result<(), CdError> {
    let hooks = hooks(tree, policy, findings);
    for entry in &tree.entries {
        let path = entry.path.as_str();
        let role = match path {
            "prolog.sh" | "epilog.sh" => Role::Run,
            "init.sh" => Role::Init,
            "context.sh" => continue,
            _ if hooks.iter().any(|hook| hook == path) => Role::Run,
            _ => Role::Helper,
        };
        // A link to nothing, a device: named already. Everything else that has the name of a script has to be one.
        let place = tree.place(path).filter(|_| role == Role::Run && entry.kind != Kind::Special);
        if let Some(Err(fault)) = place.map(|place| script::examine_file(&place)) {
            findings.push(faulty(Error, path, &fault));
            continue;
        }
        let Some(text) = tree.read(path)? else { continue };
        if role == Role::Run && text.is_empty() {
            findings.push(Finding::new(Warning, path, "the file is empty, so the machine passes over it"));
            continue;
        }
        let shell = script::interpreter(&text) == Interpreter::Shell;
        // A helper is a script if it says so, by its name or by its first line.
        let says_so = path.ends_with(".sh") || path.ends_with(".bash") || (shell && text.starts_with(b"#!"));
        // A large one is data, whatever its name.
        if role == Role::Helper && (!says_so || text.len() as u64 > script::MAX_BYTES) {
            continue;
        }
        one(tree, policy, (path, role), &text, findings);
    }
    if let Some(script) = &settings.nebula.start_script {
        findings.extend(start_script(tree, policy, settings, script));
    }
    Ok(())
}

/// Paths of the CD's hooks, as the guest finds them.
fn hooks(tree: &Tree, policy: &Policy, findings: &mut Vec<Finding>) -> Vec<String> {
    let Found { hooks, ignored, .. } = Found::of_cd(tree.root(), policy.scripts.epilog).unwrap_or_else(|why| {
        findings.push(Finding::new(Error, hooks::ON_CD, why.strip_prefix("epilog.d: ").unwrap_or(&why)));
        Found::default()
    });
    // By its name it was meant to be one.
    let level = |path: &str| if path.ends_with(".sh") { Warning } else { Hint };
    let no_hook = |(path, why): (String, _)| Finding::new(level(&path), path, format!("no hook, as {why}"));
    findings.extend(ignored.into_iter().map(no_hook));
    hooks.into_iter().map(|hook| hook.name).collect()
}

/// Its findings stand at the variable: a line of the decoded text is none of the file.
fn start_script(tree: &Tree, policy: &Policy, settings: &Settings, script: &StartScript) -> Vec<Finding> {
    let StartScript { name, text } = script;
    let mut findings = Vec::new();
    one(tree, policy, (name, Role::RunOnce), text, &mut findings);
    let at_variable = |Finding { level, line, key, what, .. }: Finding| {
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let key = if key.is_empty() { key } else { format!("{key}: ") };
        settings.about_variable(level, name, format!("{line}{key}{what}"))
    };
    findings.into_iter().map(at_variable).collect()
}

fn faulty(level: Level, path: &str, fault: &Fault) -> Finding {
    let mends = if let Fault::CrLf(_) = fault { "; dos2unix mends it" } else { "" };
    Finding::new(level, path, format!("{fault}{mends}"))
}

fn one(tree: &Tree, policy: &Policy, (path, role): (&str, Role), text: &[u8], findings: &mut Vec<Finding>) {
    let fatal = if matches!(role, Role::Run | Role::RunOnce) { Error } else { Warning };
    if let Some(fault) = script::fault(text) {
        // Nothing is sourced after an init.sh that is none.
        let level = if role == Role::Init { Error } else { fatal };
        findings.push(faulty(level, path, &fault));
        return;
    }
    if text.starts_with(b"\xef\xbb\xbf") {
        findings.push(Finding::new(fatal.max(Warning), path, settings::BOM).at(1));
    } else if let Some(at) = carriage_return(text) {
        let what = "ends in CR LF, which the shell takes for a part of the line";
        findings.push(Finding::new(Warning, path, what).at(at));
    }
    if let Interpreter::Other(words) = script::interpreter(text) {
        let program = words.iter().find(|word| !word.ends_with("/env")).map_or("", String::as_str);
        let variables = match role {
            Role::Run | Role::RunOnce => "; it finds the variables of context.sh in its environment",
            Role::Init | Role::Helper => "",
        };
        let what = format!("{program} has to be in the image{variables}");
        findings.push(Finding::new(Hint, path, what).at(1));
        return;
    }
    findings.extend(syntax::check(path, text, fatal));
    let text = String::from_utf8_lossy(text);
    let commands = commands::commands(&text);
    findings.extend(sourced(tree, path, &commands));
    findings.extend(writes::check(path, &commands, policy));
    if path == "prolog.sh" {
        findings.extend(network(&commands));
    }
    if role == Role::Run && !looks_at_action(&text) {
        let what = "never looks at $1: what it does with start at boot it does again with stop at the end";
        findings.push(Finding::new(Hint, path, what));
    }
}

fn carriage_return(text: &[u8]) -> Option<usize> {
    text.split(|&byte| byte == b'\n').position(|line| line.ends_with(b"\r")).map(|at| at + 1)
}

fn looks_at_action(text: &str) -> bool {
    ["$1", "${1", "$@", "${@", "$*", "${*"].iter().any(|word| text.contains(word))
}

/// `. FILE` and `source FILE`, unless the script looks first whether it is there.
fn sourced(tree: &Tree, path: &str, commands: &[Command]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tested: Vec<&str> = Vec::new();
    for command in commands {
        let Some((program, arguments)) = command.program() else { continue };
        let Some(first) = arguments.first() else { continue };
        if matches!(program, "[" | "[[" | "test") {
            tested.extend(arguments.iter().map(|word| word.text.as_str()));
            continue;
        }
        let file = first.text.as_str();
        if !matches!(program, "." | "source") || !first.is_literal() || tested.contains(&file) {
            continue;
        }
        let context = file.strip_prefix(script::CONTEXT_DIR).map(|rest| rest.trim_start_matches('/'));
        // Without a slash a shell looks through PATH, and bash then in the working directory.
        let relative = (!file.starts_with('/')).then(|| file.trim_start_matches("./"));
        let what = match context.or(relative) {
            Some("context.sh") | None if file.starts_with("/etc/init.d/") => {
                format!("{file} is not in every image; [ -r {file} ] && . {file} goes on without")
            }
            Some(name) if tree.has_file(name) => continue,
            Some(name) if name.starts_with("../") => format!("{file} is outside the CD, and may not be there"),
            Some(_) => format!("{file} is not on the CD"),
            None => format!("{file} may not be in the image; [ -r {file} ] && . {file} goes on without"),
        };
        findings.push(Finding::new(Warning, path, what).at(command.line));
    }
    findings
}

/// The prolog comes before the network, also before loopback.
fn network(commands: &[Command]) -> Vec<Finding> {
    let named = |command: &Command| {
        let (program, _) = command.program()?;
        NEED_NETWORK.contains(&program).then(|| (program.to_owned(), command.line))
    };
    let found = commands.iter().filter_map(named);
    found
        .map(|(program, line)| {
            let what = format!("{program} needs the network, which is up only for epilog.sh");
            Finding::new(Hint, "prolog.sh", what).at(line)
        })
        .collect()
}
