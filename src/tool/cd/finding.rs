//! What a look at a CD finds: one line each, with its place.

use std::fmt::{self, Write};

use serde::Serialize;

use crate::text::printable;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A machine refuses the CD, or ends with code 500.
    Error,
    /// A machine takes it, and something of it is probably not as it was meant.
    Warning,
    /// Worth a thought.
    Hint,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }

    /// SGR colours that are readable on dark and on light ground.
    fn colour(self) -> &'static str {
        match self {
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[33m",
            Self::Hint => "\x1b[36m",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Path on the CD; empty where it concerns the CD as a whole.
    pub file: String,
    /// From 1, where a line is concerned.
    pub line: Option<usize>,
    /// Key of `context.json`, variable, or number of a rule (`SC2086`); empty where there is none.
    pub key: String,
    /// What is wrong and, where that is not plain, what to do.
    pub what: String,
}

impl Finding {
    /// About a file as a whole, or with an empty name about the CD.
    pub fn new(level: Level, file: impl Into<String>, what: impl Into<String>) -> Self {
        Self { level, file: file.into(), line: None, key: String::new(), what: what.into() }
    }

    /// In this line, from 1; 0 says that the line is not known.
    pub fn at(self, line: usize) -> Self {
        Self { line: (line > 0).then_some(line), ..self }
    }

    /// About this key.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: key.into(), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, None) => write!(line, "{file}: ")?,
            (file, Some(at)) => write!(line, "{file}:{at}: ")?,
        }
        if !self.key.is_empty() {
            write!(line, "{}: ", self.key)?;
        }
        // Names and values come from anybody's CD, and the line goes to a terminal.
        write!(f, "{}{}", printable(&line), printable(&self.what))
    }
}

/// All of a CD, worst first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// Sorted by level, file and line.
    pub findings: Vec<Finding>,
}

impl From<Vec<Finding>> for Findings {
    fn from(mut findings: Vec<Finding>) -> Self {
        findings.sort();
        findings.dedup();
        Self { findings }
    }
}

impl Findings {
    /// How many there are of a level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// A line each, `LEVEL FILE:LINE: KEY: what`, of this level and those above.
    pub fn lines(&self, least: Level, coloured: bool) -> String {
        let mut lines = String::new();
        for finding in self.findings.iter().filter(|finding| finding.level <= least) {
            let (on, off) = if coloured { (finding.level.colour(), "\x1b[0m") } else { ("", "") };
            let _ = writeln!(lines, "{on}{}{off} {finding}", finding.level.word());
        }
        lines
    }

    /// The last line: how many of each, and what that means.
    pub fn summary(&self) -> String {
        let count = |level: Level| match self.count(level) {
            0 => None,
            1 => Some(format!("1 {}", level.word())),
            several => Some(format!("{several} {}s", level.word())),
        };
        let counts: Vec<String> = [Level::Error, Level::Warning, Level::Hint].into_iter().filter_map(count).collect();
        let meaning = match (self.count(Level::Error), self.count(Level::Warning)) {
            (0, 0) => "a machine takes this CD as it is",
            (0, _) => "a machine takes this CD, but probably not as it was meant",
            _ => "a machine refuses this CD or fails with it",
        };
        if counts.is_empty() { format!("clean: {meaning}") } else { format!("{}: {meaning}", counts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_place() {
        let finding = Finding::new(Level::Error, "context.json", "unknown").at(3).key("sylog");
        assert_eq!(finding.to_string(), "context.json:3: sylog: unknown");
        assert_eq!(Finding::new(Level::Hint, "", "no marks").to_string(), "no marks");
        assert_eq!(Finding::new(Level::Hint, "a\x1b[2J", "x\ny").to_string(), "a\\u{1b}[2J: x\\ny");
    }

    #[test]
    fn worst_first_and_each_once() {
        let hint = Finding::new(Level::Hint, "a", "h");
        let all = Findings::from(vec![hint.clone(), Finding::new(Level::Error, "b", "e"), hint]);
        assert_eq!(all.lines(Level::Hint, false), "error b: e\nhint a: h\n");
        assert_eq!(all.lines(Level::Warning, true), "\x1b[1;31merror\x1b[0m b: e\n");
        assert_eq!(all.summary(), "1 error, 1 hint: a machine refuses this CD or fails with it");
        assert_eq!(Findings::default().summary(), "clean: a machine takes this CD as it is");
    }
}
