//! The context CD: found by its content, read whole into memory, and let go.
//!
//! Everything here runs in a child of the agent with mounts of its own: a drive that never answers holds
//! that child and not the agent, and no other process ever sees the CD mounted. A mount that succeeded
//! proves nothing (a truncated image mounts, lists, and fails at each read), so a script runs only from a
//! medium that was read to its end.
//!
//! The rules. Only a device that nobody in the machine can write to is looked at; what it is called does not matter.
//! A volume is a context CD if its root holds one of the four marks. Two of them: neither is taken. One that cannot
//! be read (or a disc that nobody can make sense of) is tried again until the deadline, and then ends the machine, as it
//! may have been the context; one that holds what none may ends it at once. When there is none, [`next`] says how long to wait for one.

mod copy;
mod find;

use std::fmt;
use std::io;
use std::time::{Instant, SystemTime};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

pub use self::copy::{CopyError, copy};
pub use self::find::MARKS;
use self::find::{Candidate, Device, Search};
use super::signature::{self, Judgement};
use crate::image::policy::{self, Need};
use crate::mounts;

/// Where the copy lies; a tmpfs that the agent has mounted.
pub const COPY: &str = "/run/ctxinit/context";

/// How [`Seen::what`] begins for another system's medium.
const FOREIGN: &str = "this is a ";

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Kernel name of the device.
    pub device: String,
    /// Optical drive or disk.
    pub kind: Kind,
    /// Volume identifier or label.
    pub volume: String,
    /// What it was mounted as: `iso9660`, `udf` or `vfat`.
    pub filesystem: String,
    /// Regular files copied.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Hexadecimal SHA-256 of a line `SHA256  PATH` for each regular file, sorted by the bytes of the path, without
    /// `SHA256SUMS` and its signature: the identity of the content, however it is laid out.
    pub sha256: String,
    /// What of it runs or decides, path and hexadecimal SHA-256, sorted by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<(String, String)>,
    /// What is to be thought of its signature.
    pub signature: Judgement,
    /// Milliseconds that reading took.
    pub read_ms: u64,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, volume, filesystem, files, bytes, .. } = self;
        write!(f, "/dev/{device} ({volume}), {filesystem}, {files} files, {bytes} bytes")
    }
}

/// What kind of device a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A drive, which says whether it holds a disc.
    Optical,
    /// A disk that the machine cannot write to, as KVM's virtio and Xen have CDs.
    Disk,
}

/// One device that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Kernel name.
    pub device: String,
    /// Optical drive or disk.
    pub kind: Kind,
    /// What was found on it, a phrase.
    pub what: String,
}

impl Seen {
    /// Whether it is the medium of another system, which a site may have taken for ours.
    pub fn is_foreign(&self) -> bool {
        self.what.starts_with(FOREIGN)
    }
}

/// What one look at the candidates gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Every candidate, sorted by name.
    pub seen: Vec<Seen>,
    /// What that means.
    pub finding: Finding,
}

/// What a look means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// One context CD, and its copy is whole.
    Found(Box<Medium>),
    /// No context CD now.
    Nothing {
        /// The candidates in a phrase: `2 drives, both without disc`.
        summary: String,
        /// What may still become of it.
        outlook: Outlook,
    },
    /// A context CD that could not be read; it may be a passing fault of the drive.
    Broken(String),
    /// A context CD that holds what none may.
    Refused(String),
    /// Two or more; all of them named.
    Several(Vec<String>),
}

/// What may still become of a machine without a context CD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outlook {
    /// There are drives, each says that it is empty, and nothing else may hold a CD: one comes only if somebody acts.
    Empty,
    /// A device may still come, and the kernel tells when it does.
    Coming,
    /// A drive is not ready; it gets ready without a word.
    NotReady,
}

/// What to do after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This is final.
    Decided,
    /// Wait for a device or a disc that the kernel tells of.
    WaitForEvent,
    /// Look again soon: a fault that passes sends no event.
    LookAgain,
}

/// How long a CD is waited for. That an optional one is absent is final at once where every drive says so: drivers
/// load before the first look, and loading one ends with its probing done (but for USB, where a stick is no drive and
/// still comes). A required one is waited for in any case, as only a CD that still comes helps.
pub fn next(finding: &Finding, need: Need, last_chance: bool) -> Next {
    match finding {
        Finding::Found(_) | Finding::Refused(_) | Finding::Several(_) => Next::Decided,
        _ if last_chance => Next::Decided,
        Finding::Nothing { outlook: Outlook::Empty, .. } if need == Need::Optional => Next::Decided,
        Finding::Nothing { outlook: Outlook::Empty | Outlook::Coming, .. } => Next::WaitForEvent,
        Finding::Nothing { outlook: Outlook::NotReady, .. } | Finding::Broken(_) => Next::LookAgain,
    }
}

/// What the image says of its medium, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Bytes that the copy may take.
    pub limit: u64,
    /// Whose signature it must carry.
    pub signature: &'a policy::Signature,
    /// Who the image is.
    pub image: &'a str,
}

/// Looks at every read-only device, and copies the one context CD to [`COPY`]. Runs in its own process; `load` loads a
/// kernel module.
pub fn look(wanted: &Wanted<'_>, load: &mut dyn FnMut(&str)) -> Look {
    let own_mounts = unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from);
    let own_mounts = own_mounts.and_then(|()| mounts::make_private().map_err(io::Error::other));
    if let Err(error) = own_mounts {
        let why = format!("no mount namespace to read the CD in: {error}");
        return Look { seen: Vec::new(), finding: Finding::Broken(why) };
    }
    let devices = find::all(load);
    let seen = devices.iter().map(Device::seen).collect();
    let finding = match find::judge(&devices) {
        Search::One(device, candidate) => match read(device, candidate, wanted) {
            Ok(medium) => Finding::Found(Box::new(medium)),
            Err(CopyError::Unreadable(why)) => Finding::Broken(format!("/dev/{}: {why}", device.name)),
            Err(CopyError::Refused(why)) => Finding::Refused(format!("/dev/{}: {why}", device.name)),
        },
        Search::Several(all) => Finding::Several(all),
        Search::Broken(why) => Finding::Broken(why),
        Search::None { summary, outlook } => Finding::Nothing { summary, outlook },
    };
    Look { seen, finding }
}

/// Copies it, lets the device go, and judges what was copied.
fn read(device: &Device, candidate: &Candidate, wanted: &Wanted<'_>) -> Result<Medium, CopyError> {
    let begun = Instant::now();
    let copied = copy(&candidate.mounted, COPY.as_ref(), wanted.limit)?;
    // Nobody may find the drive busy after this, whoever wants to eject its disc.
    if let Err(error) = mounts::unmount(&candidate.mounted.to_string_lossy()) {
        log::warn!("{error}");
    }
    let own = |name: &str| copied.text(COPY.as_ref(), name).map_err(CopyError::Unreadable);
    let (sums, minisig) = (own(signature::SUMS)?, own(signature::SIGNATURE)?);
    let judgement = signature::judge(
        &copied.judged(),
        sums.as_deref(),
        minisig.as_deref(),
        wanted.signature,
        wanted.image,
        SystemTime::now(),
    );
    Ok(Medium {
        device: device.name.clone(),
        kind: device.kind,
        volume: candidate.volume.clone(),
        filesystem: candidate.filesystem.to_owned(),
        files: copied.files(),
        bytes: copied.bytes,
        sha256: copied.identity(),
        scripts: copied.hashes(is_of_note),
        signature: judgement,
        read_ms: begun.elapsed().as_millis() as u64,
    })
}

/// What a site wants to know of afterwards: what ran, and what it was told.
fn is_of_note(path: &str) -> bool {
    matches!(path, "context.sh" | "context.json" | "ban.list")
        || (path.ends_with(".sh") && path.matches('/').count() < 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_final_only_where_nothing_can_come() {
        let nothing = |outlook| Finding::Nothing { summary: String::new(), outlook };
        let broken = Finding::Broken("I/O error".to_owned());
        let cases = [
            (nothing(Outlook::Empty), Need::Optional, Next::Decided),
            (nothing(Outlook::Empty), Need::Require, Next::WaitForEvent),
            (nothing(Outlook::Coming), Need::Optional, Next::WaitForEvent),
            (nothing(Outlook::Coming), Need::Require, Next::WaitForEvent),
            (nothing(Outlook::NotReady), Need::Optional, Next::LookAgain),
            (nothing(Outlook::NotReady), Need::Require, Next::LookAgain),
            (broken.clone(), Need::Optional, Next::LookAgain),
            (broken, Need::Require, Next::LookAgain),
            (Finding::Several(Vec::new()), Need::Optional, Next::Decided),
            (Finding::Refused("prolog.sh: a link to /x".to_owned()), Need::Require, Next::Decided),
        ];
        for (finding, need, expected) in cases {
            assert_eq!(next(&finding, need, false), expected, "{finding:?} {need:?}");
            assert_eq!(next(&finding, need, true), Next::Decided, "{finding:?} {need:?} at the end");
        }
    }
}
