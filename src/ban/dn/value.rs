//! Values of a name: out of the escapes of either spelling, into the common form.

use super::DnError;

/// OpenSSL writes a byte that is not printable ASCII as `\xHH`.
pub(super) fn slash_value(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'\\', [b'x' | b'X', high, low, more @ ..]) if let Some(value) = hex_pair(*high, *low) => {
                out.push(value);
                rest = more;
            }
            // Our own common form, and what a list needs in its quotation marks.
            (b'\\', [escaped @ (b'\\' | b'"'), more @ ..]) => {
                out.push(*escaped);
                rest = more;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// RFC 4514, section 2.4 and 3, and the quoted values of RFC 1779.
pub(super) fn comma_value(text: &str) -> Result<Vec<u8>, DnError> {
    if let Some(digits) = text.strip_prefix('#') {
        return encoded_string(digits.trim_end());
    }
    let quoted = text.trim_end().strip_prefix('"');
    let text = match quoted {
        Some(quoted) => quoted.strip_suffix('"').ok_or(DnError::Unfinished)?,
        None => text,
    };
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match after {
            [b'x' | b'X', high, low, more @ ..] if let Some(value) = hex_pair(*high, *low) => {
                out.push(value);
                rest = more;
            }
            [high, low, more @ ..] if let Some(value) = hex_pair(*high, *low) => {
                out.push(value);
                rest = more;
            }
            [byte, more @ ..] => {
                out.push(*byte);
                rest = more;
            }
            [] => return Err(DnError::Unfinished),
        }
    }
    Ok(out)
}

/// `#` and the hexadecimal BER of a string: tag, length, content.
fn encoded_string(digits: &str) -> Result<Vec<u8>, DnError> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => hex_pair(*high, *low),
        _ => None,
    });
    let bytes = pairs.collect::<Option<Vec<u8>>>().ok_or(DnError::BadEncoding)?;
    let (tag, content) = match bytes.as_slice() {
        [tag, length, content @ ..] if *length < 0x80 && content.len() == usize::from(*length) => (*tag, content),
        [tag, 0x81, length, content @ ..] if content.len() == usize::from(*length) => (*tag, content),
        _ => return Err(DnError::BadEncoding),
    };
    match tag {
        // UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString.
        0x0c | 0x12 | 0x13 | 0x14 | 0x16 | 0x1a => Ok(content.to_vec()),
        // BMPString: two bytes a character.
        0x1e if content.len().is_multiple_of(2) => {
            let units = content.chunks(2).map(|pair| pair.iter().fold(0, |unit, &byte| unit << 8 | u16::from(byte)));
            Ok(char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect::<String>().into_bytes())
        }
        _ => Err(DnError::BadEncoding),
    }
}

/// The pieces between separators that are neither escaped nor within quotation marks. A mark in the middle of a value
/// is one of its characters.
pub(super) fn split<'a>(text: &'a str, separators: &[char]) -> Result<Vec<&'a str>, DnError> {
    let mut pieces = Vec::new();
    let (mut start, mut quoted, mut at_value) = (0, false, false);
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return Err(DnError::Unfinished),
            '\\' => at_value = false,
            '"' if quoted => quoted = false,
            '"' if at_value => quoted = true,
            '=' if !quoted => at_value = true,
            c if !quoted && separators.contains(&c) => {
                pieces.push(text.get(start..at).unwrap_or_default());
                start = at + c.len_utf8();
                at_value = false;
            }
            ' ' => {}
            _ => at_value = false,
        }
    }
    if quoted {
        return Err(DnError::Unfinished);
    }
    pieces.push(text.get(start..).unwrap_or_default());
    Ok(pieces)
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// A value's common form: no case, one blank where there were several, and nothing that ends a line.
pub(super) fn common(bytes: &[u8]) -> Result<String, DnError> {
    let mut out = String::new();
    let chars = bytes
        .utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(|&byte| char::from(byte))));
    for c in chars {
        match c {
            ' ' if out.is_empty() || out.ends_with(' ') => {}
            '\u{300}'..='\u{36f}' => return Err(DnError::Combining(c)),
            // So that reading this form gives it again.
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
            }
            // Its small form is two characters, the second a combining mark.
            'İ' => out.push('i'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out.truncate(out.trim_end_matches(' ').len());
    if out.is_empty() { Err(DnError::NoValue) } else { Ok(out) }
}
