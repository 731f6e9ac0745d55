//! `ctxtool cd explain`: what a machine would do with a CD, phase by phase, without booting one.

mod disk;
mod medium;
mod network;
mod scripts;

use std::fmt::Write;
use std::path::PathBuf;

use super::CdError;
use super::check::{self, settings};
use super::finding::{Finding, Findings, Level};
use super::tree::{Entry, Kind, Tree};
use crate::agent::hooks::Found;
use crate::context::site::Site;
use crate::image::policy::Policy;
use crate::text::printable;
use settings::Settings;

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
  prolog       prolog.sh start, sourced by bash (else sh) in /var/lib/hepix/context, before any interface is up
               at most 300 s, 512 MiB of memory and 1024 KiB of output; if it fails, the machine ends with code 500";

/// Of the longest name of a phase, and a blank.
const WIDTH: usize = 13;

/// All that is known.
struct Known<'a> {
    tree: &'a Tree,
    policy: &'a Policy,
    /// Whether that is the image's own, and not the default one.
    of_image: bool,
    settings: &'a Settings,
    /// What both files say together.
    site: Site,
    findings: &'a Findings,
    hooks: Found,
}

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
    let image = check::policy(options.image.as_deref())?;
    let tree = Tree::open(&options.what)?;
    let findings = check::look(&tree, image.as_ref())?;
    let of_image = image.is_some();
    let policy = image.unwrap_or_else(Policy::unread);
    let settings = settings::check(&tree, &policy, &mut Vec::new())?;
    let known = Known {
        tree: &tree,
        policy: &policy,
        of_image,
        settings: &settings,
        site: settings.whole(),
        findings: &findings,
        hooks: Found::of_cd(tree.root(), policy.scripts.epilog).unwrap_or_default(),
    };
    let limits = if known.of_image { "its limits" } else { "the default limits" };
    let mut text = format!("{}: what a machine does with it, by {limits}\n\n", tree.name);
    let mut over = None;
    for part in parts(&known)? {
        let lines = match over {
            Some(phase) => vec![format!("not come to, as {phase} fails")],
            None => part.lines.into_iter().chain(part.fatal.clone()).collect(),
        };
        write_part(&mut text, part.name, &lines);
        over = over.or(part.fatal.map(|_| part.name));
    }
    write_part(&mut text, "end", &[scripts::end(&known, over)]);
    write_part(&mut text, "left out", &left_out(&known));
    let _ = write!(text, "\ncheck: {}", findings.summary());
    Ok(text)
}

/// The name once, then its lines under each other.
fn write_part(text: &mut String, name: &str, lines: &[String]) {
    for (at, line) in lines.iter().enumerate() {
        let name = if at == 0 { name } else { "" };
        let _ = writeln!(text, "{name:<WIDTH$}{}", printable(line));
    }
}

/// In the order of the guest's phases, from the first that has to do with the CD.
fn parts(known: &Known<'_>) -> Result<Vec<Part>, CdError> {
    Ok(vec![
        medium::medium(known)?,
        scripts::prolog(known),
        network::firewall(known),
        network::network(known),
        network::logging(known),
        network::platform(known),
        scripts::start_script(known),
        scripts::epilog(known),
        scripts::hooks(known),
        scripts::seal(known),
        disk::disk(known),
        network::work(known),
    ])
}

impl Known<'_> {
    /// The first error among these.
    fn error(&self, is_meant: impl Fn(&Finding) -> bool) -> Option<&Finding> {
        self.findings.findings.iter().find(|finding| finding.level == Level::Error && is_meant(finding))
    }
}

/// What is on the CD and has no effect by itself.
fn left_out(known: &Known<'_>) -> Vec<String> {
    const READ: &[&str] = &["prolog.sh", "epilog.sh", "init.sh", "context.sh", "context.json"];
    let Known { tree, settings, hooks, .. } = known;
    let mut lines: Vec<String> = settings.left_out.iter().map(ToString::to_string).collect();
    if !settings.nebula.not_done.is_empty() {
        lines.push(format!("context.sh: ctxinit does nothing about {}", settings.nebula.not_done.join(", ")));
    }
    let special = tree.entries.iter().filter(|entry| entry.kind == Kind::Special);
    lines.extend(special.map(|entry| format!("{}: a device, pipe or socket", entry.path)));
    lines.extend(hooks.ignored.iter().map(|(path, why)| format!("{path}: no hook, as {why}")));
    let is_used = |path: &String| {
        READ.contains(&path.as_str())
            || hooks.ignored.iter().any(|(ignored, _)| ignored == path)
            || hooks.hooks.iter().any(|hook| hook.name == *path)
    };
    let is_other = |entry: &&Entry| matches!(entry.kind, Kind::File(_)) && !is_used(&entry.path);
    let others: Vec<&str> = tree.entries.iter().filter(is_other).map(|entry| entry.path.as_str()).collect();
    if !others.is_empty() {
        lines.push(format!("{}: copied, for the scripts to use", first_of(&others)));
    }
    lines
}

/// Named, as far as there is room on a line.
fn first_of<T: AsRef<str>>(all: &[T]) -> String {
    const MANY: usize = 8;
    let some: Vec<&str> = all.iter().take(MANY).map(AsRef::as_ref).collect();
    let more = if all.len() > MANY { format!(" and {} more", all.len() - MANY) } else { String::new() };
    format!("{}{more}", some.join(", "))
}

#[cfg(test)]
mod tests;
