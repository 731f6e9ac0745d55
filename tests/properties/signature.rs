//! `SHA256SUMS` and its signature: read in one form, or refused with their line.

use std::collections::BTreeMap;

use ctxinit::context::signature::{Hash, Key, Sums, claimed_image};
use proptest::prelude::*;

use crate::{bytes, damaged, holds, text_of};

fn files() -> impl Strategy<Value = BTreeMap<String, Hash>> {
    let name = "[a-zA-Z0-9._ \u{e9}-]{1,8}";
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    prop::collection::btree_map(path, any::<Hash>(), 0..6)
}

#[test]
fn a_list_has_one_form() {
    holds(files(), |files| {
        let Ok(sums) = Sums::of(&files) else { return Ok(()) };
        let text = sums.write();
        prop_assert_eq!(&Sums::parse(text.as_bytes()).unwrap(), &sums);
        prop_assert_eq!(sums.difference(&files), None);
        Ok(())
    });
}

/// What is read is written again byte by byte: no two texts mean the same list.
#[test]
fn no_other_form_is_read() {
    const DIGITS: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const PIECES: &[&str] =
        &[DIGITS, "  ", " *", " ", "prolog.sh", "lib/x", "/", "..", "\n", "\r\n", "\\", "#", "A", "\u{e9}"];
    let texts = prop_oneof![text_of(PIECES, 12).prop_map(String::into_bytes), bytes(100)];
    holds(texts, |text| {
        match Sums::parse(&text) {
            Ok(sums) => prop_assert_eq!(sums.write().into_bytes(), text),
            Err(error) => {
                prop_assert!(error.line >= 1 && error.line <= text.split(|&b| b == b'\n').count(), "{}", error)
            }
        }
        Ok(())
    });
}

#[test]
fn a_damaged_list_is_another_one_or_none() {
    let files = [("a", 1), ("b/c", 2), ("prolog.sh", 3)].map(|(path, byte)| (path.to_owned(), [byte; 32]));
    let files = BTreeMap::from(files);
    let good = Sums::of(&files).unwrap().write().into_bytes();
    holds(damaged(good.clone()), |text| {
        if let Ok(sums) = Sums::parse(&text) {
            prop_assert_eq!(sums.difference(&files).is_none(), text == good);
        }
        Ok(())
    });
}

/// Keys and signatures come in four lines of base64 at most; whatever else comes is refused.
#[test]
fn any_key_and_any_signature_is_read_or_refused() {
    const PIECES: &[&str] = &[
        "untrusted comment: x\n",
        "trusted comment: image=u expires=2030-01-01T00:00:00Z\n",
        "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
        "\n",
        "RW",
        "=",
        "\u{e9}",
        " ",
    ];
    holds(prop_oneof![text_of(PIECES, 8), any::<String>()], |text| {
        claimed_image(text.as_bytes());
        if let Ok(key) = Key::parse(&text) {
            prop_assert!(!key.id().is_empty());
        }
        if let Err((line, why)) = Key::from_file(&text) {
            prop_assert!(line >= 1 && !why.is_empty());
        }
        Ok(())
    });
}
