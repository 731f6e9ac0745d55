//! Whether the CD is what a site that the image knows has signed, for this image, and not too long ago.
//!
//! `SHA256SUMS` lists every file of the CD; `SHA256SUMS.minisig` is its signature by minisign, whose trusted comment
//! says for which image and until when. Nothing here does I/O: the caller has hashed the files while it copied
//! them, so what was judged is what will run.

mod minisig;
mod sums;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use self::minisig::{Key, SIGNATURE_LIMIT, Terms, claimed_image, claimed_key};
pub use self::sums::{Hash, PathError, SIGNATURE, SUMS, SUMS_LIMIT, Sums, SumsError};
use crate::image::policy::{self, Demand};

/// What the caller gives as the hash of anything that is neither a regular file nor a directory with something in
/// it: a link, a device, an empty directory, a name that is not UTF-8. It is in no list, so a CD with one of these is
/// never good; otherwise a link could be added to a signed CD and nobody would see it. No file has this hash.
pub const NOT_A_FILE: Hash = [0; 32];

/// 2026-01-01: before this program was written, so a clock that says less was never set.
const CLOCK_FLOOR: Duration = Duration::from_secs(1_767_225_600);

/// What is to be thought of a CD's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The image does not ask.
    Off,
    /// There is none.
    Unsigned,
    /// Every file is as a known key signed it, for this image, and the time is not over.
    Good,
    /// There is one, and it does not hold.
    Bad,
    /// It held until its time was over, or nobody can say because the clock is not set.
    Expired,
    /// It holds, for another image.
    Foreign,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Unsigned => "unsigned",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Expired => "expired",
            Self::Foreign => "foreign",
        })
    }
}

/// A verdict on a CD's signature, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// In a word.
    pub state: State,
    /// In a sentence that names the file or the key.
    pub why: String,
    /// The key that made it, in hexadecimal as minisign prints it; only where its signature was proved.
    pub signer: Option<String>,
    /// Until when it holds, RFC 3339; only where that was proved.
    pub expires: Option<String>,
}

impl Judgement {
    /// Whether nothing of the CD may be used.
    pub fn forbids(&self, policy: &policy::Signature) -> bool {
        policy.need == Demand::Require && self.state != State::Good
    }

    fn unproved(state: State, why: impl Into<String>) -> Self {
        Self { state, why: why.into(), signer: None, expires: None }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature {}: {}", self.state, self.why)
    }
}

/// Judges a CD by the hashes of all its files (paths relative to its root; [`SUMS`] and [`SIGNATURE`] among them or not),
/// the text of these two, where they are there, and what the image asks for.
pub fn judge(
    files: &BTreeMap<String, Hash>,
    sums: Option<&[u8]>,
    signature: Option<&[u8]>,
    policy: &policy::Signature,
    image_uuid: &str,
    now: SystemTime,
) -> Judgement {
    if policy.need == Demand::Off {
        return Judgement::unproved(State::Off, "the image asks for none");
    }
    let Some(signature) = signature else {
        return Judgement::unproved(State::Unsigned, format!("there is no {SIGNATURE} on the CD"));
    };
    let Some(sums) = sums else {
        return Judgement::unproved(State::Bad, format!("there is a {SIGNATURE} on the CD, and no {SUMS}"));
    };
    let (key, terms) = match proved(sums, signature, &policy.keys) {
        Ok(proved) => proved,
        Err(why) => return Judgement::unproved(State::Bad, why),
    };
    let (state, why) = match intact(files, sums) {
        Err(why) => (State::Bad, why),
        Ok(()) => on_terms(&terms, key.id(), image_uuid, now),
    };
    Judgement { state, why, signer: Some(key.id().to_owned()), expires: Some(terms.expires()) }
}

fn proved<'a>(sums: &[u8], signature: &[u8], keys: &'a [Key]) -> Result<(&'a Key, Terms), String> {
    for (name, text, limit) in [(SUMS, sums, SUMS_LIMIT), (SIGNATURE, signature, SIGNATURE_LIMIT)] {
        if text.len() > limit {
            return Err(format!("{name} is larger than {limit} bytes"));
        }
    }
    minisig::verify(sums, signature, keys).map_err(|why| format!("{SIGNATURE} {why}"))
}

fn intact(files: &BTreeMap<String, Hash>, sums: &[u8]) -> Result<(), String> {
    let strange = files.iter().find(|(_, hash)| **hash == NOT_A_FILE);
    if let Some((path, _)) = strange {
        return Err(format!(
            "{} is neither a regular file nor a directory of some, so nobody signed it",
            path.escape_debug()
        ));
    }
    let sums = Sums::parse(sums).map_err(|error| error.to_string())?;
    sums.difference(files).map_or(Ok(()), Err)
}

fn on_terms(terms: &Terms, key: &str, image_uuid: &str, now: SystemTime) -> (State, String) {
    let expires = terms.expires();
    match &terms.image {
        Some(image) if !image.eq_ignore_ascii_case(image_uuid) => {
            return (State::Foreign, format!("key {key} signed it for image {image}, and this is image {image_uuid}"));
        }
        _ => {}
    }
    // Fail closed: who may set the clock back, or keeps it unset, must not make an old CD new.
    if now < UNIX_EPOCH + CLOCK_FLOOR {
        let clock = humantime::format_rfc3339_seconds(now.max(UNIX_EPOCH));
        let why = format!(
            "the clock is not set ({clock}), so nobody can say whether {expires}, until when key {key} signed it, is over"
        );
        return (State::Expired, why);
    }
    if now >= terms.expires {
        let clock = humantime::format_rfc3339_seconds(now);
        return (State::Expired, format!("key {key} signed it until {expires}, and the clock says {clock}"));
    }
    let whose = terms.image.as_ref().map_or("any image".to_owned(), |image| format!("image {image}"));
    (State::Good, format!("signed by key {key} for {whose} until {expires}"))
}
