//! What is on the CD: marks, names, kinds, sizes, and what other systems' disks look like.

use std::collections::HashMap;
use std::path::{Component, Path};

use super::super::finding::Finding;
use super::super::finding::Level::{Error, Hint, Warning};
use super::super::tree::{Entry, Kind, Tree};
use super::super::volume::Volume;
use crate::context::medium::{self, MARKS};
use crate::image::policy::Policy;

/// Joliet: file identifiers have at most 64 characters of UCS-2 (128 bytes).
const JOLIET_UNITS: usize = 64;
const MIB: u64 = 1024 * 1024;

pub fn check(tree: &Tree, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(volume) = &tree.volume {
        findings.extend(volume_faults(volume));
        if volume.present < volume.size {
            return findings;
        }
    }
    findings.extend(marks(tree));
    findings.extend(limits(tree, policy));
    for entry in &tree.entries {
        findings.extend(kind(tree, entry));
        findings.extend(name(entry));
    }
    findings.extend(collisions(tree));
    if findings.iter().all(|finding| finding.level != Error) {
        findings.extend(copied(tree, policy));
    }
    findings
}

fn volume_faults(volume: &Volume) -> Vec<Finding> {
    let Volume { size, present, .. } = *volume;
    let mut findings = Vec::new();
    if present < size {
        let what = format!("truncated: the volume has {size} bytes, and {present} are there");
        findings.push(Finding::new(Error, "", what));
    }
    if !volume.rock_ridge && !volume.joliet {
        let what = "neither Rock Ridge nor Joliet: names have 8 letters, a dot and 3, so no machine sees a \
                    context.json (ctxtool cd build writes both)";
        findings.push(Finding::new(Warning, "", what));
    }
    let label = volume.label.to_ascii_lowercase();
    if label == "cidata" || label == "config-2" {
        let what = format!("label {}: a cloud-init in the image would take this CD for its own", volume.label);
        findings.push(Finding::new(Hint, "", what));
    }
    findings
}

/// The guest's own copier has the last word on what it takes.
fn copied(tree: &Tree, policy: &Policy) -> Option<Finding> {
    let limit = u64::from(policy.medium.size_mb) * MIB;
    let scratch = tempfile::Builder::new().prefix("ctxtool-").tempdir();
    let copied = scratch
        .map_err(|error| error.to_string())
        .and_then(|to| medium::copy(tree.root(), to.path(), limit).map_err(|error| error.to_string()));
    copied.err().map(|why| Finding::new(Error, "", why))
}

/// What makes it a context CD, and what looks as if it was meant to.
fn marks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let marked = MARKS.iter().any(|mark| tree.get(mark).is_some());
    if !marked {
        let what = "none of prolog.sh, epilog.sh, context.sh and context.json is in its root, so no machine takes it \
                    for a context CD";
        findings.push(Finding::new(Error, "", what));
    }
    if let Some(what) = foreign(tree) {
        let level = if marked { Hint } else { Error };
        let effect =
            if marked { "ctxinit ignores that part" } else { "ctxinit names it in its log and runs none of it" };
        findings.push(Finding::new(level, "", format!("this is {what}: {effect}")));
    }
    for mark in MARKS {
        // What is wrong with a script has words of its own.
        let read_by_us = mark.starts_with("context.");
        match tree.get(mark) {
            Some(Kind::Special) => findings.push(Finding::new(Error, *mark, "not a regular file")),
            Some(Kind::Directory) if read_by_us => findings.push(Finding::new(Error, *mark, "not a regular file")),
            _ => {}
        }
    }
    for entry in &tree.entries {
        let (dir, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
        let Some(mark) = MARKS.iter().find(|mark| alike(name, mark)) else { continue };
        if dir.is_empty() && name != *mark {
            let what = format!("passed over: the name that counts is {mark}, in lower case");
            findings.push(Finding::new(Warning, &entry.path, what));
        } else if !dir.is_empty() && tree.get(mark).is_none() {
            findings.push(Finding::new(Warning, &entry.path, format!("passed over: only {mark} in the root counts")));
        }
    }
    findings
}

/// `Prolog.sh`, `prolog.sh.txt`, `prolog`, `epilog.bash`, but not `prolog.d`.
fn alike(name: &str, mark: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let (stem, suffix) = mark.split_once('.').unwrap_or((mark, ""));
    let shell = suffix == "sh" && stem != "context" && [stem.to_owned(), format!("{stem}.bash")].contains(&name);
    shell || [".txt", ""].iter().any(|more| name == format!("{mark}{more}"))
}

/// By the files that cloud-init and others look for in a root.
fn foreign(tree: &Tree) -> Option<&'static str> {
    let has = |name: &str| tree.get(name).is_some();
    if has("meta-data") && has("user-data") {
        Some("a NoCloud disk for cloud-init (meta-data, user-data), not a context CD")
    } else if has("openstack") {
        Some("an OpenStack config drive (openstack/), not a context CD")
    } else if has("ec2") {
        Some("an EC2 config drive (ec2/), not a context CD")
    } else if has("ovf-env.xml") {
        Some("an OVF environment (ovf-env.xml) as VMware and Azure give it, not a context CD")
    } else if has("meta-data") || has("user-data") {
        Some("half a NoCloud disk for cloud-init (meta-data and user-data belong together), not a context CD")
    } else {
        None
    }
}

fn limits(tree: &Tree, policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let bytes: u64 = tree.files().map(|(_, size)| size).sum();
    let limit = u64::from(policy.medium.size_mb) * MIB;
    if bytes > limit / 4 * 3 && bytes <= limit {
        let what = format!("its files have {bytes} of {limit} bytes that medium.size_mb allows; all of it is memory");
        findings.push(Finding::new(Hint, "", what));
    }
    findings
}

fn kind(tree: &Tree, entry: &Entry) -> Option<Finding> {
    match &entry.kind {
        // A machine leaves it behind; no CD is made with it.
        Kind::Special => {
            let level = if tree.volume.is_some() { Warning } else { Error };
            Some(Finding::new(level, &entry.path, "a device, pipe or socket, which has no place on a CD"))
        }
        Kind::Link(target) if leaves(&entry.path, target) => {
            let what = format!("links out of the CD, to {} of the machine", target.display());
            Some(Finding::new(Error, &entry.path, what))
        }
        Kind::Link(target) => {
            let dir = Path::new(&entry.path).parent().unwrap_or(Path::new(""));
            let there = normal(&dir.join(target)).is_some_and(|path| path.is_empty() || tree.get(&path).is_some());
            let what = format!("links to {}, which is not on the CD", target.display());
            (!there).then(|| Finding::new(Error, &entry.path, what))
        }
        _ => None,
    }
}

/// Whether a link points to something that is not on the CD, wherever that is mounted.
fn leaves(path: &str, target: &Path) -> bool {
    let dir = Path::new(path).parent().unwrap_or(Path::new(""));
    target.is_absolute() || normal(&dir.join(target)).is_none()
}

/// Without `.` and `..`; `None` if it climbs out of the root.
fn normal(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn name(entry: &Entry) -> Option<Finding> {
    let name = entry.path.rsplit('/').next().unwrap_or_default();
    if name.chars().any(|c| c.is_control() || c == '\u{fffd}') {
        let what = "control characters, or bytes that are no UTF-8, in its name: readers of the CD see different names";
        return Some(Finding::new(Warning, &entry.path, what));
    }
    let units = name.encode_utf16().count();
    if units > JOLIET_UNITS {
        let what =
            format!("its name has {units} characters; Joliet keeps {JOLIET_UNITS}, only Rock Ridge has the whole name");
        return Some(Finding::new(Hint, &entry.path, what));
    }
    if name == ".git" || name == ".svn" || name == ".hg" {
        let what = "the whole history goes onto the CD, with whatever secret was ever in it";
        return Some(Finding::new(Warning, &entry.path, what));
    }
    let leftover = name.ends_with('~') || name.ends_with(".swp") || name.ends_with(".bak") || name.ends_with(".orig");
    leftover.then(|| Finding::new(Hint, &entry.path, "looks like an editor's leftover, and goes onto the CD"))
}

/// Names that differ in case only are one name where Rock Ridge is not read.
fn collisions(tree: &Tree) -> Vec<Finding> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut findings = Vec::new();
    for entry in &tree.entries {
        if let Some(first) = seen.insert(entry.path.to_lowercase(), &entry.path) {
            let what = format!("differs from {first} in case only, which plain ISO 9660 and Joliet cannot tell apart");
            findings.push(Finding::new(Warning, &entry.path, what));
        }
    }
    findings
}
