//! Where a member of a JSON text stands, so that it can be named, or taken out to look at what comes behind it.

use std::ops::Range;

/// The bytes of `"key": value` at this path of keys; `None` if the text has no such member or is no JSON.
pub fn member(text: &str, path: &[&str]) -> Option<Range<usize>> {
    Scanner { text: text.as_bytes(), at: 0 }.member(path)
}

/// From 1.
pub fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

/// The text without a member, its lines as they were.
pub fn without(text: &str, member: Range<usize>) -> Option<String> {
    let (before, rest) = text.split_at_checked(member.start)?;
    let (gone, after) = rest.split_at_checked(member.len())?;
    let blanks: String = gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
    // One comma goes with it: the one behind, else the one before.
    if let Some(rest) = after.trim_start().strip_prefix(',') {
        let space = after.split_at_checked(after.len() - rest.len() - 1)?.0;
        return Some(format!("{before}{blanks}{space} {rest}"));
    }
    match before.trim_end().strip_suffix(',') {
        Some(kept) => Some(format!("{kept} {}{blanks}{after}", before.split_at_checked(kept.len() + 1)?.1)),
        None => Some(format!("{before}{blanks}{after}")),
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn member(&mut self, path: &[&str]) -> Option<Range<usize>> {
        let (wanted, deeper) = path.split_first()?;
        self.expect(b'{')?;
        loop {
            self.blank();
            let start = self.at;
            let key = self.string()?;
            self.blank();
            self.expect(b':')?;
            if key == wanted.as_bytes() {
                if !deeper.is_empty() {
                    return self.member(deeper);
                }
                self.value()?;
                return Some(start..self.at);
            }
            self.value()?;
            self.blank();
            self.expect(b',')?;
        }
    }

    fn value(&mut self) -> Option<()> {
        self.blank();
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.nested(),
            _ => {
                let end = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                let rest = self.text.get(self.at..)?;
                self.at += rest.iter().position(end).unwrap_or(rest.len());
                Some(())
            }
        }
    }

    /// To the bracket that closes this one, without recursion: the text is anybody's.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Its raw content; keys of ours have no escapes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at - 1)
    }

    fn blank(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.blank();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_at_any_depth() {
        let text = "{\"a\": [1, \"}\", {\"b\": 2}],\n \"c\": {\"d\\\"\": 1, \"e\": \"x\\\"y\"}, \"f\": -1.5}";
        let found = |path: &[&str]| member(text, path).map(|range| &text[range]);
        assert_eq!(found(&["c", "e"]), Some("\"e\": \"x\\\"y\""));
        assert_eq!(found(&["f"]), Some("\"f\": -1.5"));
        assert_eq!(found(&["a"]), Some("\"a\": [1, \"}\", {\"b\": 2}]"));
        assert_eq!((found(&["b"]), found(&["c", "x"]), found(&["f", "x"])), (None, None, None));
        assert_eq!(line(text, member(text, &["c"]).unwrap().start), 2);
        for broken in ["", "{", "{\"a\"", "{\"a\":", "{\"a\": [", "{\"a\": \"\\", "[]", "]]"] {
            assert_eq!(member(broken, &["a"]), None, "{broken}");
        }
    }

    #[test]
    fn what_is_left_is_still_json() {
        let cases = [
            ("{\"a\": 1,\n\"b\": [\n2],\n\"c\": 3}", "b"),
            ("{\"b\": 1, \"c\": 3}", "b"),
            ("{\"c\": 3 ,\n \"b\": {}}", "b"),
            ("{\"b\": 1}", "b"),
        ];
        for (text, key) in cases {
            let left = without(text, member(text, &[key]).unwrap()).unwrap();
            let value: serde_json::Value = serde_json::from_str(&left).unwrap();
            assert!(value.get(key).is_none(), "{left}");
            assert_eq!(left.lines().count(), text.lines().count(), "{left}");
            assert_eq!(value.get("c").is_some(), text.contains("\"c\""), "{left}");
        }
    }
}
