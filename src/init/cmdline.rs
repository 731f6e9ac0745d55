//! The kernel command line, as far as init looks at it.
//!
//! Words are split at blanks outside double quotes, as the kernel does; `-` and `_` in names are the same;
//! everything behind `--` is init's own arguments and not looked at.

/// The value of the last `name=value`, as later words win.
pub fn value(cmdline: &str, name: &str) -> Option<String> {
    let pair = |word: &str| {
        let (key, value) = word.split_once('=')?;
        key.bytes().map(dash).eq(name.bytes().map(dash)).then(|| value.to_owned())
    };
    words(cmdline).iter().filter_map(|word| pair(word)).next_back()
}

fn dash(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

fn words(cmdline: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in cmdline.chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if word == "--" {
                    return words;
                }
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_kernels() {
        let cases = [
            ("root=LABEL=a quiet", Some("LABEL=a")),
            ("root=a root=b", Some("b")),
            ("root=\"LABEL=two words\" x", Some("LABEL=two words")),
            ("\"root=LABEL=two words\"", Some("LABEL=two words")),
            ("quiet -- root=c", None),
            ("rootwait=1 root", None),
            ("root=\n", Some("")),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(value(line, "root").as_deref(), expected, "{line}");
        }
        assert_eq!(value("a-b=1", "a_b").as_deref(), Some("1"));
    }
}
