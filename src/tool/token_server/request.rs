//! What a request says: paths, parameters, `Accept`. Pure; bytes in, no I/O.
//!
//! Numbers are read as PHP's `(int)` reads them, since that is what clients were written against.

use crate::context::site::PoolName;

/// What a URL names, below `/4.1` or `/4`.
#[derive(Debug, PartialEq)]
pub(super) enum Resource {
    Root,
    NewPool,
    Pools,
    Pool(PoolName),
    NextToken(PoolName),
    Progress(PoolName),
    Tokens(PoolName),
    Token(PoolName, i64),
    Locks(PoolName),
    /// The pool in a lock's URL means nothing: locks move with their tokens.
    Lock(String),
    /// A directory without its final slash.
    Unslashed,
    /// `/metrics`, outside of the protocol.
    Metrics,
}

impl Resource {
    /// A word for counting.
    pub(super) fn route(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::NewPool => "newPool",
            Self::Pools => "pools",
            Self::Pool(_) => "pool",
            Self::NextToken(_) => "nextToken",
            Self::Progress(_) => "progress",
            Self::Tokens(_) => "tokens",
            Self::Token(..) => "token",
            Self::Locks(_) => "locks",
            Self::Lock(_) => "lock",
            Self::Unslashed => "unslashed",
            Self::Metrics => "metrics",
        }
    }
}

/// The version that a path speaks: what stands before everything else in it.
pub(super) fn version(path: &str) -> &'static str {
    match path.split('/').nth(1).and_then(|first| first.split('?').next()) {
        Some("4") => "/4",
        _ => "/4.1",
    }
}

/// Reads a path, percent-encoded as it came. `None` is a 404.
pub(super) fn resource(path: &str) -> Option<Resource> {
    let path = String::from_utf8(percent_decode(path.as_bytes(), false)).ok()?;
    let pool = |name: &str| PoolName::try_from(name.to_owned()).ok();
    if path == "/metrics" {
        return Some(Resource::Metrics);
    }
    let parts: Vec<&str> = path.strip_prefix(version(&path))?.split('/').collect();
    match *parts.as_slice() {
        [""] | ["", "pools"] => Some(Resource::Unslashed),
        ["", ""] => Some(Resource::Root),
        ["", "newPool"] | ["", "newPool", ""] => Some(Resource::NewPool),
        ["", "pools", ""] => Some(Resource::Pools),
        ["", "pools", name] | ["", "pools", name, "tokens" | "locks"] => pool(name).map(|_| Resource::Unslashed),
        ["", "pools", name, ""] => pool(name).map(Resource::Pool),
        ["", "pools", name, "nextToken"] => pool(name).map(Resource::NextToken),
        ["", "pools", name, "progress"] => pool(name).map(Resource::Progress),
        ["", "pools", name, "tokens", ""] => pool(name).map(Resource::Tokens),
        ["", "pools", name, "locks", ""] => pool(name).map(Resource::Locks),
        ["", "pools", name, "tokens", id] if id.bytes().all(|b| b.is_ascii_digit()) => {
            Some(Resource::Token(pool(name)?, id.parse().ok()?))
        }
        ["", "pools", name, "locks", uuid] if uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => {
            pool(name).map(|_| Resource::Lock(uuid.to_owned()))
        }
        _ => None,
    }
}

/// The fields of a query or of a form.
pub(super) struct Params(Vec<(Vec<u8>, Vec<u8>)>);

impl Params {
    /// Reads `application/x-www-form-urlencoded`.
    pub(super) fn parse(text: &[u8]) -> Self {
        let fields = text.split(|b| *b == b'&').filter(|field| !field.is_empty()).map(|field| {
            let mut sides = field.splitn(2, |b| *b == b'=').map(|side| percent_decode(side, true));
            (sides.next().unwrap_or_default(), sides.next().unwrap_or_default())
        });
        Self(fields.collect())
    }

    /// A field's bytes; of several with one name the last counts.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// A field as text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A field as a number, 0 where it is none.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.bytes(name).map(leading_number)
    }
}

fn percent_decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let byte = match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = after;
                hex_digit(*high) << 4 | hex_digit(*low)
            }
            (b'+', _) if plus_is_space => b' ',
            _ => first,
        };
        decoded.push(byte);
    }
    decoded
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The whole number that a text begins with; 0 if there is none, the nearest if it is too large.
fn leading_number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = digits.iter().take_while(|b| b.is_ascii_digit());
    let size = digits.fold(0_i64, |n, digit| n.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -size } else { size }
}

/// The token that a text ends with the number of: a number, or a token's URL.
pub(super) fn trailing_token(text: &[u8]) -> Option<i64> {
    let digits = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&text[text.len() - digits..]).ok()?.parse().ok()
}

/// All numbers in a text, each once; of one that is too large for a token the largest. It must not be left out: a list
/// without any number stands for a whole pool.
pub(super) fn token_list(text: &[u8]) -> Vec<i64> {
    let words = text.split(|b| !b.is_ascii_digit()).filter(|digits| !digits.is_empty());
    words.map(leading_number).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// The tokens in a text: its lines without their ends. A blank line is an empty token.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let whole = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = (!text.is_empty()).then(|| whole.split(|b| *b == b'\n')).into_iter().flatten();
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// `n` of `Content-Disposition: attachment; filename="n"`.
pub(super) fn file_name(disposition: &str) -> Option<String> {
    let (_, value) = disposition.split_once(';')?.1.split_once("filename=")?;
    let Some(quoted) = value.strip_prefix('"') else {
        return Some(value.split(';').next().unwrap_or_default().trim().to_owned()).filter(|name| !name.is_empty());
    };
    let mut name = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some(name).filter(|name| !name.is_empty()),
            '\\' => name.push(chars.next()?),
            char => name.push(char),
        }
    }
}

/// What a body can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    Xhtml,
    Plain,
    /// Tab-separated, as `text/plain` is; only its name differs.
    Tdv,
    Csv,
    Json,
}

/// What single resources come as.
pub(super) const PAGE: &[(&str, Format)] = &[("application/xhtml+xml", Format::Xhtml), ("text/plain", Format::Plain)];

/// What directories come as.
pub(super) const DIRECTORY: &[(&str, Format)] = &[
    ("application/xhtml+xml", Format::Xhtml),
    ("application/json", Format::Json),
    ("text/tdv", Format::Tdv),
    ("text/plain", Format::Plain),
    ("text/csv", Format::Csv),
];

/// The offer that `Accept` likes best, the first of equals; XHTML where it likes none.
pub(super) fn best(accept: &str, offers: &[(&str, Format)]) -> Format {
    let mut best = (0.0, Format::Xhtml);
    for (kind, format) in offers {
        let quality = quality(accept, kind);
        if quality > best.0 {
            best = (quality, *format);
        }
    }
    best.1
}

/// RFC 9110 12.5.1: the most specific range that matches has the say.
fn quality(accept: &str, kind: &str) -> f32 {
    let major = kind.split('/').next().unwrap_or_default();
    let mut found = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let rank = match name.split_once('/') {
            Some(_) if name.eq_ignore_ascii_case(kind) => 3,
            Some((m, "*")) if m.eq_ignore_ascii_case(major) => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if rank > found.0 {
            found = (rank, quality);
        }
    }
    found.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolName {
        PoolName::try_from(name.to_owned()).unwrap()
    }

    #[test]
    fn paths_name_resources() {
        let cases = [
            ("/4.1", Some(Resource::Unslashed)),
            ("/4.1/", Some(Resource::Root)),
            ("/4.1x", None),
            ("/", None),
            ("/4.1/newPool", Some(Resource::NewPool)),
            ("/4.1/newPool/", Some(Resource::NewPool)),
            ("/4.1/pools", Some(Resource::Unslashed)),
            ("/4.1/pools/", Some(Resource::Pools)),
            ("/4.1/pools/p", Some(Resource::Unslashed)),
            ("/4.1/pools/p/", Some(Resource::Pool(pool("p")))),
            ("/4.1/pools/a%2Db_c.9/", Some(Resource::Pool(pool("a-b_c.9")))),
            ("/4.1/pools/a%20b/", None),
            ("/4.1/pools/../", None),
            ("/4.1/pools/p%ff/", None),
            ("/4.1/pools/p/nextToken", Some(Resource::NextToken(pool("p")))),
            ("/4.1/pools/p/nextToken/", None),
            ("/4.1/pools/p/progress", Some(Resource::Progress(pool("p")))),
            ("/4.1/pools/p/tokens", Some(Resource::Unslashed)),
            ("/4.1/pools/p/tokens/", Some(Resource::Tokens(pool("p")))),
            ("/4.1/pools/p/tokens/17", Some(Resource::Token(pool("p"), 17))),
            ("/4.1/pools/p/tokens/17x", None),
            ("/4.1/pools/p/tokens/99999999999999999999", None),
            ("/4.1/pools/p/locks", Some(Resource::Unslashed)),
            ("/4.1/pools/p/locks/", Some(Resource::Locks(pool("p")))),
            ("/4.1/pools/p/locks/0aF-9", Some(Resource::Lock("0aF-9".to_owned()))),
            ("/4.1/pools/p/locks/xyz", None),
            ("/4", Some(Resource::Unslashed)),
            ("/4/pools/p/tokens/17", Some(Resource::Token(pool("p"), 17))),
            ("/3/pools/p/", None),
            ("/4.1/4/pools/p/", None),
            ("/metrics", Some(Resource::Metrics)),
            ("/4.1/pools/p%00/", None),
            ("/4.1/pools/p%zz/", None),
            ("/4.1/pools/%/", None),
        ];
        for (path, expected) in cases {
            assert_eq!(resource(path), expected, "{path}");
        }
    }

    #[test]
    fn parameters_are_read_like_php_reads_them() {
        let params = Params::parse(b"a=1&timeout=60s&d=x%3Dy+z%2&a=2&&e&f=-5&g=x&h=99999999999999999999");
        assert_eq!(params.text("a").as_deref(), Some("2"));
        assert_eq!(params.text("d").as_deref(), Some("x=y z%2"));
        assert_eq!(params.text("e").as_deref(), Some(""));
        assert_eq!(params.text("none"), None);
        let numbers = ["timeout", "e", "f", "g", "h"].map(|name| params.number(name));
        assert_eq!(numbers, [Some(60), Some(0), Some(-5), Some(0), Some(i64::MAX)]);
        assert_eq!(Params::parse(b"n=3.9").number("n"), Some(3));
    }

    #[test]
    fn tokens_are_found_in_text() {
        let cases: [(&[u8], Option<i64>); 4] =
            [(b"17", Some(17)), (b"http://h/4.1/pools/p/tokens/17", Some(17)), (b"17/", None), (b"", None)];
        for (text, expected) in cases {
            assert_eq!(trailing_token(text), expected);
        }
        assert_eq!(token_list(b"3, 4\n3 tokens/12"), [3, 4, 12]);
        assert_eq!(token_list(b"all"), [] as [i64; 0]);
        assert_eq!(token_list(b"99999999999999999999"), [i64::MAX], "no number at all moves a whole pool");
    }

    #[test]
    fn lines_are_tokens() {
        let cases: [(&[u8], &[&[u8]]); 6] = [
            (b"", &[]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"a\r\n\r\nb", &[b"a", b"", b"b"]),
            (b"\n", &[b""]),
            (b"a\n\n", &[b"a", b""]),
        ];
        for (text, expected) in cases {
            assert_eq!(lines(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn file_names_are_found() {
        let cases = [
            (r#"attachment; filename="a b.txt""#, Some("a b.txt")),
            (r#"inline; filename="a\"b"; x=y"#, Some("a\"b")),
            ("inline; filename=plain ; x=y", Some("plain")),
            (r#"inline; filename="""#, None),
            (r#"inline; filename="open"#, None),
            ("inline", None),
        ];
        for (header, expected) in cases {
            assert_eq!(file_name(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn accept_decides() {
        let cases = [
            ("", Format::Xhtml),
            ("*/*", Format::Xhtml),
            ("text/plain", Format::Plain),
            ("text/tdv", Format::Tdv),
            ("text/csv, text/plain;q=0.9", Format::Csv),
            ("text/*;q=0.5, application/json", Format::Json),
            ("application/json;q=0.2, text/plain;q=0.3", Format::Plain),
            ("*/*, application/xhtml+xml;q=0", Format::Json),
            ("image/png", Format::Xhtml),
        ];
        for (accept, expected) in cases {
            assert_eq!(best(accept, DIRECTORY), expected, "{accept}");
        }
        assert_eq!(best("application/json", PAGE), Format::Xhtml);
    }
}
