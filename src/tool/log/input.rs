//! A server's file, or a captured stream, cut into records: lines, or frames with their length in front (RFC 6587,
//! 3.4.1). Which of the two is seen at the beginning of each.

use std::io::{self, BufRead, Read};

use super::record::Fault;

/// Ours have 8192 bytes at most; a server may have put something around them, others may send more.
const LONGEST: usize = 256 * 1024;
/// `262144 <`: what tells a frame from a line.
const HEAD: usize = 8;

/// Cuts.
pub struct Input<R> {
    from: R,
    buffer: Vec<u8>,
    /// Bytes taken so far.
    pub bytes: u64,
    /// Records begun so far; in a file of lines the number of the last one's line.
    pub line: u64,
}

impl<R: BufRead> Input<R> {
    /// From its beginning.
    pub fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), bytes: 0, line: 0 }
    }

    /// The next record without its frame or line end, `None` at the end. Empty lines are passed over.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next(&mut self) -> io::Result<Option<Result<&[u8], Fault>>> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let Some(first) = self.from.fill_buf()?.first() else { return Ok(None) };
            if first.is_ascii_digit() {
                match self.frame()? {
                    Some(Ok(())) => return Ok(Some(Ok(&self.buffer))),
                    Some(Err(fault)) => return Ok(Some(Err(fault))),
                    None => {}
                }
            }
            if let Err(fault) = self.line()? {
                return Ok(Some(Err(fault)));
            }
            if !self.buffer.is_empty() {
                return Ok(Some(Ok(&self.buffer)));
            }
        }
    }

    /// Takes up to so many bytes more; whether they all came.
    fn more(&mut self, count: usize) -> io::Result<bool> {
        let got = self.from.by_ref().take(count as u64).read_to_end(&mut self.buffer)?;
        self.bytes += got as u64;
        Ok(got == count)
    }

    /// `None` if it is none, and what was looked at for that stays in the buffer.
    fn frame(&mut self) -> io::Result<Option<Result<(), Fault>>> {
        loop {
            if !self.more(1)? {
                return Ok(None);
            }
            if !self.buffer.last().is_some_and(u8::is_ascii_digit) || self.buffer.len() == HEAD {
                break;
            }
        }
        if self.buffer.last() != Some(&b' ') || !self.more(1)? || self.buffer.last() != Some(&b'<') {
            return Ok(None);
        }
        let digits = self.buffer.get(..self.buffer.len() - 2).unwrap_or_default();
        let length = digits.iter().fold(0, |length: usize, digit| length * 10 + usize::from(digit - b'0'));
        self.buffer.drain(..self.buffer.len() - 1);
        if !(1..=LONGEST).contains(&length) {
            let rest = self.from.by_ref().take(length.saturating_sub(1) as u64);
            self.bytes += io::copy(&mut { rest }, &mut io::sink())?;
            return Ok(Some(Err(Fault::Long(LONGEST))));
        }
        Ok(Some(if self.more(length - 1)? { Ok(()) } else { Err(Fault::Cut) }))
    }

    /// The rest of a line, behind what is in the buffer.
    fn line(&mut self) -> io::Result<Result<(), Fault>> {
        if self.buffer.last() != Some(&b'\n') {
            let room = (LONGEST + 1).saturating_sub(self.buffer.len());
            self.bytes += self.from.by_ref().take(room as u64).read_until(b'\n', &mut self.buffer)? as u64;
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
            return Ok(Ok(()));
        }
        // The last line of a file may lack its end.
        if self.buffer.len() <= LONGEST {
            return Ok(Ok(()));
        }
        self.bytes += skip_line(&mut self.from)?;
        Ok(Err(Fault::Long(LONGEST)))
    }
}

fn skip_line(from: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let chunk = from.fill_buf()?;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(chunk.len(), |at| at + 1);
        from.consume(count);
        skipped += count as u64;
        if end.is_some() || count == 0 {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Result<String, Fault>> {
        let mut input = Input::new(bytes);
        let mut out = Vec::new();
        while let Some(next) = input.next().unwrap() {
            out.push(next.map(|record| String::from_utf8_lossy(record).into_owned()));
        }
        assert_eq!(input.bytes, bytes.len() as u64);
        out
    }

    #[test]
    fn lines_and_frames_are_told_apart() {
        let ok = |text: &str| Ok(text.to_owned());
        let cases: [(&str, Vec<Result<String, Fault>>); 10] = [
            ("", vec![]),
            ("<1>a\n\n<2>b\r\n<3>c", vec![ok("<1>a"), ok("<2>b"), ok("<3>c")]),
            ("4 <1>a5 <2>bb", vec![ok("<1>a"), ok("<2>bb")]),
            ("6 <1>a\nb4 <2>c", vec![ok("<1>a\nb"), ok("<2>c")]),
            ("4 <1>a\n4 <2>b\n", vec![ok("<1>a"), ok("<2>b")]),
            ("2026-01-01 x\n12 x\n1", vec![ok("2026-01-01 x"), ok("12 x"), ok("1")]),
            ("9 <1>a", vec![Err(Fault::Cut)]),
            ("0 <1>a", vec![Err(Fault::Long(LONGEST)), ok("1>a")]),
            ("12345678 <1>a\n<2>b", vec![ok("12345678 <1>a"), ok("<2>b")]),
            ("4\n<2>b", vec![ok("4"), ok("<2>b")]),
        ];
        for (raw, want) in cases {
            assert_eq!(all(raw.as_bytes()), want, "{raw:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_one_fault() {
        let long = "x".repeat(LONGEST);
        assert_eq!(all(format!("{long}\n<1>a\n").as_bytes()), [Ok(long.clone()), Ok("<1>a".to_owned())]);
        let want = [Err(Fault::Long(LONGEST)), Ok("<1>a".to_owned())];
        assert_eq!(all(format!("{long}x\n<1>a\n").as_bytes()), want);
        assert_eq!(all(format!("300000 <{}4 <1>a", "x".repeat(299_999)).as_bytes()), want);
        assert_eq!(all(format!("{long}xyz").as_bytes()), [Err(Fault::Long(LONGEST))]);
    }
}
