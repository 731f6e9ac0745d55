//! `ctxtool cd sign`: the list of a CD's files, and the signature of that list.
//!
//! The crate `minisign` reads the key; it signs with a random part, though, so that two signatures of the same list
//! differ. RFC 8032's are always the same, and so are Debian's minisign's: ring makes these.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest};
use minisign::SecretKey;
use ring::signature::Ed25519KeyPair;

use super::volume::Volume;
use super::{CdError, at, files, iso, keys};
use crate::context::signature::{Key, NOT_A_FILE, PathError, SIGNATURE, SUMS, State, Sums, Terms, judge};
use crate::image::policy;

/// Options of `ctxtool cd sign`.
#[derive(Debug, clap::Args)]
pub struct Sign {
    /// Directory of a CD, which gets SHA256SUMS and SHA256SUMS.minisig; or an ISO image, which is written anew with both
    cd: PathBuf,
    /// The secret key (ctxtool cd keygen, or minisign -G)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The image that it is for: its uuid, or any
    #[arg(long, value_name = "UUID|any", value_parser = parse_image)]
    image: String,
    /// Until when the signature holds: 2027-01-01, 2027-01-01T12:00:00Z, or a time from now like 90days
    #[arg(long, value_name = "DATE|DURATION", value_parser = parse_expires)]
    expires: SystemTime,
    /// Take the key's password from the first line of this file, not from the terminal
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// What a signature is made with, and what it says.
pub struct Promise<'a> {
    /// File of the secret key.
    pub key: &'a Path,
    /// Where its password is.
    pub password_file: Option<&'a Path>,
    /// uuid or `any`.
    pub image: &'a str,
    /// Until when.
    pub expires: SystemTime,
}

/// For clap: `any`, or what may be an image's uuid.
pub fn parse_image(text: &str) -> Result<String, &'static str> {
    let plain = !text.is_empty() && text.chars().all(|character| !character.is_whitespace() && !character.is_control());
    if plain { Ok(text.to_owned()) } else { Err("an image's uuid is one word") }
}

/// For clap: a day, a moment, or a time from now; in the future, to the second.
pub fn parse_expires(text: &str) -> Result<SystemTime, String> {
    let now = SystemTime::now();
    let day = || humantime::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let moment = humantime::parse_rfc3339(text).or_else(|_| day()).ok();
    let span = || humantime::parse_duration(text).ok().and_then(|span| now.checked_add(span));
    let form = "neither a date (2027-01-01), a moment (2027-01-01T12:00:00Z) nor a time from now (90days)";
    let moment = moment.or_else(span).ok_or(form)?;
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| form)?;
    // RFC 3339 has years of four digits.
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
    if since >= YEAR_10000 {
        return Err("after the year 9999".to_owned());
    }
    if moment <= now {
        return Err("that time is over".to_owned());
    }
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()))
}

/// Signs a directory or an ISO image in its place. Returns a line that tells of it.
///
/// # Errors
/// What keeps it from being signed; an ISO image is then as it was.
pub fn sign(options: &Sign) -> Result<String, CdError> {
    let cd = &options.cd;
    let promise = Promise {
        key: &options.key,
        password_file: options.password_file.as_deref(),
        image: &options.image,
        expires: options.expires,
    };
    if fs::metadata(cd).map_err(at(cd))?.is_dir() {
        return Ok(format!("{}: {}", cd.display(), sign_dir(cd, cd, &promise)?));
    }
    let label = Volume::open(cd)?.label;
    let copy = iso::scratch(cd)?;
    iso::extract(cd, copy.path())?;
    let signed = sign_dir(copy.path(), cd, &promise)?;
    iso::write(copy.path(), &label, cd)?;
    Ok(format!("{}: {signed}", cd.display()))
}

/// Writes the list and its signature into `dir`, and has the guest's judge look at them. `name` is what the user
/// calls it.
pub fn sign_dir(dir: &Path, name: &Path, promise: &Promise) -> Result<String, CdError> {
    let secret = keys::secret(promise.key, promise.password_file)?;
    let files = files::hashes(dir)?;
    let unsignable = |error| CdError::Unsignable { dir: name.to_owned(), error };
    if let Some((path, _)) = files.iter().find(|(_, hash)| **hash == NOT_A_FILE) {
        let why = "neither a regular file nor a directory of some, so no signature covers it";
        return Err(unsignable(PathError { path: path.clone(), why }));
    }
    let sums = Sums::of(&files).map_err(unsignable)?.write();
    let image = (promise.image != "any").then(|| promise.image.to_owned());
    let terms = Terms { image, expires: promise.expires };
    let (key, signature) =
        minisig(&secret, sums.as_bytes(), &terms).map_err(|why| CdError::Key { path: promise.key.to_owned(), why })?;
    let policy = policy::Signature { need: policy::Demand::Require, keys: vec![key] };
    let (list, seal) = (Some(sums.as_bytes()), Some(signature.as_bytes()));
    let judgement = judge(&files, list, seal, &policy, promise.image, SystemTime::now());
    if judgement.state != State::Good {
        return Err(CdError::Unproved { path: name.to_owned(), why: judgement.why });
    }
    for (file, text) in [(SUMS, &sums), (SIGNATURE, &signature)] {
        // Renamed, so that an old one may be read-only, and is never half a new one.
        let (path, partial) = (dir.join(file), dir.join(format!(".{file}.new")));
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(at(&path))?;
    }
    Ok(judgement.why)
}

/// The public key, and the text that `minisign -S -t TERMS` would write.
fn minisig(secret: &SecretKey, sums: &[u8], terms: &Terms) -> Result<(Key, String), String> {
    // minisign's format: 54 bytes about the encryption, 8 of the number, 32 of the seed, 32 of the public key.
    let bytes = secret.to_bytes();
    let (Some(number), Some(seed), Some(public)) = (bytes.get(54..62), bytes.get(62..94), bytes.get(94..126)) else {
        return Err("not a minisign secret key".to_owned());
    };
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public)
        .map_err(|_| "its two halves do not belong together".to_owned())?;
    let key = Key::parse(&STANDARD.encode([b"Ed", number, public].concat()))?;
    let signature = pair.sign(&Blake2b512::digest(sums));
    let comment = terms.to_string();
    let global = pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
    let text = format!(
        "untrusted comment: signature of a context CD by key {}\n{}\ntrusted comment: {comment}\n{}\n",
        key.id(),
        STANDARD.encode([b"ED", number, signature.as_ref()].concat()),
        STANDARD.encode(global.as_ref())
    );
    Ok((key, text))
}
