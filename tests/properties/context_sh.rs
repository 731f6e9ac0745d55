//! `context.sh`: read by us as every shell reads it, or not at all.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use ctxinit::context::shell::{ShellError, assignments, parse};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::{holds, holds_for, text_of};

/// What values are made of.
const PIECES: &[&str] = &[
    "a",
    "B",
    "0",
    "_",
    "'",
    "''",
    "'\\''",
    "\"",
    "\\",
    "\\\\",
    "\n",
    "\\\n",
    "$",
    "$A",
    "${A}",
    "$(echo x)",
    "`",
    "#",
    " #",
    ";",
    " ",
    "\t",
    "=",
    "~",
    ":~",
    "/",
    "*",
    "?",
    "[a]",
    "{a,b}",
    "!",
    "%",
    "&",
    "|",
    "<",
    ">",
    "(",
    ")",
    "\u{e9}",
    "\u{1f4bf}",
    "\u{7f}",
];

fn names_and_values() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[A-Z_][A-Z0-9_]{0,8}", text_of(PIECES, 8)), 0..6)
}

/// As the protocol wants it, by no code of ours.
fn written(variables: &[(String, String)]) -> String {
    let quoted = |value: &str| value.split('\'').collect::<Vec<_>>().join("'\\''");
    variables.iter().map(|(name, value)| format!("{name}='{}'\n", quoted(value))).collect()
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, ShellError> {
    Ok(parse(text)?.into_iter().map(|variable| (variable.name, variable.value)).collect())
}

#[test]
fn every_text_is_read_or_refused_with_its_line() {
    const MORE: &[&str] = &["A=", "export ", "export\t", "A", "\nB='", "'\n", "\r\n", "\0", "-", "1"];
    let pieces: &'static [&'static str] = [PIECES, MORE].concat().leak();
    let texts = prop_oneof![text_of(pieces, 20), any::<String>()];
    holds(texts, |text| {
        if let Err(error) = parse(&text) {
            prop_assert!((1..=text.split('\n').count()).contains(&error.line), "{}", error);
        }
        Ok(())
    });
}

#[test]
fn what_is_written_is_what_is_read() {
    holds(names_and_values(), |variables| {
        let text = written(&variables);
        prop_assert_eq!(pairs(&text).map_err(reject)?, variables);
        prop_assert_eq!(assignments(&parse(&text).map_err(reject)?), text);
        Ok(())
    });
}

/// Files as a person may write them. What of them we take, a shell takes as well, with the same values.
#[test]
fn what_we_take_is_what_a_shell_makes_of_it() {
    const BETWEEN: &[&str] = &["\n", "\n\n", "; ", ";", " ", "\t", " # it's a 'comment\n", "\n# $(comment)\n", "\n  "];
    const NAMES: &[&str] = &["V0", "V1", "V2_", "_V3", "export V0", "export \tV4", "V0"];
    let statement = (prop::sample::select(NAMES), word(), prop::sample::select(BETWEEN));
    let file = prop::collection::vec(statement, 1..5);
    // A process each; the cases that count are those that we take.
    let shells = shells();
    holds_for(200, file, |statements| {
        let text: String = statements.iter().map(|(name, word, end)| format!("{name}={word}{end}")).collect();
        let Ok(taken) = pairs(&text) else { return Ok(()) };
        let taken: BTreeMap<String, String> = taken.into_iter().collect();
        for shell in &shells {
            prop_assert_eq!(&sourced(shell, &text).map_err(reject)?, &taken, "{} {:?}", shell, &text);
        }
        Ok(())
    });
}

/// What [`assignments`] writes for the scripts, read by the shells that source it.
#[test]
fn what_scripts_get_is_what_was_read() {
    let shells = shells();
    holds_for(100, names_and_values(), |variables| {
        let variables: Vec<_> = variables.into_iter().map(|(name, value)| (format!("V{name}"), value)).collect();
        let text = assignments(&parse(&written(&variables)).map_err(reject)?);
        let wanted: BTreeMap<String, String> = variables.into_iter().collect();
        for shell in &shells {
            prop_assert_eq!(&sourced(shell, &text).map_err(reject)?, &wanted, "{} {:?}", shell, &text);
        }
        Ok(())
    });
}

/// A value, quoted in one of the ways of a shell, or not at all.
fn word() -> impl Strategy<Value = String> {
    let plain = text_of(
        &["a", "B", "/", ":", "=", "\\ ", "\\'", "\\\n", "~", "#", "*", "[x]", "{a,b}", "!", "%", "\u{e9}", ",", "-"],
        5,
    );
    let single = text_of(PIECES, 5).prop_map(|text| format!("'{}'", text.replace('\'', "")));
    let double =
        text_of(&["a", " ", "'", "\\\"", "\\\\", "\\$", "\\`", "\\n", "\\\n", "\n", "#", "~", "!", "*", "\u{e9}"], 5);
    let double = double.prop_map(|text| format!("\"{text}\""));
    let piece = prop_oneof![3 => plain, 2 => single, 2 => double, 1 => text_of(PIECES, 3)];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

/// Bash, which HEPiX has, and the POSIX shells that an image may have in its place.
fn shells() -> Vec<&'static str> {
    let there = |shell: &&str| Command::new(shell.split(' ').next().unwrap_or_default()).arg("true").output().is_ok();
    let shells: Vec<_> = ["bash --norc", "dash", "busybox sh"].into_iter().filter(there).collect();
    assert!(!shells.is_empty());
    shells
}

/// The variables named V... that a shell has after sourcing `text` in an empty environment.
fn sourced(shell: &str, text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    let mut words = shell.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .args(["-c", "set -a; . \"$1\" || exit; exec /usr/bin/env -0", "sh"])
        .arg(file.path())
        .env_clear();
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(format!("{shell}: {}: {}: {text:?}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let output = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    let variables = output.split_terminator('\0').filter_map(|line| line.split_once('='));
    // The others are the shell's.
    let variables = variables.filter(|(name, _)| name.starts_with('V') || name.starts_with("_V"));
    Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn reject(error: impl ToString) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
