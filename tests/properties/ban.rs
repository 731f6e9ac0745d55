//! Names, ban lists and owners: one person has one name however it is written, and nothing that is written stops the
//! reader.

use ctxinit::ban::dn::{Dn, prefix};
use ctxinit::ban::judge::{Decision, Unknown, judge};
use ctxinit::ban::owner::Owner;
use ctxinit::ban::parse::{List, parse};
use proptest::prelude::*;

use crate::{bytes, damaged, holds, text_of};

const TYPES: &[(&str, &[&str])] = &[
    ("C", &["C", "c", "2.5.4.6"]),
    ("O", &["O", "o", "OID.2.5.4.10", "organizationName"]),
    ("OU", &["OU", "Ou"]),
    ("CN", &["CN", "cn", "2.5.4.3", "commonName"]),
    ("DC", &["DC", "dc"]),
    ("UID", &["UID", "USERID", "uid"]),
    ("emailAddress", &["emailAddress", "E", "Email", "1.2.840.113549.1.9.1"]),
];

/// Type by its place in [`TYPES`], and value; one that begins a new part in the slash spelling is no value there.
type Parts = Vec<(usize, String)>;

fn parts() -> impl Strategy<Value = Parts> {
    let value = "[A-Za-z0-9äé,;+\"#<>\\\\@.*-]([A-Za-z0-9äé ,;+\"#/<>\\\\@.:*-]{0,12}[A-Za-z0-9ä,+@.])?";
    prop::collection::vec((0..TYPES.len(), value), 1..7)
}

/// As OpenSSL and Globus write it: bytes that are not printable ASCII as `\xHH`.
fn slashes(parts: &Parts) -> String {
    let escaped = |value: &str| {
        let byte = |byte: u8| match byte {
            b' '..=b'~' if !b"\\\"".contains(&byte) => char::from(byte).to_string(),
            _ => format!("\\x{byte:02X}"),
        };
        value.bytes().map(byte).collect::<String>()
    };
    parts.iter().map(|(kind, value)| format!("/{}={}", TYPES[*kind].0, escaped(value))).collect()
}

/// As RFC 4514 has it, with another name for each type, another case, and more blanks, as `taste` wants.
fn commas(parts: &Parts, taste: u64) -> String {
    let part = |(kind, value): &(usize, String)| {
        let names = TYPES[*kind].1;
        let name = names[taste as usize % names.len()];
        let value = if taste & 8 == 0 { value.clone() } else { value.to_uppercase() };
        let mut escaped = String::new();
        for (at, c) in value.chars().enumerate() {
            match c {
                ',' | ';' | '+' | '"' | '\\' | '<' | '>' => escaped.extend(['\\', c]),
                '#' if at == 0 => escaped.push_str("\\#"),
                'ä' if taste & 16 == 0 => escaped.push_str("\\C3\\A4"),
                c => escaped.push(c),
            }
        }
        format!("{name}{0}={0}{escaped}", if taste & 32 == 0 { "" } else { " " })
    };
    let separator = [",", ", ", " ,", ";"][taste as usize / 64 % 4];
    parts.iter().rev().map(part).collect::<Vec<_>>().join(separator)
}

/// Root first by their types: only then both spellings have one reading.
fn in_order(mut parts: Parts) -> Parts {
    parts.insert(0, (0, "NL".to_owned()));
    parts
}

#[test]
fn the_spelling_of_a_name_does_not_matter() {
    holds((parts(), any::<u64>()), |(parts, taste)| {
        let parts = in_order(parts);
        let one = Dn::parse(&slashes(&parts));
        let other = Dn::parse(&commas(&parts, taste));
        prop_assert_eq!(&one, &other, "{} {}", slashes(&parts), commas(&parts, taste));
        // The common form is a name itself, and its own common form.
        let one = one.unwrap();
        prop_assert_eq!(&Dn::parse(&one.whole).unwrap(), &one);
        prop_assert_eq!(Dn::parse(&one.owner).unwrap().whole, one.owner);
        Ok(())
    });
}

#[test]
fn the_order_of_a_name_matters() {
    holds(parts(), |parts| {
        let mut other = parts.clone();
        other.reverse();
        let (one, other) = (Dn::parse(&slashes(&parts)).unwrap(), Dn::parse(&slashes(&other)).unwrap());
        let palindrome: Vec<_> = parts.iter().map(|(kind, value)| (kind, value.to_lowercase())).collect();
        let same = palindrome.iter().eq(palindrome.iter().rev());
        prop_assert!(same || one.whole != other.whole, "{:?}", one);
        Ok(())
    });
}

fn list_of(subject: &str) -> List {
    parse("ban.list", format!("# bans\n\"{subject}\" .ban\n").as_bytes()).unwrap()
}

fn owner_of(name: &str) -> Owner {
    // What RFC 9110 asks for within quotation marks.
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    Owner::of_media_type(format!("text/plain; owner=\"{quoted}\"").as_bytes())
}

/// Whatever spelling the list has and whatever the token's owner is written in, with a proxy's parts or without.
#[test]
fn who_is_banned_is_banned_in_every_spelling() {
    const PROXIES: &[&str] = &["", "/CN=proxy", "/CN=limited proxy", "/CN=proxy/CN=Limited Proxy"];
    // A name that ends in * bans more than itself.
    let person = parts().prop_filter("no wildcard", |parts| parts.iter().all(|(_, value)| !value.contains('*')));
    holds((person, any::<u64>(), prop::sample::select(PROXIES)), |(parts, taste, proxy)| {
        let parts = in_order(parts);
        let (slashes, commas) = (slashes(&parts), commas(&parts, taste));
        for rule in [&slashes, &commas] {
            for owner in [format!("{slashes}{proxy}"), commas.clone()] {
                let decision = judge(&owner_of(&owner), &list_of(rule), Unknown::Allow);
                prop_assert!(matches!(decision, Decision::Banned { line: 2, .. }), "{rule} {owner}: {decision}");
            }
        }
        let other = owner_of("/C=XX/CN=somebody else");
        prop_assert_eq!(judge(&other, &list_of(&slashes), Unknown::Refuse), Decision::Allowed);
        Ok(())
    });
}

#[test]
fn a_wildcard_bans_what_begins_so() {
    let plain = parts().prop_filter("no wildcard", |parts| parts.iter().all(|(_, value)| !value.contains('*')));
    holds((plain, 0..7usize), |(parts, keep)| {
        let parts = in_order(parts);
        let whole = slashes(&parts);
        let rule = slashes(&parts[..(keep % parts.len()) + 1].to_vec());
        let decision = judge(&owner_of(&whole), &list_of(&format!("{rule}*")), Unknown::Allow);
        prop_assert!(matches!(decision, Decision::Banned { .. }), "{rule}* {whole}: {decision}");
        Ok(())
    });
}

const LIST: &str =
    "# bans\n\n\"/C=NL/O=nikhef/CN=Jan\" .ban\n\"CN=Piet\\, Dr.,O=x\"\n\"/O=evil/*\"\n/atlas/Role=pilot\n";

/// Any bytes are a list or a refusal; what is a list holds only lines that it has, and comes through the channel.
#[test]
fn every_list_is_read_or_refused() {
    const PIECES: &[&str] = &[
        "\"",
        "\\",
        "/C=NL",
        "/O=x",
        "/CN=Jan",
        "CN=Jan",
        ",",
        "O=x",
        "*",
        "\n",
        "\n",
        " ",
        "\t",
        "#",
        "/atlas",
        "/Role=pilot",
        "/Capability=NULL",
        "\r",
        "\0",
        "ä",
        "\\xff",
        "\\,",
        "#0C014A",
        "=",
        "/",
        "+",
        ";",
        "VO=",
    ];
    let inputs =
        prop_oneof![text_of(PIECES, 24).prop_map(String::into_bytes), damaged(LIST.as_bytes().to_vec()), bytes(200)];
    holds(inputs, |raw| {
        match parse("ban.list", &raw) {
            Ok(list) => {
                let lines = raw.split(|&byte| byte == b'\n').count() as u32;
                prop_assert!(list.rules().iter().all(|rule| rule.line >= 1 && rule.line < lines));
                let json = serde_json::to_vec(&list).unwrap();
                prop_assert_eq!(serde_json::from_slice::<List>(&json).unwrap(), list);
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(text.starts_with("ban.list:") && !text.contains(char::is_control), "{:?}", text);
            }
        }
        Ok(())
    });
}

#[test]
fn every_media_type_has_an_owner_or_none() {
    const PIECES: &[&str] = &[
        "text/plain",
        ";",
        "; ",
        "owner=",
        "vo=",
        "fqan=",
        "\"",
        "\\",
        "/C=NL/CN=Jan",
        "CN=Jan,O=x",
        "/atlas",
        "/Role=x",
        "atlas",
        "=",
        " ",
        "\\\"",
        "ä",
        "\u{202e}",
        "q",
    ];
    let good = "text/plain; owner=\"/C=NL/O=nikhef/CN=Jan\"; vo=atlas; fqan=\"/atlas/Role=pilot\"";
    let inputs =
        prop_oneof![text_of(PIECES, 16).prop_map(String::into_bytes), damaged(good.as_bytes().to_vec()), bytes(120)];
    holds(inputs, |raw| {
        let owner = Owner::of_media_type(&raw);
        prop_assert!(!owner.to_string().contains(char::is_control), "{:?}", owner);
        let _ = std::str::from_utf8(&raw).map(|text| (Dn::parse(text), prefix(text)));
        // What was read is within the bounds that the agent asks for.
        prop_assert_eq!(owner.clone().checked(), owner);
        Ok(())
    });
}
