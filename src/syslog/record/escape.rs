//! Characters of anybody's, fit for a record: nothing is left that could end a line, a field or a value.

/// Room for ` [cut, 18446744073709551615 bytes]`.
const MAX_MARK: usize = 34;

/// A field of the header: graphic ASCII, and `-` where there is nothing.
pub fn push_name(out: &mut Vec<u8>, name: &[u8], max: usize) {
    if name.is_empty() {
        out.push(b'-');
    }
    out.extend(name.iter().take(max).map(|b| if b.is_ascii_graphic() { *b } else { b'_' }));
}

/// Appends the text, escaped, as far as `end`.
///
/// No byte order mark, though RFC 5424 asks for one before UTF-8: rsyslog keeps it as three bytes of the
/// message and sends none itself, so files would be full of it and searches for a text's beginning would fail.
///
/// Control characters and bytes that are no UTF-8 become `#ooo` in octal. That is how rsyslog would write them,
/// so a site sees one style; with backslashes, the paths and JSON in the text would have to be doubled.
pub fn push_text(out: &mut Vec<u8>, text: &[u8], whole: Option<usize>, end: usize) {
    // Nearly every line is of this kind, and a flood of them is to cost little.
    if whole.is_none() && out.len() + text.len() <= end && is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    let mut kept = out.len();
    let mut full = false;
    'text: for chunk in text.utf8_chunks() {
        let valid = chunk.valid().chars().map(Ok);
        let invalid = chunk.invalid().iter().map(|byte| Err(*byte));
        for piece in valid.chain(invalid) {
            let mut utf8 = [0; 4];
            match piece {
                Ok(c) if !dangerous(c) => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
                Ok(c) => c.encode_utf8(&mut utf8).bytes().for_each(|byte| push_octal(out, byte)),
                Err(byte) => push_octal(out, byte),
            }
            full = out.len() > end;
            if full {
                break 'text;
            }
            if out.len() <= end - MAX_MARK {
                kept = out.len();
            }
        }
    }
    if full || whole.is_some() {
        out.truncate(kept);
        out.extend_from_slice(b" [cut, ");
        push_number(out, whole.unwrap_or(text.len()) as u64);
        out.extend_from_slice(b" bytes]");
    }
}

/// Whether nothing but `' '..='~'` is in it; eight bytes at a time, as most of a flood's time would go into this.
fn is_plain(text: &[u8]) -> bool {
    const LOW: u64 = u64::MAX / 255;
    const HIGH: u64 = LOW << 7;
    let (words, rest) = text.as_chunks();
    // The highest bit of a byte shows what it is: not ASCII; below 32, which borrows; 127, to which one carries.
    let plain = |word: u64| (word | word.wrapping_sub(LOW * 32) | (word & !HIGH).wrapping_add(LOW)) & HIGH == 0;
    words.iter().all(|word| plain(u64::from_ne_bytes(*word))) && rest.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Controls (with C1, which terminals obey), other line ends, and marks that turn the reading direction.
pub fn dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How anything else of ours stands in a record.
pub fn push_octal(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[b'#', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]);
}

/// In decimal. Formatting by the standard library takes longer than all else in a record.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
        start = at;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_what_a_terminal_shows_as_it_is() {
        for byte in 0..=255 {
            for at in [0, 7, 8, 11] {
                let mut text = *b"plain words!";
                text[at] = byte;
                assert_eq!(is_plain(&text), (b' '..=b'~').contains(&byte), "{byte} at {at}");
                text[(at + 1) % 12] = 0x7e;
                text[(at + 11) % 12] = 0x20;
                assert_eq!(is_plain(&text), (b' '..=b'~').contains(&byte), "{byte} at {at} among others");
            }
        }
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
