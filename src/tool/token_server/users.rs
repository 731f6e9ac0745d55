//! Who may ask: HTTP Basic (RFC 7617) against a file of `user:hash` lines with bcrypt hashes, as `htpasswd -nB` makes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::random::random;

/// Compared with where there is no such user, so that time does not tell who exists; of a password nobody knows.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuuwLEMSNpzJPq/V.v3kGtRcL7WdVkhA2C";

/// Why a file of users cannot be used.
#[derive(Debug, Error)]
pub enum UsersError {
    /// The file itself.
    #[error("{}: {source}", path.display())]
    File {
        /// As named on the command line.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One of its lines.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// As named on the command line.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// It has no user, so nobody could ever ask.
    #[error("{}: there is no user in it", .0.display())]
    Empty(PathBuf),
    /// The salt.
    #[error("/dev/urandom: {0}")]
    Random(#[source] io::Error),
}

/// The users, and which of their passwords have been seen.
pub(super) struct Users {
    hashes: HashMap<String, String>,
    /// Digests of credentials that were right: a hash costs 50 ms, a site's VMs ask thousands of times a second.
    /// There are no more of them than users.
    known: Mutex<HashSet<[u8; 32]>>,
    /// Of this process; a digest in its memory fits no table of digests.
    salt: [u8; 32],
    /// One wrong password at a time: who guesses must not take the CPUs from who works.
    turn: Semaphore,
}

impl Users {
    /// Reads a file of users.
    ///
    /// # Errors
    /// They name the file, and the line where one is wrong.
    pub(super) fn read(path: &Path) -> Result<Self, UsersError> {
        let failed = |source| UsersError::File { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        let hashes = parse(&text).map_err(|(line, why)| UsersError::Line { path: path.to_owned(), line, why })?;
        if hashes.is_empty() {
            return Err(UsersError::Empty(path.to_owned()));
        }
        let salt = random().map_err(UsersError::Random)?;
        Ok(Self { hashes, known: Mutex::default(), salt, turn: Semaphore::new(1) })
    }

    /// Whether an `Authorization` header names a user and the right password.
    pub(super) async fn admit(&self, header: &[u8]) -> bool {
        let Some((user, password)) = credentials(header) else { return false };
        let digest = self.digest(&user, &password);
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest) {
            return true;
        }
        let Ok(_turn) = self.turn.acquire().await else { return false };
        let hash = self.hashes.get(&user).cloned();
        let exists = hash.is_some();
        let verify = move || bcrypt::verify(password, hash.as_deref().unwrap_or(NOBODY)).unwrap_or(false);
        let right = tokio::task::spawn_blocking(verify).await.unwrap_or(false) && exists;
        if right {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        }
        right
    }

    fn digest(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        // A user's name has no colon, so no two pairs are the same text.
        for part in [&self.salt, user.as_bytes(), b":", password] {
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// `user:hash` lines; `#` begins a comment. The number of a bad line, and why it is bad.
fn parse(text: &str) -> Result<HashMap<String, String>, (usize, &'static str)> {
    let mut hashes = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |why| (number + 1, why);
        let (user, hash) = line.split_once(':').ok_or_else(|| bad("not user:hash"))?;
        if user.is_empty() {
            return Err(bad("the user has no name"));
        }
        let bcrypt = ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| hash.starts_with(prefix));
        if !bcrypt || hash.parse::<bcrypt::HashParts>().is_err() {
            return Err(bad("the hash is not bcrypt's; `htpasswd -nB USER` makes one"));
        }
        if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
            return Err(bad("the user stands twice"));
        }
    }
    Ok(hashes)
}

/// User and password of `Basic <base64 of user:password>`.
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = pair.iter().position(|b| *b == b':')?;
    Some((String::from_utf8(pair[..colon].to_vec()).ok()?, pair[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cost 4, the least there is: of "secret".
    fn hash() -> String {
        bcrypt::hash("secret", 4).unwrap()
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn only_the_right_password_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        fs::write(&file, format!("# site\nvm:{}\n\njan:{}\n", hash(), hash())).unwrap();
        let mut users = Users::read(&file).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..2 {
            let admit = |header: &str| runtime.block_on(users.admit(header.as_bytes()));
            assert!(admit(&basic("vm:secret")));
            assert!(admit(&basic("jan:secret").replace("Basic", "bAsIc")));
            for wrong in ["vm:Secret", "vm:", "vm", "nobody:secret", ":secret", "vm:secret:"] {
                assert!(!admit(&basic(wrong)), "{wrong}");
            }
            for wrong in ["", "Basic", "Basic !", "Bearer dm06c2VjcmV0"] {
                assert!(!admit(wrong), "{wrong}");
            }
            // The second round has nothing to hash with: what was right is remembered.
            users.hashes.clear();
        }
        assert_eq!(users.known.lock().unwrap().len(), 2, "only the right ones are remembered");
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let name = file.display().to_string();
        let good = hash();
        let cases = [
            ("# a\nvm\n".to_owned(), ":2: not user:hash"),
            (":x\n".to_owned(), ":1: the user has no name"),
            ("vm:{SHA}x\n".to_owned(), ":1: the hash is not bcrypt's; `htpasswd -nB USER` makes one"),
            ("vm:$2y$10$short\n".to_owned(), ":1: the hash is not bcrypt's; `htpasswd -nB USER` makes one"),
            (format!("vm:{good}\nvm:{good}\n"), ":2: the user stands twice"),
            ("\n#\n".to_owned(), ": there is no user in it"),
        ];
        for (text, expected) in cases {
            fs::write(&file, text).unwrap();
            let Err(error) = Users::read(&file) else { panic!("{expected}: read") };
            assert_eq!(error.to_string(), format!("{name}{expected}"));
        }
        assert!(bcrypt::verify("x", NOBODY).is_ok(), "a hash like any other");
    }
}
