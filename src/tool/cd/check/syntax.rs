//! Shell syntax by the shells themselves, which read a script with `-n` and run nothing; and shellcheck's opinion.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use super::super::finding::Finding;
use super::super::finding::Level::{self, Hint, Warning};

/// Shellcheck takes seconds for each of these, and nobody writes such scripts by hand.
const MAX_SHELLCHECK: usize = 128 * 1024;

/// A guest sources scripts by bash, or by sh where the image has no bash.
pub fn check(path: &str, text: &[u8], fatal: Level) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (bash, sh) = (parse("bash", text), parse("sh", text));
    match (bash, sh) {
        (Some(Err((line, what))), _) => findings.push(Finding::new(fatal, path, what).at(line).key("bash -n")),
        (_, Some(Err((line, what)))) => {
            let (level, what) = if asks_for_sh(text) {
                (Warning, format!("{what}: its first line asks for sh, and only bash could run it"))
            } else {
                (Hint, format!("{what}: only images with bash can run it"))
            };
            findings.push(Finding::new(level, path, what).at(line).key("sh -n"));
        }
        (None, None) => {
            findings.push(Finding::new(Hint, path, "no shell is installed here, so its syntax was not checked"));
        }
        _ => {}
    }
    if findings.iter().all(|finding| finding.level > fatal) && text.len() <= MAX_SHELLCHECK {
        findings.extend(shellcheck(path, text));
    }
    findings
}

fn asks_for_sh(text: &[u8]) -> bool {
    let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    first.starts_with("#!") && first.split_whitespace().any(|word| word.rsplit('/').next() == Some("sh"))
}

/// `None` if there is no such shell here; else the first error, with its line.
fn parse(shell: &str, text: &[u8]) -> Option<Result<(), (usize, String)>> {
    let output = run(shell, ["-n"], text)?;
    if output.status.success() {
        return Some(Ok(()));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first = words.lines().next().unwrap_or("syntax error");
    Some(Err(located(first)))
}

/// `bash: line 3: what` and dash's `sh: 3: what`.
fn located(message: &str) -> (usize, String) {
    let mut parts = message.splitn(3, ": ");
    let (_, place, what) = (parts.next(), parts.next(), parts.next());
    let line = place.and_then(|place| place.trim_start_matches("line ").parse().ok());
    match (line, what) {
        (Some(line), Some(what)) => (line, what.to_owned()),
        _ => (0, message.to_owned()),
    }
}

#[derive(Deserialize)]
struct Opinion {
    comments: Vec<Comment>,
}

#[derive(Deserialize)]
struct Comment {
    line: usize,
    level: String,
    code: u32,
    message: String,
}

/// Nothing if it is not installed: it is a help, and no requirement.
fn shellcheck(path: &str, text: &[u8]) -> Vec<Finding> {
    // 2034: a variable that a script sets is often another one's.
    let words = ["--norc", "-s", "bash", "-f", "json1", "-S", "warning", "-e", "2034", "-"];
    let Some(output) = run("shellcheck", words, text) else { return Vec::new() };
    let Ok(opinion) = serde_json::from_slice::<Opinion>(&output.stdout) else { return Vec::new() };
    let finding = |comment: Comment| {
        let level = if comment.level == "error" { Warning } else { Hint };
        Finding::new(level, path, comment.message).at(comment.line).key(format!("SC{}", comment.code))
    };
    opinion.comments.into_iter().map(finding).collect()
}

/// Feeds a program a text. `None` if the program is not there.
fn run<const N: usize>(program: &str, words: [&str; N], text: &[u8]) -> Option<Output> {
    let child = Command::new(program)
        .args(words.map(OsStr::new))
        .env("LC_ALL", "C")
        // Both are files that a shell would read first.
        .env_remove("BASH_ENV")
        .env_remove("ENV")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    // It says what is wrong with the first half before it has read the second one: that is no error of ours.
    let fed = child.stdin.take().map(|mut stdin| stdin.write_all(text));
    match fed {
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => None,
        _ => child.wait_with_output().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_shells() {
        let cases = [
            ("bash: line 3: syntax error near `x'", (3, "syntax error near `x'")),
            ("sh: 12: Syntax error: end of file", (12, "Syntax error: end of file")),
            ("sh: what", (0, "sh: what")),
        ];
        for (message, (line, what)) in cases {
            assert_eq!(located(message), (line, what.to_owned()));
        }
    }

    #[test]
    fn who_asks_for_sh() {
        assert!(asks_for_sh(b"#!/bin/sh -e\n") && asks_for_sh(b"#!/usr/bin/env sh"));
        assert!(!asks_for_sh(b"#!/bin/bash\n") && !asks_for_sh(b"sh x\n") && !asks_for_sh(b""));
    }
}
