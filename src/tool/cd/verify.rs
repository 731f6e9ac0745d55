//! `ctxtool cd verify`: what a machine would think of a CD's signature, with an exit code for each word.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::volume::Volume;
use super::{CdError, Outcome, at, files, iso, keys};
use crate::context::signature::{self, SIGNATURE, SUMS, State, judge};
use crate::image::policy;
use crate::text::printable;

/// Options of `ctxtool cd verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 good, 3 unsigned, 4 bad, 5 expired, 6 for another image; 1 if it cannot be read")]
pub struct Verify {
    /// Directory of a CD, or an ISO image
    cd: PathBuf,
    /// A public key that the image knows: its file, or its text that begins with RW; may be given again
    #[arg(long, value_name = "FILE|BASE64", required = true)]
    key: Vec<String>,
    /// The image's uuid; without it any image will do
    #[arg(long, value_name = "UUID")]
    image: Option<String>,
}

/// Judges a CD as the guest would with `signature.need: require`.
///
/// # Errors
/// If the CD or the key cannot be read.
pub fn verify(options: &Verify) -> Result<Outcome, CdError> {
    let keys = options.key.iter().map(|key| keys::public(key)).collect::<Result<Vec<_>, _>>()?;
    let cd = &options.cd;
    if fs::metadata(cd).map_err(at(cd))?.is_dir() {
        return verify_dir(cd, cd, options.image.as_deref(), keys);
    }
    Volume::open(cd)?;
    let copy = tempfile::Builder::new().prefix("ctxtool-").tempdir().map_err(at(&std::env::temp_dir()))?;
    iso::extract(cd, copy.path())?;
    verify_dir(copy.path(), cd, options.image.as_deref(), keys)
}

fn verify_dir(dir: &Path, name: &Path, image: Option<&str>, keys: Vec<signature::Key>) -> Result<Outcome, CdError> {
    let files = files::hashes(dir)?;
    let (sums, signature) = (read(&dir.join(SUMS))?, read(&dir.join(SIGNATURE))?);
    let policy = policy::Signature { need: policy::Demand::Require, keys };
    // Without a name the signature's own will do, which is judged with all the rest.
    let claimed = signature.as_deref().and_then(signature::claimed_image);
    let image = image.or(claimed.as_deref()).unwrap_or("any");
    let judgement = judge(&files, sums.as_deref(), signature.as_deref(), &policy, image, SystemTime::now());
    let code = match judgement.state {
        State::Good => 0,
        State::Unsigned => 3,
        State::Bad => 4,
        State::Expired => 5,
        State::Foreign => 6,
        State::Off => 1,
    };
    Ok(Outcome { text: printable(&format!("{}: {judgement}", name.display())), code, ..Outcome::default() })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CdError> {
    // A link is no file of the CD, whatever it points to.
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => fs::read(path).map(Some).map_err(at(path)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}
