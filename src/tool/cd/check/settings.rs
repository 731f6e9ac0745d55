//! `context.json` and `context.sh`, by the guest's own parsers, which stop at the first error; here they go on behind it.
//! What the variables of `context.sh` ask of the machine is [`super::nebula`]'s.

use super::super::CdError;
use super::super::finding::Finding;
use super::super::finding::Level::{self, Error, Hint, Warning};
use super::super::tree::{Kind, Tree};
use super::{nebula, place};
use crate::config;
use crate::context::opennebula::Nebula;
use crate::context::shell::{self, ShellError, Variable};
use crate::context::site::{Site, Work};
use crate::context::topos::Results;
use crate::image::policy::Policy;
use crate::protocol::Credentials;
use crate::syslog::tls;
use crate::work;

/// Past this the file is something else, and more lines help nobody.
pub const MAX_ERRORS: usize = 20;

/// What the guest will know, as far as it can be read.
#[derive(Debug, Default)]
pub struct Settings {
    /// Text of `context.json`.
    pub json: String,
    /// The same as any JSON.
    pub value: serde_json::Value,
    /// The same as the guest takes it, without its faulty members.
    pub site: Option<Site>,
    /// Those of `context.sh` that scripts see, without its faulty lines.
    pub variables: Vec<Variable>,
    /// Lines that the guest leaves out of them, and why.
    pub left_out: Vec<ShellError>,
    /// What they ask of the machine, without those that cannot work.
    pub nebula: Nebula,
}

impl Settings {
    /// Where a key of `context.json` stands, 0 if that is not known.
    pub fn key_line(&self, path: &str) -> usize {
        let path: Vec<&str> = path.split('.').collect();
        place::member(&self.json, &path).map_or(0, |member| place::line(&self.json, member.start))
    }

    /// Where a variable of `context.sh` is set, 0 if that is not known.
    pub fn variable_line(&self, name: &str) -> usize {
        self.variables.iter().find(|variable| variable.name == name).map_or(0, |variable| variable.line)
    }

    /// Both files together, as the guest goes by them.
    pub fn whole(&self) -> Site {
        let mut site = self.site.clone().unwrap_or_default();
        self.nebula.complete(&mut site);
        site
    }

    /// A finding about a key of `context.json`.
    pub fn about_key(&self, level: Level, path: &str, what: impl Into<String>) -> Finding {
        Finding::new(level, "context.json", what).key(path).at(self.key_line(path))
    }

    /// A finding about a variable of `context.sh`.
    pub fn about_variable(&self, level: Level, name: &str, what: impl Into<String>) -> Finding {
        Finding::new(level, "context.sh", what).key(name).at(self.variable_line(name))
    }
}

/// Reads both, as far as they are there.
///
/// # Errors
/// If one of them cannot be read.
pub fn check(tree: &Tree, policy: &Policy, findings: &mut Vec<Finding>) -> Result<Settings, CdError> {
    let mut settings = Settings::default();
    if let Some(text) = tree.read("context.json")? {
        settings.json = String::from_utf8_lossy(&text).into_owned();
        settings.value = serde_json::from_slice(&text).unwrap_or_default();
        let (site, faults) = site(&text);
        settings.site = site;
        if text.starts_with(b"\xef\xbb\xbf") {
            findings.push(Finding::new(Hint, "context.json", BOM).at(1));
        }
        findings.extend(faults);
        findings.extend(meaning(tree, &settings)?);
    }
    if let Some(text) = tree.read("context.sh")? {
        let text = shell::text(text).map_err(|error| findings.push(about_line(Error, &error)));
        let (variables, faults) = variables(&text.unwrap_or_default());
        findings.extend(faults);
        (settings.variables, settings.left_out) = shell::usable(variables);
        findings.extend(settings.left_out.iter().map(|warning| about_line(Warning, warning)));
        settings.nebula = nebula::check(tree, policy, &settings.variables, findings);
    }
    Ok(settings)
}

/// A finding as the guest says it, the name of the variable apart.
pub fn about_line(level: Level, error: &ShellError) -> Finding {
    let (name, what) = match error.why.split_once(": ") {
        Some((name, what)) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => (name, what),
        _ => ("", error.why.as_str()),
    };
    Finding::new(level, "context.sh", what).key(name).at(error.line)
}

/// What editors of another system put in front of a text.
pub const BOM: &str = "begins with a byte order mark; save it as UTF-8 without one";

/// The context without its faulty members, and a finding for each of these.
fn site(text: &[u8]) -> (Option<Site>, Vec<Finding>) {
    let mut text = String::from_utf8_lossy(text).into_owned();
    let mut findings: Vec<Finding> = Vec::new();
    let mut removed: Vec<String> = Vec::new();
    for _ in 0..MAX_ERRORS {
        let error = match config::parse::<Site>("context.json", text.as_bytes()) {
            Ok(site) => return (Some(site), findings),
            Err(error) => error,
        };
        let path = error.key.trim_end_matches(": ").to_owned();
        // What we took out is missed by whoever held it, and that is no news.
        let below = |member: &str| member.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'));
        let ours = match error.why.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            Some(field) => removed.contains(&format!("{path}.{field}")),
            None => removed.iter().any(|member| below(member)),
        };
        if !ours {
            findings.push(Finding::new(Error, "context.json", error.why).key(path.as_str()).at(error.line));
        }
        // An element of a list is not taken out alone: the others would get its number.
        let keys: Vec<&str> = path.split('[').next().unwrap_or_default().split('.').collect();
        let left = place::member(&text, &keys).and_then(|member| place::without(&text, member));
        let Some(left) = left else { break };
        removed.push(keys.join("."));
        text = left;
    }
    (None, findings)
}

/// What the guest checks once the file is read, and what nobody can have meant.
fn meaning(tree: &Tree, settings: &Settings) -> Result<Vec<Finding>, CdError> {
    let Some(site) = &settings.site else { return Ok(Vec::new()) };
    let is_file = |path: &str| matches!(tree.get(path), Some(Kind::File(_)));
    let faults = site.faults(|path| tree.has_file(path), is_file);
    let mut findings: Vec<Finding> =
        faults.iter().map(|(key, what)| settings.about_key(Error, key, what.as_str())).collect();
    if let Some(syslog) = site.syslog.as_ref().filter(|_| faults.iter().all(|(key, _)| !key.starts_with("syslog."))) {
        let text = |file: &Option<String>| match file {
            Some(file) => Ok::<_, CdError>(tree.read(file)?.map(|text| String::from_utf8_lossy(&text).into_owned())),
            None => Ok(None),
        };
        let credentials =
            Credentials { ca: text(&syslog.ca)?, certificate: text(&syslog.certificate)?, key: text(&syslog.key)? };
        if let Err(error) = tls::check(syslog, &credentials) {
            // The machine goes on, but its log stays where it is.
            let level = if syslog.require { Error } else { Warning };
            findings.push(settings.about_key(level, error.key, format!("{}: {}", error.file, error.why)));
        }
    }
    if let Some(work) = &site.work {
        let mut credentials = work::Credentials::default();
        for (key, file) in work.files() {
            credentials.put(key, tree.read(file)?);
        }
        if faults.iter().all(|(key, _)| !key.starts_with("work."))
            && let Some((key, what)) = work::fault(work, &credentials)
        {
            findings.push(settings.about_key(Error, key, what));
        }
    }
    if let Some(Work::Topos(topos)) = &site.work
        && topos.results == Some(Results::Pool(topos.pool.clone()))
    {
        let what = "results go into the pool that tokens come from, so each result becomes a new token";
        findings.push(settings.about_key(Warning, "work.topos.results", what));
    }
    Ok(findings)
}

/// The variables without faulty lines, and a finding for each of these.
fn variables(text: &str) -> (Vec<Variable>, Vec<Finding>) {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let mut findings = Vec::new();
    for _ in 0..MAX_ERRORS {
        let error = match shell::parse(&lines.join("\n")) {
            Ok(variables) => return (variables, findings),
            Err(error) => error,
        };
        findings.push(about_line(Error, &error));
        // Behind a quote that is never closed there is no line that could be read.
        if error.why.contains("never closed") {
            lines.truncate(error.line.saturating_sub(1));
        } else if let Some(line) = lines.get_mut(error.line.saturating_sub(1)) {
            *line = "";
        }
    }
    (Vec::new(), findings)
}
