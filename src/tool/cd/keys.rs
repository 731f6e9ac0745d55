//! Key pairs, in the files of minisign: `ctxtool cd keygen`, and the reading of both halves.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign::{KeyPair, SecretKey, SecretKeyBox};

use super::{CdError, at};
use crate::context::signature::Key;

/// Options of `ctxtool cd keygen`.
#[derive(Debug, clap::Args)]
pub struct Keygen {
    /// Write NAME.key, which is secret, and NAME.pub, which goes into images; neither may be there already
    #[arg(short, long, value_name = "NAME")]
    output: PathBuf,
    /// Do not encrypt the secret key: whoever can read the file can sign
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
    /// Take the password from the first line of this file, not from the terminal
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Makes a key pair. Returns lines that tell of it.
///
/// # Errors
/// A file that is there already or cannot be written, or a password that was typed in two ways.
pub fn keygen(options: &Keygen) -> Result<String, CdError> {
    let (secret, public) = (with_suffix(&options.output, ".key"), with_suffix(&options.output, ".pub"));
    for path in [&secret, &public] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(CdError::Exists(path.clone()));
        }
    }
    let failed = |error: minisign::PError| CdError::Key { path: secret.clone(), why: error.to_string() };
    let pair = if options.no_password {
        KeyPair::generate_unencrypted_keypair().map_err(failed)?
    } else {
        let password = new_password(options.password_file.as_deref(), &secret)?;
        KeyPair::generate_encrypted_keypair(Some(password)).map_err(failed)?
    };
    let base64 = pair.pk.to_base64();
    let key = Key::parse(&base64).map_err(|why| CdError::Key { path: public.clone(), why })?;
    let comment = if options.no_password { "minisign secret key" } else { "minisign encrypted secret key" };
    let text = pair.sk.to_box(Some(comment)).map_err(failed)?.into_string();
    write_new(&secret, 0o600, &text)?;
    write_new(&public, 0o644, &format!("untrusted comment: minisign public key {}\n{base64}\n", key.id()))?;
    let warning = if options.no_password { ", NOT ENCRYPTED: whoever can read it can sign" } else { ", encrypted" };
    Ok(format!(
        "{}: secret key {}{warning}\n{}: for /etc/ctxinit/site-keys in images, or in signature.keys of image.json: {base64}",
        secret.display(),
        key.id(),
        public.display()
    ))
}

/// A secret key, decrypted.
pub fn secret(path: &Path, password_file: Option<&Path>) -> Result<SecretKey, CdError> {
    let wrong = |why: &dyn std::fmt::Display| CdError::Key { path: path.to_owned(), why: why.to_string() };
    let text = fs::read_to_string(path).map_err(at(path))?;
    let bytes = key_bytes(&text).ok_or_else(|| wrong(&"not a minisign secret key"))?;
    if !is_encrypted(&bytes) {
        // Not by the crate's own reader: it wants a check sum, which minisign leaves out of such a file.
        return SecretKey::from_bytes(&bytes).map_err(|error| wrong(&error));
    }
    let password = match password_file {
        Some(file) => first_line(file)?,
        None => ask(&format!("Password of {}: ", path.display()))?,
    };
    let boxed = SecretKeyBox::from_string(&text).map_err(|error| wrong(&error))?;
    boxed.into_secret_key(Some(password)).map_err(|error| wrong(&error))
}

/// The second line of a secret key file: 158 bytes in base64.
fn key_bytes(text: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(text.lines().nth(1)?).ok()?;
    (bytes.len() == 158 && bytes.starts_with(b"Ed")).then_some(bytes)
}

/// minisign's format: two letters each of how to sign, to encrypt (zeros: not at all) and to check.
fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.get(2..4) != Some(&[0, 0])
}

/// A public key, as its file or as its text.
pub fn public(given: &str) -> Result<Key, CdError> {
    let path = Path::new(given);
    match fs::read_to_string(path) {
        Ok(text) => Key::from_file(&text)
            .map_err(|(line, why)| CdError::Key { path: path.to_owned(), why: format!("line {line}: {why}") }),
        Err(error) => Key::parse(given).map_err(|why| {
            let why = format!("{error}; and {why}");
            CdError::Key { path: path.to_owned(), why }
        }),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), CdError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(at(path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at(path))
}

fn new_password(file: Option<&Path>, key: &Path) -> Result<String, CdError> {
    if let Some(file) = file {
        return first_line(file);
    }
    let password = ask(&format!("Password for {}: ", key.display()))?;
    if password.is_empty() {
        return Err(CdError::Key { path: key.to_owned(), why: "no password; --no-password says so on purpose".into() });
    }
    if ask("The same again: ")? != password {
        return Err(CdError::Key { path: key.to_owned(), why: "the two passwords differ".to_owned() });
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<String, CdError> {
    rpassword::prompt_password(prompt).map_err(at(Path::new("/dev/tty")))
}

fn first_line(file: &Path) -> Result<String, CdError> {
    let text = fs::read_to_string(file).map_err(at(file))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(CdError::Key { path: file.to_owned(), why: "no password in its first line".to_owned() }),
    }
}
