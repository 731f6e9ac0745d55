//! Cuts the stream of one client into messages: at a NUL (glibc), at a line feed, or by the octets that are counted in
//! front (RFC 6587, 3.4.1). Each message may be of another kind; what is cut wrongly is its sender's own.

use super::BUFFER;

/// Digits of a count; whoever counts further sends no log.
const MAX_DIGITS: usize = 6;

/// The message that is under way.
#[derive(Debug, Default)]
pub struct Cutter {
    /// As much of it as is kept.
    text: Vec<u8>,
    /// Bytes of it so far.
    whole: usize,
    /// Bytes still to come, where they were counted.
    left: Option<usize>,
}

impl Cutter {
    /// Takes what came, and gives away each message that it completes, with its length if it is not whole.
    pub fn cut(&mut self, mut bytes: &[u8], mut give: impl FnMut(&[u8], Option<usize>)) {
        while let Some(&first) = bytes.first() {
            let (take, ends) = match self.left {
                Some(left) => (left.min(bytes.len()), left <= bytes.len()),
                None if ends_line(&first) => (0, true),
                // One byte at a time, as long as it may be a count.
                None if counts(&self.text) => (1, false),
                None => {
                    let end = bytes.iter().position(ends_line);
                    (end.unwrap_or(bytes.len()), end.is_some())
                }
            };
            let (now, later) = bytes.split_at(take);
            // What ends a line belongs to no message.
            bytes = if ends && self.left.is_none() { later.get(1..).unwrap_or_default() } else { later };
            self.add(now);
            if ends {
                self.end(&mut give);
            } else if let Some(count) = counted(&self.text).filter(|_| self.left.is_none()) {
                self.text.drain(..self.text.len() - 1);
                (self.whole, self.left) = (1, Some(count - 1));
            }
        }
    }

    /// The client has left: what it did not end is a message too.
    pub fn end(&mut self, mut give: impl FnMut(&[u8], Option<usize>)) {
        if self.whole > 0 {
            give(&self.text, (self.whole > self.text.len()).then_some(self.whole));
        }
        self.text.clear();
        (self.whole, self.left) = (0, None);
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = BUFFER.saturating_sub(self.text.len());
        self.text.extend(bytes.iter().take(room));
        self.whole += bytes.len();
        self.left = self.left.map(|left| left.saturating_sub(bytes.len()));
    }
}

fn ends_line(byte: &u8) -> bool {
    matches!(byte, b'\0' | b'\n')
}

/// Whether it is the beginning of `COUNT SP <`.
fn counts(text: &[u8]) -> bool {
    let digits = text.strip_suffix(b" ").unwrap_or(text);
    digits.len() <= MAX_DIGITS && digits.iter().all(u8::is_ascii_digit) && digits.first() != Some(&b'0') && text != b" "
}

/// The count, if it is that and no more. One of 1 has nothing behind its `<`, and is text.
fn counted(text: &[u8]) -> Option<usize> {
    let digits = text.strip_suffix(b" <").filter(|digits| !digits.is_empty() && counts(digits))?;
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|count| *count > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All messages of a stream that comes in pieces of `step` bytes.
    fn cut(stream: &[u8], step: usize) -> Vec<(String, Option<usize>)> {
        let mut got = Vec::new();
        let mut cutter = Cutter::default();
        let mut give = |text: &[u8], cut| got.push((String::from_utf8_lossy(text).into_owned(), cut));
        stream.chunks(step).for_each(|piece| cutter.cut(piece, &mut give));
        cutter.end(&mut give);
        got
    }

    #[test]
    fn streams_of_all_kinds() {
        let cases: [(&[u8], &[&str]); 13] = [
            (b"<13>a: x\0<13>b: y\0", &["<13>a: x", "<13>b: y"]),
            (b"<13>a: x\n<13>b: y\n", &["<13>a: x", "<13>b: y"]),
            (b"<13>a: x\n\0\0<13>b: y", &["<13>a: x", "<13>b: y"]),
            (b"7 <13>x\ny8 <13>z\0\0z", &["<13>x\ny", "<13>z\0\0z"]),
            (b"7 <13>a:b<13>c: d\n6 <13>ef", &["<13>a:b", "<13>c: d", "<13>ef"]),
            (b"12\n12 \n12 x\n<1", &["12", "12 ", "12 x", "<1"]),
            (b"0 <13>x\n07 <13>x\n", &["0 <13>x", "07 <13>x"]),
            (b"1000000 <13>x\ny\n", &["1000000 <13>x", "y"]),
            (b" <13>x\n", &[" <13>x"]),
            (b"1 <13>x\n", &["1 <13>x"]),
            (b"2 <12 <2", &["<1", "<2"]),
            (b"999999 <13>short", &["<13>short"]),
            (b"\n\0\n", &[]),
        ];
        for (stream, want) in cases {
            for step in [1, 2, 3, 1000] {
                let got = cut(stream, step);
                let texts: Vec<_> = got.iter().map(|(text, _)| text.as_str()).collect();
                assert_eq!(texts, want, "{} by {step}", stream.escape_ascii());
                assert!(got.iter().all(|(_, cut)| cut.is_none()));
            }
        }
    }

    #[test]
    fn long_ones_are_cut_and_the_next_is_whole() {
        let long = "x".repeat(BUFFER + 5);
        for stream in [format!("{long}\nnext\n"), format!("{} <{}next", long.len(), &long[1..])] {
            for step in [7, 100_000] {
                let got = cut(stream.as_bytes(), step);
                assert_eq!(got.len(), 2, "{got:?}");
                assert_eq!((got[0].0.len(), got[0].1, got[1].0.as_str()), (BUFFER, Some(long.len()), "next"));
            }
        }
    }
}
