//! A text cut into tokens, and those into requests. Pure.

/// A token for each line: so many in one request, which a server commits at once.
const LINES: usize = 5000;
/// Bytes in one request, unless one line is longer: PHP's servers take 8 MiB by default.
const BYTES: usize = 1 << 20;

/// Consecutive lines for one request.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    /// The numbers of the first and last of them in the file, from 1.
    pub(super) first: u64,
    pub(super) last: u64,
    /// How many they are: blank lines between them are left out.
    pub(super) tokens: u64,
    /// The lines, each with its end.
    pub(super) body: Vec<u8>,
}

/// Cuts a text, beginning at line `from`. A blank line is no token: a server would make an empty one of it.
pub(super) fn batches(text: &[u8], from: u64) -> impl Iterator<Item = Batch> {
    let mut lines = lines(text).filter(move |(number, _)| *number >= from).peekable();
    std::iter::from_fn(move || {
        let mut batch: Option<Batch> = None;
        while let Some((number, line)) = lines.next_if(|(_, line)| {
            batch.as_ref().is_none_or(|batch| batch.tokens < LINES as u64 && batch.body.len() + line.len() < BYTES)
        }) {
            let batch = batch.get_or_insert(Batch { first: number, last: number, tokens: 0, body: Vec::new() });
            batch.last = number;
            batch.tokens += 1;
            batch.body.extend_from_slice(line);
            batch.body.push(b'\n');
        }
        batch
    })
}

/// Lines that are tokens, with their numbers, and without their ends.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    lines.map(|(number, line)| (number, line.strip_suffix(b"\r").unwrap_or(line))).filter(|(_, line)| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_tokens_and_blank_ones_are_not() {
        let cut = |text: &str, from| batches(text.as_bytes(), from).collect::<Vec<_>>();
        let one = |first, last, tokens, body: &str| Batch { first, last, tokens, body: body.into() };
        assert_eq!(cut("a\r\n\n b \nc", 1), [one(1, 4, 3, "a\n b \nc\n")]);
        assert_eq!(cut("a\n\nb\n", 2), [one(3, 3, 1, "b\n")]);
        assert_eq!(cut("\n\r\n", 1), []);
        assert_eq!(cut("", 1), []);
        assert_eq!(cut("a\0b", 1), [one(1, 1, 1, "a\0b\n")]);
    }

    #[test]
    fn a_request_has_its_bounds_and_no_line_is_lost() {
        let text = "x\n".repeat(12_345);
        let sizes: Vec<_> = batches(text.as_bytes(), 1).map(|batch| (batch.first, batch.last, batch.tokens)).collect();
        assert_eq!(sizes, [(1, 5000, 5000), (5001, 10_000, 5000), (10_001, 12_345, 2345)]);
        let long = "y".repeat(400_000);
        let text = [long.as_str(); 5].join("\n");
        assert_eq!(batches(text.as_bytes(), 1).map(|batch| batch.tokens).collect::<Vec<_>>(), [2, 2, 1]);
        let longer = "z".repeat(BYTES * 2);
        assert_eq!(batches(format!("{longer}\na").as_bytes(), 1).map(|batch| batch.tokens).collect::<Vec<_>>(), [1, 1]);
    }
}
