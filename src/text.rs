//! Text as it is shown to people: foreign text, numbers of things, and whether in colours.

use std::io::{self, IsTerminal};

/// On one line: what would steer a terminal, or turn the direction of the text around, is shown and not done. File names
/// and the output of scripts end up here, and their reader is root.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\t') || turns_text(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The same of any bytes, such as a file name's.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out += &printable(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

/// `1 change`, `2 changes`, `2 processes`.
pub fn count(number: u64, what: &str) -> String {
    let plural = match (number, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {what}{plural}")
}

/// Whether standard output may have colours: a terminal, and NO_COLOR (<https://no-color.org>) not set, or empty.
pub fn in_colours() -> bool {
    io::stdout().is_terminal() && !forbids_colours(std::env::var_os("NO_COLOR"))
}

fn forbids_colours(no_color: Option<std::ffi::OsString>) -> bool {
    no_color.is_some_and(|value| !value.is_empty())
}

/// Unicode's marks, embeddings, overrides and isolates of direction, and its separators of lines and paragraphs.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_counted() {
        let told =
            [(0, "file"), (1, "file"), (2, "file"), (1, "process"), (2, "process")].map(|(n, what)| count(n, what));
        assert_eq!(told, ["0 files", "1 file", "2 files", "1 process", "2 processes"]);
    }

    #[test]
    fn an_empty_no_color_is_none() {
        let asked = [None, Some(""), Some("1")].map(|value| forbids_colours(value.map(Into::into)));
        assert_eq!(asked, [false, false, true]);
    }

    #[test]
    fn foreign_text_steers_no_terminal() {
        assert_eq!(printable("a\tb\u{1b}[31m\r\n\0\u{9b}"), "a\tb\\u{1b}[31m\\r\\n\\u{0}\\u{9b}");
        assert_eq!(printable("\u{202e}txt.exe\u{2069}\u{61c}\u{2028}"), "\\u{202e}txt.exe\\u{2069}\\u{61c}\\u{2028}");
        assert_eq!(printable("größe 数"), "größe 数");
        assert_eq!(printable_bytes(b"/a\n\x1b[2J\xff\xc3\xa4\xe2\x80\xae"), "/a\\n\\u{1b}[2J\\xff\u{e4}\\u{202e}");
    }
}
