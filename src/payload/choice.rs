//! Which program a token gets: the image's one, or of the image's table the one that its first word names.
//!
//! A pool can be written to by whoever learns its name. So of a token a word is looked up, and nothing of it is part of a
//! path, an argument or a shell's line.

use thiserror::Error;

use crate::image::payload::{Command, Payload};
use crate::text::printable_bytes;

/// Of a word that is unknown, so much is shown.
const SHOWN: usize = 40;

/// A token that names no program of the image's table; no machine of this image can run it, however often it tries.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the token's first word, \"{word}\", is none of payload.commands: {known}")]
pub struct UnknownWord {
    word: String,
    known: String,
}

/// The program for a token of this value, or for a pilot, which has none.
///
/// # Errors
/// A first word that the image's table does not have.
pub fn of<'a>(policy: &'a Payload, token: Option<&[u8]>) -> Result<&'a Command, UnknownWord> {
    let (Some(commands), Some(token)) = (&policy.commands, token) else { return Ok(&policy.command) };
    let word = first_word(token);
    let found = str::from_utf8(word).ok().and_then(|word| commands.get(word));
    found.ok_or_else(|| {
        let known: Vec<&str> = commands.words().collect();
        let more = if word.len() > SHOWN { "..." } else { "" };
        let word = printable_bytes(word.get(..SHOWN).unwrap_or(word)) + more;
        UnknownWord { word, known: known.join(", ") }
    })
}

/// Up to the first blank or end of a line; empty where there is nothing else.
fn first_word(token: &[u8]) -> &[u8] {
    token.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(more: &str) -> Payload {
        serde_json::from_str(&format!(r#"{{"command": ["/bin/one"]{more}}}"#)).unwrap()
    }

    #[test]
    fn without_a_table_every_token_gets_the_one_program() {
        for token in [&b""[..], b"rm -rf /", b"\0\xff"] {
            assert_eq!(of(&policy(""), Some(token)).unwrap().words(), ["/bin/one"]);
        }
    }

    #[test]
    fn the_first_word_chooses_and_nothing_else_gets_in() {
        let policy = policy(r#", "commands": {"sim": ["/bin/sim", "-q"], "merge": ["/bin/merge"]}"#);
        for token in ["sim", "sim\n", "sim seed=1; rm -rf /", "  \n\tsim $(id)", "sim\r\nmerge"] {
            assert_eq!(of(&policy, Some(token.as_bytes())).unwrap().words(), ["/bin/sim", "-q"], "{token:?}");
        }
        assert_eq!(of(&policy, Some(b"merge sim")).unwrap().words(), ["/bin/merge"]);
        assert_eq!(of(&policy, None).unwrap().words(), ["/bin/one"], "a pilot has no words");
        let unknown: [(&[u8], &str); 9] = [
            (b"", ""),
            (b" \n", ""),
            (b"/bin/sim", "/bin/sim"),
            (b"../sim", "../sim"),
            (b"SIM", "SIM"),
            (b"simulate", "simulate"),
            (b"sim\0 x", "sim\\u{0}"),
            (b"\xffsim", "\\xffsim"),
            (&[b'x'; 50], &("x".repeat(40) + "...")),
        ];
        for (token, shown) in unknown {
            let why = of(&policy, Some(token)).unwrap_err().to_string();
            let expected = format!("the token's first word, \"{shown}\", is none of payload.commands: merge, sim");
            assert_eq!(why, expected);
        }
    }
}
