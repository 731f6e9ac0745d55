//! File names for what a server calls something. Pure.

/// ext4 and the others take 255 bytes; the rest is for an ending of ours.
const LONGEST: usize = 200;

/// A name that is a plain file in whatever directory it is written to: nothing of it leads elsewhere, hides the file,
/// or needs quotes in a shell. Of a nameless token its number.
pub(super) fn safe(name: &str, id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+=@,".contains(c);
    let mut safe: String = name.chars().map(|c| if plain(c) { c } else { '_' }).take(LONGEST).collect();
    // A dot hides it, and may be a directory; a dash is an option to most programs.
    if safe.starts_with(['.', '-']) {
        safe.replace_range(..1, "_");
    }
    if safe.is_empty() { format!("token-{id}") } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_a_path() {
        let cases = [
            ("mc.17", "mc.17"),
            ("", "token-9"),
            ("..", "_."),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            (".bashrc", "_bashrc"),
            ("-rf", "_rf"),
            ("a b;$(rm)\n\0\u{e9}", "a_b___rm____"),
            ("C:\\x", "C__x"),
        ];
        for (name, expected) in cases {
            assert_eq!(safe(name, "9"), expected, "{name:?}");
        }
        assert_eq!(safe(&"x".repeat(999), "9").len(), LONGEST);
    }
}
