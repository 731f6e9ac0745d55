//! Secrets in clear: whoever holds the CD, or reads the machine's copy of it, has them.

use super::super::CdError;
use super::super::finding::Finding;
use super::super::finding::Level::Warning;
use super::super::tree::Tree;
use super::commands;
use super::settings::Settings;

/// Private keys and tokens lie at the beginning of small files.
const MAX_LOOKED_AT: usize = 1024 * 1024;

/// What a name of a variable says of its value.
const NAMES: &[&str] = &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY", "API_KEY", "PRIVATE_KEY", "CREDENTIAL"];
/// Prefixes of tokens that are told apart from any other word, and how long the rest is at least.
const TOKENS: &[(&str, usize, &str)] = &[
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("ghp_", 30, "a GitHub token"),
    ("github_pat_", 30, "a GitHub token"),
    ("glpat-", 16, "a GitLab token"),
    ("xoxb-", 20, "a Slack token"),
];
const ADVICE: &str = "name its file in \"cd\": {\"secret\": [...]} of context.json";

/// Looks through every file.
///
/// # Errors
/// If one of them cannot be read.
pub fn check(tree: &Tree, settings: &Settings, findings: &mut Vec<Finding>) -> Result<(), CdError> {
    for variable in &settings.variables {
        if let Some(what) = named(&variable.name, &variable.value) {
            let what = format!("{what} in clear, and context.sh is read by every script");
            findings.push(settings.about_variable(Warning, &variable.name, what));
        }
    }
    for (path, _) in tree.files() {
        let Some(text) = tree.read(path)? else { continue };
        if is_marked(settings, path) {
            continue;
        }
        let text = text.get(..MAX_LOOKED_AT).unwrap_or(&text);
        let text = String::from_utf8_lossy(text);
        findings.extend(content(path, &text));
        if path.ends_with(".sh") && path != "context.sh" {
            findings.extend(script(path, &text));
        }
    }
    Ok(())
}

/// The site has said that this one is secret, or a directory of it.
fn is_marked(settings: &Settings, path: &str) -> bool {
    let marked = settings.value.pointer("/cd/secret").and_then(|list| list.as_array());
    let covers = |secret: &str| path == secret || path.strip_prefix(secret).is_some_and(|rest| rest.starts_with('/'));
    marked.into_iter().flatten().filter_map(|secret| secret.as_str()).any(|secret| covers(secret.trim_end_matches('/')))
}

fn content(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let certificate = text.contains("-----BEGIN CERTIFICATE-----");
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let key = line.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once(" KEY-----"));
        let what = match key {
            Some((kind, _)) if kind.ends_with("PRIVATE") => Some(match certificate {
                true => "a certificate with its private key (a proxy?)",
                false => "a private key",
            }),
            _ => TOKENS.iter().find(|(prefix, rest, _)| has_token(line, prefix, *rest)).map(|(_, _, what)| *what),
        };
        if let Some(what) = what {
            findings.push(Finding::new(Warning, path, format!("{what} in clear: {ADVICE}")).at(at + 1));
        }
    }
    findings
}

/// `prefix` at the start of a word, with at least so many letters and digits behind it.
fn has_token(line: &str, prefix: &str, rest: usize) -> bool {
    line.match_indices(prefix).any(|(at, _)| {
        let (before, from) = line.split_at_checked(at).unwrap_or_default();
        let starts = !before.ends_with(|c: char| c.is_ascii_alphanumeric());
        let behind = from.get(prefix.len()..).unwrap_or_default();
        starts && behind.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count() >= rest
    })
}

/// Assignments and options with a literal value.
fn script(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for command in commands::commands(text) {
        for word in command.words.iter().filter(|word| word.is_literal()) {
            let option = word.text.strip_prefix("--").and_then(|option| option.split_once('='));
            let Some((name, value)) = word.assignment().or(option) else { continue };
            if let Some(what) = named(name, value) {
                let finding =
                    Finding::new(Warning, path, format!("{what} in clear: keep it in a file of its own, and {ADVICE}"));
                findings.push(finding.at(command.line).key(name));
            }
        }
    }
    findings
}

fn named(name: &str, value: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let known = NAMES.iter().any(|part| name.contains(part));
    // A name of a file, a switch, or a hash is no secret by itself.
    let elsewhere = ["_FILE", "_PATH", "_URL", "_DIR"].iter().any(|end| name.ends_with(end)) || value.starts_with('/');
    let switch =
        matches!(value.to_ascii_lowercase().as_str(), "" | "yes" | "no" | "true" | "false" | "0" | "1" | "none");
    match known && !elsewhere && !switch {
        true if name.contains("CRYPTED") => Some("the hash of a password"),
        true => Some("looks like a secret"),
        false => None,
    }
}

/// What explain shows of a variable's value.
pub fn is_secret(name: &str, value: &str) -> bool {
    named(name, value).is_some() || !content("", value).is_empty()
}
