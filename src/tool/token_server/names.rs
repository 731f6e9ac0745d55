//! Searches for tokens by name: words as MySQL's full-text search in boolean mode reads them (4.1), or a pattern (4).
//!
//! Not taken over: MySQL's least length of words, its list of words that it ignores, and ranks (`>`, `<`, `~`).

/// What a name must be like.
#[derive(Debug, PartialEq)]
pub(super) enum Search {
    Words(Vec<Term>),
    /// The parts between the `*`, in lower case.
    Pattern(Vec<String>),
}

/// A word or a phrase.
#[derive(Debug, PartialEq)]
pub(super) struct Term {
    need: Need,
    /// In lower case; more than one stand side by side.
    words: Vec<String>,
    /// The last word may go on: `run*`.
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Need {
    /// `+word`
    Must,
    /// `-word`
    MustNot,
    /// One of those is enough, if nothing is a must.
    May,
}

impl Search {
    /// `+must -not may pre* "a phrase"`.
    pub(super) fn words(text: &str) -> Self {
        let mut terms = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find(|char: char| is_word(char) || matches!(char, '+' | '-' | '"')) {
            rest = &rest[begin..];
            let (need, after) = match rest.as_bytes()[0] {
                b'+' => (Need::Must, &rest[1..]),
                b'-' => (Need::MustNot, &rest[1..]),
                _ => (Need::May, rest),
            };
            let (body, open, after) = match after.strip_prefix('"') {
                Some(quoted) => {
                    let (phrase, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                    (phrase, false, after)
                }
                None => {
                    let (word, after) = after.split_at(after.find(|char| !is_word(char)).unwrap_or(after.len()));
                    (word, after.starts_with('*'), after)
                }
            };
            rest = after;
            let words: Vec<String> = split(body);
            if !words.is_empty() {
                terms.push(Term { need, words, open });
            }
        }
        Self::Words(terms)
    }

    /// `*` stands for anything.
    pub(super) fn pattern(text: &str) -> Self {
        Self::Pattern(text.to_lowercase().split('*').map(str::to_owned).collect())
    }

    pub(super) fn finds(&self, name: &str) -> bool {
        match self {
            Self::Pattern(parts) => fits(parts, &name.to_lowercase()),
            Self::Words(terms) => {
                let words = split(name);
                let there = |term: &&Term| term.is_in(&words);
                let of = |need| terms.iter().filter(move |term| term.need == need);
                of(Need::Must).all(|term| term.is_in(&words))
                    && !of(Need::MustNot).any(|term| term.is_in(&words))
                    // Only exclusions find nothing, in MySQL too.
                    && (of(Need::Must).next().is_some() || of(Need::May).find(there).is_some())
            }
        }
    }
}

impl Term {
    fn is_in(&self, name: &[String]) -> bool {
        let Some((last, firsts)) = self.words.split_last() else { return false };
        name.windows(self.words.len()).any(|window| match window.split_last() {
            Some((end, begin)) => begin == firsts && (end == last || self.open && end.starts_with(last.as_str())),
            None => false,
        })
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn split(text: &str) -> Vec<String> {
    text.split(|char| !is_word(char)).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Whether the parts are in the name in this order, the first at its begin and the last at its end. Taking each as
/// early as possible is right, and needs no second try.
fn fits(parts: &[String], name: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.first().is_none_or(|only| only == name) };
    let Some(mut rest) = name.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_searched() {
        let cases = [
            ("two", "Run TWO.txt", true),
            ("two", "run twofold", false),
            ("two*", "run twofold", true),
            ("one two", "run two", true),
            ("+one two", "run two", false),
            ("+run -two", "run two", false),
            ("+run -two", "run one", true),
            ("-two", "run one", false),
            ("\"run one\"", "the run one", true),
            ("\"run one\"", "run the one", false),
            ("-\"run one\" the", "run the one", true),
            ("\"run", "run", true),
            ("+", "run", false),
            ("(run) ~x >y", "run", true),
            ("é", "É", true),
            ("++--\"\"", "run", false),
            ("run", "", false),
        ];
        for (search, name, expected) in cases {
            assert_eq!(Search::words(search).finds(name), expected, "{search} in {name}");
        }
    }

    #[test]
    fn patterns_fit() {
        let cases = [
            ("run", "RUN", true),
            ("run", "run1", false),
            ("run*", "run1", true),
            ("*1", "run1", true),
            ("r*n*1", "run1", true),
            ("r*1*1", "run1", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a%", "ab", false),
        ];
        for (search, name, expected) in cases {
            assert_eq!(Search::pattern(search).finds(name), expected, "{search} in {name}");
        }
    }
}
