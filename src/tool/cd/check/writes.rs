//! What a script may write outside the places that contextualisation is for.
//!
//! An honest guess: it reads redirections and the usual programs with literal paths. What a helper, an interpreter
//! or a variable does is not seen; in the machine the guard sees everything.

use super::super::finding::Finding;
use super::super::finding::Level::Warning;
use super::commands::{Command, Word};
use crate::guard::places::Places;
use crate::guard::{self, ChangeKind};
use crate::image::policy::Policy;

/// Programs that install software, and what of them does.
const INSTALLERS: &[(&str, &[&str])] = &[
    ("apt", &["install", "remove", "upgrade"]),
    ("apt-get", &["install", "remove", "upgrade"]),
    ("dnf", &["install", "update", "upgrade", "remove"]),
    ("dpkg", &["-i", "--install", "-r", "-P"]),
    ("pip", &["install"]),
    ("pip3", &["install"]),
    ("rpm", &["-i", "-U", "-e", "-ivh", "-Uvh", "--install"]),
    ("yum", &["install", "update", "remove"]),
];
const ACCOUNTS: &[&str] =
    &["adduser", "chpasswd", "groupadd", "groupdel", "groupmod", "passwd", "useradd", "userdel", "usermod"];

pub fn check(path: &str, commands: &[Command], policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |line: usize, (target, why): (&str, String), how: &str| {
        let what = format!("may be written by {how}: {why}");
        findings.push(Finding::new(Warning, path, what).at(line).key(target));
    };
    for command in commands {
        for target in command.writes.iter().filter_map(|word| outside(word, policy)) {
            tell(command.line, target, "a redirection");
        }
        let Some((program, arguments)) = command.program() else { continue };
        // A directory on the way to what is allowed may be made.
        let on_the_way =
            |word: &&Word| program == "mkdir" && policy.guard.site_writable.lead_through(word.prefix().as_bytes());
        let targets = targets(program, arguments).into_iter().filter(|word| !on_the_way(word));
        for target in targets.filter_map(|word| outside(word, policy)) {
            tell(command.line, target, program);
        }
        let first: Vec<&str> = arguments.iter().map(|word| word.text.as_str()).collect();
        let literal = |path: &'static str| Some((path, forbidden(path, policy)?));
        if let Some(target) = literal("/etc/passwd").filter(|_| ACCOUNTS.contains(&program)) {
            tell(command.line, target, program);
        }
        let installs = INSTALLERS.iter().find(|(name, _)| *name == program);
        let installs = installs.is_some_and(|(_, words)| first.iter().any(|word| words.contains(word)));
        if let Some(target) = literal("/usr").filter(|_| installs) {
            tell(command.line, target, program);
        }
    }
    findings
}

/// The words that name what a program writes.
fn targets<'a>(program: &str, arguments: &'a [Word]) -> Vec<&'a Word> {
    let is_option = |word: &&Word| word.text.starts_with('-') && word.text.len() > 1;
    let operands: Vec<&Word> = arguments.iter().filter(|word| !is_option(word)).collect();
    let has_option = |short: char, long: &str| {
        arguments.iter().filter(is_option).any(|word| match word.text.strip_prefix("--") {
            Some(option) => option.split('=').next() == Some(long),
            None => word.text.contains(short),
        })
    };
    match program {
        "cp" | "ln" | "rsync" | "install" | "mv" => {
            if program == "install" && has_option('d', "directory") || has_option('t', "target-directory") {
                return operands;
            }
            match operands.as_slice() {
                // What is moved away is gone.
                all if program == "mv" => all.to_vec(),
                [_, .., last] => vec![*last],
                _ => Vec::new(),
            }
        }
        "tee" | "touch" | "mkdir" | "rmdir" | "rm" | "unlink" | "truncate" | "mkfifo" => operands,
        "chmod" | "chown" | "chgrp" | "chattr" | "setfacl" => operands.into_iter().skip(1).collect(),
        // The first operand is the script, unless an option was.
        "sed" if has_option('i', "in-place") => operands,
        "tar" if arguments.first().is_some_and(|word| word.text.trim_start_matches('-').contains('x')) => {
            let after = |pair: &'a [Word]| match pair {
                [option, dir] if option.text == "-C" || option.text == "--directory" => Some(dir),
                _ => None,
            };
            arguments.windows(2).filter_map(after).collect()
        }
        _ => Vec::new(),
    }
}

/// The path and the guard's reason, if it is one of the image that a site may not write.
fn outside<'a>(word: &'a Word, policy: &Policy) -> Option<(&'a str, String)> {
    let path = word.text.as_str();
    if !word.prefix().starts_with('/') || path == "/" {
        return None;
    }
    Some((path, forbidden(word.prefix(), policy)?))
}

/// By the guard's own rule.
fn forbidden(path: &str, policy: &Policy) -> Option<String> {
    /// Other file systems than the image's.
    const ELSEWHERE: &[&str] = &["/dev", "/proc", "/sys", "/run", "/var/run"];
    let places = &policy.guard.site_writable;
    let below = |dir: &&str| path.strip_prefix(*dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if ELSEWHERE.iter().any(below) {
        return None;
    }
    guard::policy::violation(
        places,
        &Places::own(policy.accounts.root_ssh_keys),
        path.as_bytes(),
        ChangeKind::Changed,
        None,
    )
}
