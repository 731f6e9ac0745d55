//! `ctxtool cd explain`: what a machine would do with a CD, phase by phase, without booting one.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use super::check::settings::{self, Settings};
use super::check::{self, is_secret};
use super::finding::{Finding, Findings, Level};
use super::tree::{Entry, Kind, Tree};
use super::{CdError, files};
use crate::context::medium::{COPY, MARKS};
use crate::context::shell;
use crate::context::signature::{SIGNATURE, SUMS, judge};
use crate::context::site::{Protocol, Site, Work};
use crate::image::policy::{OnFailure, Policy};
use crate::logging::printable;
use crate::script::{self, Interpreter};

/// Say what a machine would do with a CD, phase by phase, without booting one
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Explain {
    /// An ISO image, or the directory of a CD to be
    #[arg(value_name = "ISO|DIR")]
    what: PathBuf,
    /// The image's image.json, so that its limits count and not the default ones
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

const HELP: &str = "\
Values of variables that look like secrets are hidden. What is wrong with a CD is told by `ctxtool cd check`.

Example:
  $ ctxtool cd explain my-cd
  ...
  prolog    prolog.sh start, sourced by bash (else sh) in /var/lib/hepix/context, before any interface is up
            at most 300 s; if it fails, the machine ends with code 500";

/// One phase and what is to be said of it.
#[derive(Debug)]
struct Part {
    name: &'static str,
    lines: Vec<String>,
    /// Why the machine would end here.
    fatal: Option<String>,
}

impl Part {
    fn new(name: &'static str, lines: Vec<String>) -> Self {
        Self { name, lines, fatal: None }
    }
}

/// The text.
///
/// # Errors
/// If the CD, or the image's policy, cannot be read at all.
pub fn explain(options: &Explain) -> Result<String, CdError> {
    let policy = check::policy(options.image.as_deref())?;
    let tree = Tree::open(&options.what)?;
    let findings = check::look(&tree, &policy)?;
    let settings = settings::check(&tree, &mut Vec::new())?;
    let signature = signature(&tree, options.image.as_ref().map(|_| &policy))?;
    let known = if options.image.is_some() { "its limits" } else { "the default limits" };
    let mut text = format!("{}: what a machine does with it, by {known}\n\n", tree.name);
    let mut over = None;
    for part in parts(&tree, &policy, &settings, &findings, signature) {
        let lines = match over {
            Some(phase) => vec![format!("not come to, as {phase} fails")],
            None => part.lines.into_iter().chain(part.fatal.clone()).collect(),
        };
        write_part(&mut text, part.name, &lines);
        over = over.or(part.fatal.map(|_| part.name));
    }
    write_part(&mut text, "end", &[end(&tree, over)]);
    let passed_over = left_out(&tree, &settings);
    if !passed_over.is_empty() {
        write_part(&mut text, "left out", &passed_over);
    }
    let _ = write!(text, "\ncheck: {}", findings.summary());
    Ok(text)
}

/// The name once, then its lines under each other.
fn write_part(text: &mut String, name: &str, lines: &[String]) {
    for (at, line) in lines.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        let _ = writeln!(text, "{name:<10}{}", printable(line));
    }
}

fn parts(tree: &Tree, policy: &Policy, settings: &Settings, findings: &Findings, signature: Judged) -> Vec<Part> {
    let nothing = Site::default();
    let site = settings.site.as_ref().unwrap_or(&nothing);
    vec![
        medium(tree, policy, settings, findings, signature),
        script_part(tree, policy, findings, "prolog"),
        network(policy, site, settings),
        logging(site),
        script_part(tree, policy, findings, "epilog"),
        work(policy, site),
    ]
}

/// The first error that the guest meets in one of these files.
fn first_error<'a>(findings: &'a Findings, files: &[&str]) -> Option<&'a Finding> {
    findings.findings.iter().find(|finding| finding.level == Level::Error && files.contains(&finding.file.as_str()))
}

fn medium(tree: &Tree, policy: &Policy, settings: &Settings, findings: &Findings, signature: Judged) -> Part {
    let (count, bytes) = tree.files().fold((0, 0), |(count, bytes), (_, size)| (count + 1, bytes + size));
    let mut lines = Vec::new();
    if let Some(volume) = &tree.volume {
        let names = match (volume.rock_ridge, volume.joliet) {
            (true, _) => "Rock Ridge names",
            (false, true) => "Joliet names",
            (false, false) => "names of 8 letters, a dot and 3",
        };
        lines.push(format!("ISO 9660 volume {:?} of {} bytes, {names}", volume.label, volume.size));
    }
    let marks: Vec<&str> = MARKS.iter().copied().filter(|mark| tree.get(mark).is_some()).collect();
    if !marks.is_empty() {
        lines.push(format!("known as a context CD by {}, whatever its label and its drive", marks.join(", ")));
    }
    let limit = policy.medium.size_mb;
    lines.push(format!("all of it, {count} files of {bytes} bytes, is copied to memory (at most {limit} MiB): {COPY}"));
    lines.push(signature.line);
    if let Some(site) = &settings.site {
        lines.push(format!("context.json says {}", told(site)));
    }
    lines.extend(variables(settings));
    let refused = "refused, so the machine ends with code 500";
    let error = first_error(findings, &["", "context.json", "context.sh"]).map(|error| format!("{refused}: {error}"));
    let fatal = if signature.forbids { Some(format!("{refused}, and nothing of it is used")) } else { error };
    Part { name: "medium", lines, fatal }
}

/// What is to be thought of the signature.
struct Judged {
    line: String,
    forbids: bool,
}

/// By the guest's own judge where the image is known; else only whether there is one.
fn signature(tree: &Tree, policy: Option<&Policy>) -> Result<Judged, CdError> {
    let Some(policy) = policy else {
        let line = if tree.has_file(SIGNATURE) {
            "signed; whether by somebody whom the image trusts, --image or ctxtool cd verify says"
        } else {
            "not signed, so an image that requires a signature refuses it"
        };
        return Ok(Judged { line: line.to_owned(), forbids: false });
    };
    let (files, sums, signature) = (files::hashes(tree.root())?, tree.read(SUMS)?, tree.read(SIGNATURE)?);
    let (asked, uuid) = (&policy.signature, &policy.image.uuid);
    let judgement = judge(&files, sums.as_deref(), signature.as_deref(), asked, uuid, SystemTime::now());
    Ok(Judged { line: judgement.to_string(), forbids: judgement.forbids(asked) })
}

fn told(site: &Site) -> String {
    let Site { hostname, syslog, work, .. } = site;
    let said = [
        hostname.as_ref().map(|_| "the machine's name"),
        syslog.as_ref().map(|_| "where the log goes"),
        work.as_ref().map(|_| "where work comes from"),
    ];
    let said: Vec<&str> = said.into_iter().flatten().collect();
    if said.is_empty() { "nothing, the defaults hold".to_owned() } else { said.join(", ") }
}

fn variables(settings: &Settings) -> Vec<String> {
    let seen = settings.variables.iter().filter(|variable| !shell::is_dangerous(&variable.name));
    let shown = seen.map(|variable| {
        let value =
            if is_secret(&variable.name, &variable.value) { "(hidden)".to_owned() } else { shown(&variable.value) };
        format!("  {}={value}", variable.name)
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let head = format!("context.sh is parsed, never run; scripts see {} variables:", shown.len());
    [vec![head], shown].concat()
}

/// Quoted, on one line, and not longer than one.
fn shown(value: &str) -> String {
    const MAX: usize = 60;
    let short: String = value.chars().take(MAX).collect();
    let more = if short.len() < value.len() { "..." } else { "" };
    format!("'{}'{more}", short.replace('\'', "'\\''"))
}

fn script_part(tree: &Tree, policy: &Policy, findings: &Findings, name: &'static str) -> Part {
    let file = format!("{name}.sh");
    let Ok(Some(text)) = tree.read(&file) else {
        return Part::new(name, vec![format!("skipped: no {file} on the CD")]);
    };
    let (timeout, on_failure, when) = match name {
        "prolog" => {
            (policy.scripts.prolog.timeout_secs, policy.scripts.prolog.on_failure, "before any interface is up")
        }
        _ => (policy.scripts.epilog.timeout_secs, policy.scripts.epilog.on_failure, "with the network up"),
    };
    let dir = script::CONTEXT_DIR;
    let init = if tree.has_file("init.sh") { ", after init.sh" } else { "" };
    let how = match script::interpreter(&text) {
        Interpreter::Shell => format!("{file} start, sourced by bash (else sh) in {dir}{init}, {when}"),
        Interpreter::Other(words) => format!("{file} start, run by {} in {dir}, {when}", words.join(" ")),
    };
    let meaning = match on_failure {
        OnFailure::Stop => "the machine ends with code 500",
        OnFailure::Continue => "it is reported, and the boot goes on",
    };
    let mut lines =
        vec![how, format!("at most {timeout} s, then all that it started is killed; if it fails, {meaning}")];
    let broken = first_error(findings, &[&file]).map(|error| format!("it fails: {error}"));
    let fatal = match on_failure {
        OnFailure::Stop => broken,
        OnFailure::Continue => {
            lines.extend(broken);
            None
        }
    };
    Part { name, lines, fatal }
}

fn network(policy: &Policy, site: &Site, settings: &Settings) -> Part {
    let limit = policy.network.timeout_secs;
    let configured = settings.value.get("network").is_some();
    let cards: Vec<&str> = settings
        .variables
        .iter()
        .filter_map(|v| v.name.strip_suffix("_MAC"))
        .filter(|n| n.starts_with("ETH"))
        .collect();
    let addresses = if configured {
        "addresses as context.json says".to_owned()
    } else if cards.is_empty() {
        format!("addresses by DHCP on every card; without a lease after {limit} s the machine ends with code 500")
    } else {
        format!("addresses of {} as context.sh says", cards.join(", "))
    };
    let name = match &site.hostname {
        Some(name) => format!("the machine's name is {name}, whatever DHCP says"),
        None => "the machine's name is the one that DHCP gives".to_owned(),
    };
    Part::new("network", vec![addresses, name])
}

fn logging(site: &Site) -> Part {
    let line = match &site.syslog {
        Some(syslog) => {
            let protocol = match syslog.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            format!("the log, from its first record on, goes to {} port {} by {protocol}", syslog.server, syslog.port)
        }
        None => "skipped: no syslog server in context.json, so the log stays in the machine".to_owned(),
    };
    Part::new("logging", vec![line])
}

fn work(policy: &Policy, site: &Site) -> Part {
    let (source, whose) = match (&site.work, &policy.work) {
        (Some(work), _) => (work, "context.json"),
        (None, Some(work)) => (work, "the image"),
        (None, None) => {
            let line =
                "none, unless the image names a source: the machine ends with code 200 once the scripts are done";
            return Part::new("work", vec![line.to_owned()]);
        }
    };
    let Work::Topos(topos) = source;
    let results = match &topos.results {
        Some(pool) => format!("results into pool {pool}"),
        None => "results are only logged".to_owned(),
    };
    let limits = site.limits;
    Part::new(
        "work",
        vec![
            format!("tokens from pool {} of {} ({whose}), {results}", topos.pool, topos.url),
            format!(
                "each locked for {} s and renewed; ends after {} s without work, or {} s without the server",
                topos.lock_secs, limits.idle_secs, limits.fault_secs
            ),
        ],
    )
}

/// `over` is the phase that failed.
fn end(tree: &Tree, over: Option<&str>) -> String {
    let due: &[&str] = match over {
        Some("medium") => &[],
        Some("prolog") => &["prolog.sh"],
        _ => &["epilog.sh", "prolog.sh"],
    };
    let stops: Vec<String> = due.iter().filter(|file| tree.has_file(file)).map(|file| format!("{file} stop")).collect();
    let scripts = if stops.is_empty() {
        "no script to stop".to_owned()
    } else {
        format!("{} (at most 30 s each, if its start ran)", stops.join(", then "))
    };
    format!("{scripts}; the last log records, the report, power off")
}

/// What is on the CD and has no effect by itself.
fn left_out(tree: &Tree, settings: &Settings) -> Vec<String> {
    const READ: &[&str] = &["prolog.sh", "epilog.sh", "init.sh", "context.sh", "context.json"];
    const MANY: usize = 8;
    let bad = settings.variables.iter().filter(|variable| shell::is_dangerous(&variable.name));
    let mut lines: Vec<String> =
        bad.map(|variable| format!("{} of context.sh: it would change how shells work", variable.name)).collect();
    let special = tree.entries.iter().filter(|entry| entry.kind == Kind::Special);
    lines.extend(special.map(|entry| format!("{}: a device, pipe or socket", entry.path)));
    let is_other = |entry: &&Entry| matches!(entry.kind, Kind::File(_)) && !READ.contains(&entry.path.as_str());
    let others: Vec<&str> = tree.entries.iter().filter(is_other).map(|entry| entry.path.as_str()).collect();
    if !others.is_empty() {
        let more = if others.len() > MANY { format!(" and {} more", others.len() - MANY) } else { String::new() };
        let some: Vec<&str> = others.into_iter().take(MANY).collect();
        lines.push(format!("{}{more}: copied, for the scripts to use", some.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent::phases::PHASES;

    fn explained(files: &[(&str, &str)], image: Option<&str>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let cd = dir.path().join("cd");
        fs::create_dir(&cd).unwrap();
        for (name, text) in files {
            fs::write(cd.join(name), text).unwrap();
        }
        let image = image.map(|text| {
            let path = dir.path().join("image.json");
            fs::write(&path, text).unwrap();
            path
        });
        explain(&Explain { what: cd, image }).unwrap()
    }

    #[test]
    fn phases_are_the_guests_in_its_order() {
        let names: Vec<&str> = PHASES.iter().map(|phase| phase.name).collect();
        let text = explained(&[("prolog.sh", "echo $1\n")], None);
        let told = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
        let told: Vec<&str> = told.filter_map(|line| line.split_whitespace().next()).collect();
        let at = |name: &str| names.iter().position(|known| *known == name);
        let places: Vec<usize> = told.iter().filter_map(|name| at(name)).collect();
        assert!(places.len() == 6 && places.is_sorted(), "{told:?} of {names:?}");
        assert!(told.contains(&"end"), "{text}");
    }

    #[test]
    fn what_each_file_does_is_told() {
        let text = explained(
            &[
                ("prolog.sh", "echo $1\n"),
                ("epilog.sh", "#!/usr/bin/python3\n"),
                ("init.sh", ":\n"),
                ("ca.txt", "x"),
                ("context.sh", "SITE='a'\\''b'\nDB_PASSWORD=geheim\nPATH=/x\n"),
                ("context.json", r#"{"hostname": "wn1", "syslog": {"server": "10.0.0.1", "protocol": "udp"}}"#),
            ],
            None,
        );
        for part in [
            "prolog    prolog.sh start, sourced by bash (else sh) in /var/lib/hepix/context, after init.sh, before any",
            "          at most 300 s, then all that it started is killed; if it fails, the machine ends with code 500\n",
            "epilog    epilog.sh start, run by /usr/bin/python3 in /var/lib/hepix/context, with the network up\n",
            "            SITE='a'\\''b'\n",
            "            DB_PASSWORD=(hidden)\n",
            "the machine's name is wn1, whatever DHCP says\n",
            "goes to 10.0.0.1 port 514 by udp\n",
            "end       epilog.sh stop, then prolog.sh stop (",
            "left out  PATH of context.sh: it would change how shells work\n          ca.txt: copied, for the",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn what_fails_is_told_where_it_fails() {
        let text = explained(&[("prolog.sh", ""), ("context.json", "{\"x\": 1}")], None);
        assert!(
            text.contains("\n          refused, so the machine ends with code 500: context.json:1: x: unknown"),
            "{text}"
        );
        assert!(text.contains("\nprolog    not come to, as medium fails\n"), "{text}");
        assert!(text.contains("\nend       no script to stop; "), "{text}");
        let image = r#"{"image": {"uuid": "u", "version": "1"}, "payload": {"command": ["/w"]},
            "scripts": {"prolog": {"on_failure": "continue", "timeout_secs": 7}}}"#;
        let files = [("prolog.sh", ""), ("epilog.sh", "")];
        let text = explained(&files, Some(image));
        assert!(text.contains("at most 7 s") && text.contains("it is reported, and the boot goes on\n"), "{text}");
        assert!(text.contains("          it fails: prolog.sh: the file is empty\n"), "{text}");
        assert!(text.contains("work      not come to, as epilog fails\n"), "{text}");
    }

    #[test]
    fn a_signature_is_judged_as_the_image_asks() {
        let files = [("prolog.sh", "echo $1\n")];
        let image = |need: &str| {
            let key = "RWTjgr25YhgUjqb1XtxQPN5IcKafK1yFVYeHV3x/BYvQuH5DheMDpS0Y";
            format!(
                r#"{{"image": {{"uuid": "u", "version": "1"}}, "payload": {{"command": ["/w"]}},
                    "signature": {{"need": "{need}", "keys": ["{key}"]}}}}"#
            )
        };
        let text = explained(&files, Some(&image("require")));
        assert!(text.contains("signature unsigned: there is no SHA256SUMS.minisig on the CD\n"), "{text}");
        assert!(text.contains("refused, so the machine ends with code 500, and nothing of it is used\n"), "{text}");
        let text = explained(&files, Some(&image("warn")));
        assert!(text.contains("signature unsigned: ") && text.contains("prolog    prolog.sh start"), "{text}");
        assert!(explained(&files, None).contains("          not signed, so an image that requires"));
    }

    #[test]
    fn work_and_its_absence() {
        let text = explained(
            &[(
                "context.json",
                r#"{"work": {"topos": {"url": "http://10.0.0.1/4.1", "pool": "mc", "results": "out"}}}"#,
            )],
            None,
        );
        assert!(
            text.contains(
                "work      tokens from pool mc of http://10.0.0.1/4.1 (context.json), results into pool out\n"
            )
        );
        assert!(text.contains("prolog    skipped: no prolog.sh on the CD\n"), "{text}");
        assert!(explained(&[("context.json", "{}")], None).contains("work      none, unless the image names a source"));
    }
}
