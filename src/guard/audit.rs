//! One look at what was changed: found, judged, put back where the policy says so, and told in bounded space.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::Change;
use super::compare::{self, Difference, Layers};
use super::places::Places;
use super::policy::violation;
use super::restore::restore;

/// Changes that one audit tells of one by one; a message between processes has 256 KiB.
const TOLD: usize = 500;
/// Bytes of their paths and words.
const TOLD_BYTES: usize = 48 * 1024;
/// Characters of one path, and of one's words: a name has 255 at most, and a long one is told from others by these.
const TOLD_CHARS: usize = 300;

/// What earlier audits have found and what still stands, told or not: a hash of each, as there may be very many.
#[derive(Debug, Default)]
pub struct Known(BTreeSet<Digest>);

/// Half a SHA-256: nobody makes two changes that share it.
type Digest = [u8; 16];

impl Known {
    /// Reads what [`Known::write`] wrote.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn read(mut file: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (digests, _) = bytes.as_chunks();
        Ok(Self(digests.iter().copied().collect()))
    }

    /// Writes it for another process.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn write(&self, mut file: impl Write) -> io::Result<()> {
        file.write_all(&self.0.iter().flatten().copied().collect::<Vec<u8>>())
    }
}

fn digest(difference: &Difference, change: &Change) -> Digest {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let words = format!("\0{change} {} {:?}", change.size, change.sha256);
    hash.update(difference.path.as_os_str().as_encoded_bytes());
    hash.update(words.as_bytes());
    let mut digest = Digest::default();
    digest.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// What an audit found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Audit {
    /// New since the last audit, by path. If there are too many, violations are kept.
    pub changes: Vec<Change>,
    /// How many more there are.
    pub more: u64,
    /// New violations, told or not.
    pub violations: u64,
    /// New changes that were put back, told or not.
    pub reverted: u64,
    /// The first of them, as a line.
    pub first: Option<String>,
    /// How many of these could not be put back, and the first of them. Counted where the policy puts back.
    pub left: u64,
    /// The first of those, as a line.
    pub first_left: Option<String>,
    /// Paths that are different from the image now, those of earlier audits among them.
    pub differing: u64,
}

/// Looks, and puts violations back if `revert`. The site may change `places`, and ctxinit has changed `own`. With it
/// comes what the next audit has to know.
///
/// # Errors
/// A root that cannot be read.
pub fn audit(
    layers: &Layers,
    places: &Places,
    own: &Places,
    known: &Known,
    revert: bool,
) -> io::Result<(Audit, Known)> {
    let judged = || -> io::Result<Vec<(Difference, Change)>> {
        let found = compare::differences(layers)?;
        Ok(found
            .into_iter()
            .map(|each| {
                let change = change(&each, places, own);
                (each, change)
            })
            .collect())
    };
    let mut found = judged()?;
    let digests: Vec<Digest> = found.iter().map(|(difference, change)| digest(difference, change)).collect();
    let mut audit = Audit { differing: found.len() as u64, ..Audit::default() };
    let violations: Vec<&Difference> =
        found.iter().filter(|(_, change)| change.violation.is_some()).map(|(difference, _)| difference).collect();
    if revert && !violations.is_empty() {
        restore(layers, &violations);
        let after: BTreeMap<_, _> = judged()?.into_iter().map(|(each, change)| (each.path, change)).collect();
        audit.differing = after.len() as u64;
        let left: Vec<&Change> = after.values().filter(|change| change.violation.is_some()).collect();
        audit.left = left.len() as u64;
        audit.first_left = left.first().map(ToString::to_string);
        for (difference, change) in found.iter_mut().filter(|(_, change)| change.violation.is_some()) {
            change.reverted = !after.contains_key(&difference.path);
        }
    }
    let found = found.into_iter().map(|(_, change)| change).zip(digests);
    let mut next = Known::default();
    let mut new = Vec::new();
    for (change, digest) in found {
        if !change.reverted {
            next.0.insert(digest);
        }
        if change.reverted || !known.0.contains(&digest) {
            new.push(change);
        }
    }
    audit.tell(new);
    Ok((audit, next))
}

/// No longer than is good for a report, and with a mark where something is left out.
fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(TOLD_CHARS) {
        let left_out = text.len() - at;
        text.truncate(at);
        *text += &format!("... ({left_out} more bytes)");
    }
}

fn change(difference: &Difference, places: &Places, own: &Places) -> Change {
    let path = [b"/", difference.path.as_os_str().as_encoded_bytes()].concat();
    let Difference { kind, now, what, sha256, fault, .. } = difference;
    let why = fault.clone().or_else(|| violation(places, own, &path, *kind, now.as_ref()));
    Change {
        path: crate::text::printable_bytes(&path),
        kind: *kind,
        what: what.clone(),
        size: now.as_ref().map_or(0, |now| now.size),
        sha256: sha256.clone(),
        violation: why,
        reverted: false,
    }
}

impl Audit {
    fn tell(&mut self, mut new: Vec<Change>) {
        let all = new.len();
        self.reverted = new.iter().filter(|change| change.reverted).count() as u64;
        for change in &mut new {
            cut(&mut change.path);
            cut(&mut change.what);
        }
        let violations = || new.iter().filter(|change| change.violation.is_some());
        self.violations = violations().count() as u64;
        self.first = violations().next().map(ToString::to_string);
        // A stable sort: by path among those that are allowed, and among those that are not.
        new.sort_by_key(|change| change.violation.is_none());
        let mut bytes = 0;
        new.truncate(TOLD);
        new.retain(|change| {
            let of_this = change.path.len() + change.what.len() + change.violation.as_ref().map_or(0, String::len);
            // One that is too long keeps no other out.
            let fits = bytes + of_this <= TOLD_BYTES;
            bytes += if fits { of_this } else { 0 };
            fits
        });
        self.more = (all - new.len()) as u64;
        new.sort_by(|one, other| one.path.cmp(&other.path));
        self.changes = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::ChangeKind;

    #[test]
    fn violations_are_told_before_anything_else() {
        let change = |number: usize, violation: bool| Change {
            path: format!("/{number:05}"),
            kind: ChangeKind::Added,
            what: "file".to_owned(),
            size: 0,
            sha256: None,
            violation: violation.then(|| "not in site_writable".to_owned()),
            reverted: false,
        };
        let mut audit = Audit::default();
        audit.tell((0..10_000).map(|number| change(number, number >= 9990)).collect());
        assert_eq!((audit.changes.len(), audit.more, audit.violations), (TOLD, 10_000 - TOLD as u64, 10));
        assert!(
            audit.changes.last().unwrap().violation.is_some() && audit.changes.is_sorted_by_key(|c| c.path.clone())
        );

        let long = Change { path: "/".repeat(TOLD_BYTES), ..change(0, true) };
        audit.tell(vec![long.clone(), change(1, true)]);
        assert_eq!((audit.changes.len(), audit.more), (2, 0));
        assert!(audit.changes.iter().any(|change| change.path.ends_with("/... (48852 more bytes)")));
        assert!(audit.first.take().unwrap().len() < 1000);
        let fault = Change { violation: Some("x".repeat(TOLD_BYTES)), ..change(0, true) };
        audit.tell(vec![fault, change(1, true)]);
        assert_eq!((audit.changes.len(), audit.more), (1, 1));
        let json =
            serde_json::to_vec(&vec![Change { path: "\"".repeat(4000), sha256: Some("0".repeat(64)), ..long }; 12]);
        assert!(json.unwrap().len() < 256 * 1024);
    }
}
