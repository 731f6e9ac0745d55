//! Foreign text, as it is shown to people.

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

/// Unicode's marks, embeddings, overrides and isolates of direction, and its separators of lines and paragraphs.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_steers_no_terminal() {
        assert_eq!(printable("a\tb\u{1b}[31m\r\n\0\u{9b}"), "a\tb\\u{1b}[31m\\r\\n\\u{0}\\u{9b}");
        assert_eq!(printable("\u{202e}txt.exe\u{2069}\u{61c}\u{2028}"), "\\u{202e}txt.exe\\u{2069}\\u{61c}\\u{2028}");
        assert_eq!(printable("größe 数"), "größe 数");
        assert_eq!(printable_bytes(b"/a\n\x1b[2J\xff\xc3\xa4\xe2\x80\xae"), "/a\\n\\u{1b}[2J\\xff\u{e4}\\u{202e}");
    }
}
