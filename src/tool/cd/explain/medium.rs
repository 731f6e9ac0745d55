//! The CD itself: how it is known, whether its signature holds, and what it says to the machine.

use std::time::SystemTime;

use super::super::check::is_secret;
use super::super::{CdError, files};
use super::{Known, Part};
use crate::context::medium::{COPY, MARKS};
use crate::context::payload::Tightening;
use crate::context::shell;
use crate::context::signature::{SIGNATURE, SUMS, claimed_key, judge};
use crate::context::site::{CdPath, Site};
use crate::image::policy::{Demand, SITE_KEYS};
use crate::text::count;

pub fn medium(known: &Known<'_>) -> Result<Part, CdError> {
    let Known { tree, policy, settings, .. } = known;
    let (files, bytes) = tree.files().fold((0, 0), |(files, bytes), (_, size)| (files + 1, bytes + size));
    let (files, bytes) = (count(files, "file"), count(bytes, "byte"));
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
    lines.push(format!("all of it, {files} of {bytes}, is copied to memory (at most {limit} MiB): {COPY}"));
    let signature = signature(known)?;
    lines.push(signature.line);
    if let Some(site) = &settings.site {
        lines.push(format!("context.json says {}", told(site)));
    }
    lines.extend(variables(known));
    lines.extend(asked(known));
    let refused = "refused, so the machine ends with code 500";
    // What is wrong with the script in a variable is met later.
    let script = settings.nebula.start_script.as_ref().map(|script| script.name.as_str());
    let files = ["", "context.json", "context.sh"];
    let error = known.error(|error| files.contains(&error.file.as_str()) && Some(error.key.as_str()) != script);
    let error = error.map(|error| format!("{refused}: {error}"));
    let fatal = if signature.forbids { Some(format!("{refused}, and nothing of it is used")) } else { error };
    Ok(Part { name: "medium", lines, fatal })
}

/// What is to be thought of the signature.
struct Judged {
    line: String,
    forbids: bool,
}

/// By the guest's own judge where the image is known; else only whether there is one.
fn signature(known: &Known<'_>) -> Result<Judged, CdError> {
    let Known { tree, policy, .. } = known;
    let undecided = |line: String| Ok(Judged { line, forbids: false });
    let signature = tree.read(SIGNATURE)?;
    if !known.of_image {
        return undecided(match &signature {
            Some(_) => {
                "signed; whether by somebody whom the image trusts, --image or ctxtool cd verify says".to_owned()
            }
            None => "not signed, so an image that requires a signature refuses it".to_owned(),
        });
    }
    let asked = &policy.signature;
    let signer = signature.as_deref().and_then(claimed_key);
    if let Some(signer) = signer.filter(|signer| asked.keys.iter().all(|key| key.id() != signer))
        && asked.need != Demand::Off
    {
        return undecided(format!(
            "signed by key {signer}, which image.json does not have; the image itself may have it in {SITE_KEYS}, which \
             cannot be seen from here (ctxtool cd verify --key)"
        ));
    }
    let (files, sums) = (files::hashes(tree.root())?, tree.read(SUMS)?);
    let uuid = &policy.image.uuid;
    let judgement = judge(&files, sums.as_deref(), signature.as_deref(), asked, uuid, SystemTime::now());
    Ok(Judged { line: judgement.to_string(), forbids: judgement.forbids(asked) })
}

fn told(site: &Site) -> String {
    let Site { hostname, syslog, work, payload, .. } = site;
    let said = [
        hostname.as_ref().map(|_| "the machine's name"),
        syslog.as_ref().map(|_| "where the log goes"),
        work.as_ref().map(|_| "where work comes from"),
        (*payload != Tightening::default()).then_some("limits of payloads"),
    ];
    let said: Vec<&str> = said.into_iter().flatten().collect();
    if said.is_empty() { "nothing, the defaults hold".to_owned() } else { said.join(", ") }
}

/// What scripts see of context.sh.
fn variables(known: &Known<'_>) -> Vec<String> {
    let shown = known.settings.variables.iter().map(|variable| {
        let hidden = is_secret(&variable.name, &variable.value);
        let value = if hidden { "(hidden)".to_owned() } else { shown(&variable.value) };
        format!("  {}={value}", variable.name)
    });
    let shown: Vec<String> = shown.collect();
    if shown.is_empty() {
        return Vec::new();
    }
    let head = format!("context.sh is parsed, never run; scripts see {} variables:", shown.len());
    [vec![head], shown].concat()
}

/// What is done with the machine at once, or kept for payloads.
fn asked(known: &Known<'_>) -> Vec<String> {
    let Known { policy, settings, site, .. } = known;
    let mut lines = Vec::new();
    if let Some(zone) = &site.timezone {
        lines.push(format!("the clock shows the time of {zone}, if the image has that zone"));
    }
    let keys: Vec<&str> = settings.nebula.keys.iter().map(|key| key.name.as_str()).collect();
    if !keys.is_empty() {
        let become_of = if policy.accounts.root_ssh_keys { "open root's account" } else { "are left out" };
        lines.push(format!("the keys in {} {become_of}, as the image has it", keys.join(", ")));
    }
    let features = settings
        .nebula
        .features
        .iter()
        .map(|(name, value)| format!("{name} of the machine: {value}; payloads have their own"));
    lines.extend(features);
    let secret: Vec<&str> = site.cd.secret.iter().map(|path| CdPath::get(path).as_str()).collect();
    if !secret.is_empty() {
        lines.push(format!("removed from the copy before the first payload: {}", secret.join(", ")));
    }
    lines.extend(payloads(known));
    if site.cd.eject {
        lines.push("the drive's tray is opened".to_owned());
    }
    lines
}

/// What the site takes away from payloads. What the image refuses of it is told as an error.
fn payloads(known: &Known<'_>) -> Option<String> {
    let Known { policy, settings, site, .. } = known;
    if !known.of_image {
        let asked = settings.value.get("payload").filter(|_| site.payload != Tightening::default())?;
        return Some(format!("payloads get less, {asked}; an image that allows less than this refuses it"));
    }
    let less = policy.payload.tightened(&site.payload).ok()?.less_than(&policy.payload.without_site());
    if less.is_empty() { None } else { Some(format!("payloads get less than the image allows: {}", less.join(", "))) }
}

/// Quoted, on one line, and not longer than one.
fn shown(value: &str) -> String {
    const MAX: usize = 60;
    let short: String = value.chars().take(MAX).collect();
    let more = if short.len() < value.len() { "..." } else { "" };
    format!("{}{more}", shell::quoted(&short))
}
