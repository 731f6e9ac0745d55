//! What the kernel and a disk say: its command line, its events, superblocks.

use std::io;

use ctxinit::devices::content::Content;
use ctxinit::devices::uevent;
use ctxinit::image::root::Wanted;
use ctxinit::init::cmdline;
use proptest::prelude::*;

use crate::{bytes, holds, text_of};

#[test]
fn a_word_of_the_command_line_is_found_whatever_stands_around() {
    const WORDS: &[&str] = &["quiet", " ", "\t", "\"a b\"", "rootwait", "=", "x=\"--\"", "--x", "\n", "\u{e9}", "ro"];
    let value = "[a-zA-Z0-9=/,.]{0,12}";
    holds((text_of(WORDS, 8), value, text_of(WORDS, 8)), |(before, value, behind)| {
        let line = format!("{before} root=\"{value}\" {behind}");
        prop_assert_eq!(cmdline::value(&line, "root"), Some(value.clone()));
        prop_assert_eq!(cmdline::value(&format!("quiet -- {line}"), "root"), None);
        Ok(())
    });
}

#[test]
fn any_command_line_is_read() {
    const WORDS: &[&str] =
        &["root=", "LABEL=", "PARTLABEL=", "a", "\"", " ", "--", " -- ", "=", "\n", "/dev/vda", "\u{1f4bf}"];
    holds(prop_oneof![text_of(WORDS, 12), any::<String>()], |line| {
        let value = cmdline::value(&line, "root");
        if let Some(value) = &value {
            prop_assert!(line.replace('"', "").contains(value.as_str()), "{:?}", value);
        }
        if let Ok(wanted) = Wanted::parse(value.as_deref()) {
            prop_assert!(!wanted.to_string().is_empty());
        }
        Ok(())
    });
}

#[test]
fn any_event_is_read() {
    holds(bytes(300), |message| {
        uevent::parse(&message);
        Ok(())
    });
    holds(("[a-z/@0-9]{0,20}", "[a-zA-Z0-9:*]{1,40}", bytes(40)), |(head, modalias, rest)| {
        prop_assume!(!rest.windows(9).any(|window| window == b"MODALIAS="));
        let message = [head.as_bytes(), b"\0MODALIAS=", modalias.as_bytes(), b"\0", &rest].concat();
        prop_assert_eq!(uevent::parse(&message).modalias, Some(modalias));
        Ok(())
    });
}

/// A disk that ends after these bytes, as [`Content::find`] reads it.
fn content(disk: &[u8]) -> Content {
    let read = |at: u64, buffer: &mut [u8]| -> io::Result<()> {
        let rest = disk.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(())
    };
    Content::find(read).unwrap()
}

/// Magic numbers where they belong, among any bytes: never a panic, and a label is always fit for a console.
#[test]
fn any_disk_is_known_or_not() {
    const MARKS: &[(usize, &[u8])] = &[
        (1080, &[0x53, 0xef]),
        (0, b"hsqs"),
        (510, &[0x55, 0xaa]),
        (54, b"FAT16   "),
        (82, b"FAT32   "),
        (11, &[0, 2, 4, 1, 0, 2]),
        (32768, b"\x01CD001\x01"),
        (32768, b"\0BEA01\x01"),
        (34816, b"\0NSR02\x01"),
        (36864, b"\0TEA01\x01"),
        (32768, b"\xffCD001\x01"),
    ];
    let marks = prop::sample::subsequence(MARKS, 0..=4);
    let holes = prop::collection::vec((0..40_000usize, bytes(64)), 0..4);
    holds((marks, holes, 0..300_000usize, any::<u8>()), |(marks, holes, length, fill)| {
        let mut disk = vec![fill; length];
        let holes = holes.iter().map(|(at, bytes)| (*at, bytes.as_slice()));
        for (at, bytes) in holes.chain(marks) {
            if let Some(place) = disk.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
        let content = content(&disk);
        prop_assert!(!content.label().chars().any(char::is_control), "{:?}", content);
        prop_assert_eq!(content == Content::Unknown, content.fstype().is_empty());
        Ok(())
    });
}
