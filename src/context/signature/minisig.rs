//! What minisign makes: public keys, and signatures with a trusted comment.
//!
//! Formats: <https://jedisct1.github.io/minisign/>. Only signatures of the hashed file (`ED`) are taken: the
//! two letters are not signed themselves, so one of the old kind (`Ed`) might be relabelled.

use std::fmt;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{Error, PublicKey, Signature};
use serde::Deserialize;

/// minisign's own limits of its four lines are 1024 and 8192 bytes for the comments.
pub const SIGNATURE_LIMIT: usize = 16 * 1024;

/// A public key that a site signs with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Key {
    id: String,
    key: PublicKey,
}

impl Key {
    /// The second line of a public key file: 56 letters that begin with `RW`.
    ///
    /// # Errors
    /// Says what it is not; the text is not repeated, it may be a secret key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let key = PublicKey::from_base64(text);
        let id = key_id(text);
        match (key, id) {
            (Ok(key), Some(id)) => Ok(Self { id, key }),
            _ => Err("not a minisign public key (56 letters that begin with RW)".to_owned()),
        }
    }

    /// A public key file: a line of comment, and the key.
    ///
    /// # Errors
    /// The line, from 1, and what is wrong with it.
    pub fn from_file(text: &str) -> Result<Self, (usize, String)> {
        let lines: Vec<&str> = text.lines().collect();
        match lines.as_slice() {
            [comment, ..] if !comment.starts_with("untrusted comment:") => {
                Err((1, "a minisign public key begins with 'untrusted comment:'".to_owned()))
            }
            [_, key] => Self::parse(key).map_err(|why| (2, why)),
            [_, _, ..] => Err((3, "a minisign public key has two lines".to_owned())),
            _ => Err((lines.len() + 1, "the file ends where a minisign public key goes on".to_owned())),
        }
    }

    /// Its number, in hexadecimal as minisign prints it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Both keys and signatures: two letters of algorithm, and eight bytes that minisign prints as a number.
fn key_id(base64: &str) -> Option<String> {
    let bytes = STANDARD.decode(base64).ok()?;
    let id: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
    Some(format!("{:016X}", u64::from_le_bytes(id)))
}

/// What the signer promises in the trusted comment of the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The image that the CD is for; none for any image.
    pub image: Option<String>,
    /// Until when, to the second.
    pub expires: SystemTime,
}

impl Terms {
    /// `ctxinit context image=UUID expires=RFC3339`. A comment of another form belongs to a signature for something else.
    fn parse(comment: &str) -> Option<Self> {
        let (image, expires) = comment.strip_prefix("ctxinit context image=")?.split_once(" expires=")?;
        let terms = Self {
            image: (image != "any").then(|| image.to_owned()),
            expires: humantime::parse_rfc3339(expires).ok()?,
        };
        (!image.is_empty() && !image.contains(' ') && terms.to_string() == comment).then_some(terms)
    }

    /// RFC 3339, to the second.
    pub fn expires(&self) -> String {
        humantime::format_rfc3339_seconds(self.expires).to_string()
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ctxinit context image={} expires={}", self.image.as_deref().unwrap_or("any"), self.expires())
    }
}

/// Checks the signature of `sums` with `keys`. Returns the one that made it, and its terms.
///
/// # Errors
/// A sentence that says why it is none, and names the key where that is known.
pub fn verify<'a>(sums: &[u8], signature: &[u8], keys: &'a [Key]) -> Result<(&'a Key, Terms), String> {
    let text = four_lines(signature)?;
    let unreadable = "is not a minisign signature";
    let signature = Signature::decode(text).map_err(|_| unreadable)?;
    let id = text.lines().nth(1).and_then(key_id).ok_or(unreadable)?;
    let candidates: Vec<&Key> = keys.iter().filter(|key| key.id == id).collect();
    if candidates.is_empty() {
        let known: Vec<&str> = keys.iter().map(Key::id).collect();
        return Err(format!("is by key {id}, which the image does not know; it knows {}", known.join(", ")));
    }
    let mut why = String::new();
    for key in candidates {
        match key.key.verify(sums, &signature, false) {
            Ok(()) => {
                let terms = Terms::parse(signature.trusted_comment()).ok_or_else(|| {
                    format!("is by key {id}, but was not made for a context CD: its trusted comment is another")
                })?;
                return Ok((key, terms));
            }
            Err(Error::UnexpectedAlgorithm) => {
                why = format!("is of minisign's old kind (Ed, key {id}), which can be forged")
            }
            Err(_) => why = format!("is not one that key {id} made for this SHA256SUMS"),
        }
    }
    Err(why)
}

/// The image that a signature says it is for, whether that is true or not; none if it says none, or any.
pub fn claimed_image(signature: &[u8]) -> Option<String> {
    let text = str::from_utf8(signature).ok()?;
    Terms::parse(text.lines().nth(2)?.strip_prefix("trusted comment: ")?)?.image
}

/// The key that a signature says it was made with, in hexadecimal, whether that is true or not.
pub fn claimed_key(signature: &[u8]) -> Option<String> {
    str::from_utf8(signature).ok()?.lines().nth(1).and_then(key_id)
}

/// One text has one form: what nobody signed, like a fifth line, must not be there either.
fn four_lines(signature: &[u8]) -> Result<&str, &'static str> {
    let text = str::from_utf8(signature).map_err(|_| "is not text")?;
    if text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t')) {
        return Err("holds a control character");
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    match lines.as_slice() {
        [comment, _, _, last] if comment.starts_with("untrusted comment: ") && last.ends_with('\n') => Ok(text),
        _ => Err("does not have the four lines of a minisign signature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWTjgr25YhgUjqb1XtxQPN5IcKafK1yFVYeHV3x/BYvQuH5DheMDpS0Y";

    #[test]
    fn keys() {
        let key = Key::parse(KEY).unwrap();
        assert_eq!(key.id(), "8E141862B9BD82E3");
        assert_eq!(Key::from_file(&format!("untrusted comment: x\n{KEY}\n")), Ok(key));
        let cases = [
            ("".to_owned(), 1),
            (format!("{KEY}\n"), 1),
            ("untrusted comment: x\n".to_owned(), 2),
            (format!("untrusted comment: x\n{}\n", &KEY[1..]), 2),
            (format!("untrusted comment: x\n{KEY} \n"), 2),
            (format!("untrusted comment: x\n{KEY}\n{KEY}\n"), 3),
        ];
        for (text, line) in cases {
            assert_eq!(Key::from_file(&text).unwrap_err().0, line, "{text:?}");
        }
    }

    #[test]
    fn terms_have_one_form() {
        let comment = "ctxinit context image=any expires=2030-01-01T00:00:00Z";
        let terms = Terms::parse(comment).unwrap();
        assert_eq!((terms.image.clone(), terms.to_string().as_str()), (None, comment));
        let comment = "ctxinit context image=u-1 expires=2030-01-01T00:00:00Z";
        assert_eq!(Terms::parse(comment).unwrap().to_string(), comment);
        for other in [
            "",
            "timestamp:1555779966\tfile:SHA256SUMS",
            "ctxinit context image= expires=2030-01-01T00:00:00Z",
            "ctxinit context image=a b expires=2030-01-01T00:00:00Z",
            "ctxinit context image=any",
            "ctxinit context image=any expires=",
            "ctxinit context image=any expires=2030-01-01",
            "ctxinit context image=any expires=2030-01-01T00:00:00.5Z",
            "ctxinit context image=any expires=2030-13-01T00:00:00Z",
            "ctxinit context image=any expires=2030-01-01T00:00:00Z ",
            " ctxinit context image=any expires=2030-01-01T00:00:00Z",
        ] {
            assert_eq!(Terms::parse(other), None, "{other:?}");
        }
    }
}
