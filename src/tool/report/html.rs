//! HTML's few rules.

use std::fmt::{self, Display, Write};

use crate::text::printable;

/// Foreign text, as text: in an element or in an attribute's quotes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A name as part of an `id`.
pub fn anchor(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

/// Text under construction; writing to it cannot fail.
#[derive(Default)]
pub struct Html(String);

impl Html {
    /// Adds what is HTML already.
    pub fn add(&mut self, html: impl Display) {
        let _ = write!(self.0, "{html}");
    }

    /// Adds a block of foreign lines, if there are any.
    pub fn lines<'a>(&mut self, lines: impl Iterator<Item = &'a str>) {
        let lines: Vec<String> = lines.map(escape).collect();
        if !lines.is_empty() {
            self.add(format_args!("<pre>{}</pre>\n", lines.join("\n")));
        }
    }
}

impl Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_text() {
        assert_eq!(escape("<a href=\"x\" on='y'>&amp;"), "&lt;a href=&quot;x&quot; on=&#39;y&#39;&gt;&amp;amp;");
        assert_eq!(escape("\u{0}\u{202e}"), "\\u{0}\\u{202e}");
        assert_eq!(anchor("pro\"log><-1"), "prolog-1");
    }

    #[test]
    fn no_lines_are_no_block() {
        let mut html = Html::default();
        html.lines([].into_iter());
        html.lines(["a", "<b>"].into_iter());
        assert_eq!(html.to_string(), "<pre>a\n&lt;b&gt;</pre>\n");
    }
}
