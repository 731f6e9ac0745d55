//! Why jobs end, by number: a site's machinery counts numbers, people read the text behind them.
//!
//! A number never changes its meaning, and one that is gone is never given again. docs/work.md has the same table.

use serde::Serialize;

/// A kind of end. What a subcode says differs from kind to kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By exit(2).
    Exited = 1,
    /// By a signal that was not ours.
    Signalled = 2,
    /// By the kernel, for lack of memory.
    OutOfMemory = 3,
    /// By us, at the limit of its wall time.
    WallTime = 4,
    /// By us, as the token was no longer ours.
    LeaseLost = 5,
    /// By us, as the machine was asked to end.
    MachineEnds = 6,
    /// Before anything of its program ran.
    NotStarted = 7,
    /// By itself and well, but with a result that cannot be taken.
    BadResult = 8,
    /// Before anything of its program ran, or by us: the site forbids its owner's work.
    Banned = 9,
    /// By itself and well, but what it wrote to the user's disk is not there for good.
    DiskLost = 10,
    /// By us, as it could not be watched any longer.
    Unwatched = 11,
    /// Before anything of its program ran, and for good: the token names no program of the image's.
    UnknownWord = 12,
}

/// All that is known of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub reason: Reason,
    /// One word for the report.
    pub name: &'static str,
    /// What a subcode says.
    pub subcode: &'static str,
    /// One line for people.
    pub meaning: &'static str,
}

/// Every kind, by its number.
pub const TABLE: [Row; 12] = [
    row(Reason::Exited, "exited", "exit status", "the program ended by itself; 0 is success, all else is not"),
    row(Reason::Signalled, "signalled", "signal", "the program died by a signal that did not come from ctxinit"),
    row(Reason::OutOfMemory, "out-of-memory", "none", "the kernel killed the job at its `memory_mb`"),
    row(Reason::WallTime, "wall-time", "none", "the job ran into its `wall_secs` and was stopped"),
    row(Reason::LeaseLost, "lease-lost", "none", "the token's lock was lost, and the job stopped"),
    row(Reason::MachineEnds, "machine-ends", "none", "the machine was asked to end, and the job stopped"),
    row(
        Reason::NotStarted,
        "not-started",
        "errno",
        "a step of the job's isolation, or the exec, failed; the text names it",
    ),
    row(Reason::BadResult, "bad-result", "errno", "the program exited with 0, but its result cannot be taken"),
    row(Reason::Banned, "banned", "none", "the site's ban list forbids its owner's work; not started, or stopped"),
    row(
        Reason::DiskLost,
        "disk-lost",
        "none",
        "the program exited with 0, but the user's disk did not take what it wrote",
    ),
    row(Reason::Unwatched, "unwatched", "errno", "ctxinit could not watch the job any longer, and stopped it"),
    row(
        Reason::UnknownWord,
        "unknown-word",
        "none",
        "not started: the token's first word is none of the image's `payload.commands`; no machine tries it again",
    ),
];

const fn row(reason: Reason, name: &'static str, subcode: &'static str, meaning: &'static str) -> Row {
    Row { reason, name, subcode, meaning }
}

impl Reason {
    /// Its number.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|row| row.reason == self).map_or("", |row| row.name)
    }
}

/// A reason as the report has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Coded {
    /// Number of its kind.
    pub code: u32,
    /// Exit status, signal or errno, as the kind has it; none where there is none.
    pub subcode: Option<i32>,
    /// Word for its kind.
    pub name: &'static str,
}

impl std::fmt::Display for Coded {
    /// `reason 1/3`, or `reason 4`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reason {}", self.code)?;
        self.subcode.map_or(Ok(()), |subcode| write!(f, "/{subcode}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_words_are_unique() {
        assert!(TABLE.is_sorted_by(|one, next| one.reason.code() < next.reason.code()));
        let names: std::collections::HashSet<&str> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(TABLE.iter().all(|row| row.reason.name() == row.name));
    }

    /// What a site's machinery is told of the numbers is what they are.
    #[test]
    fn the_docs_have_the_same_table() {
        let docs = include_str!("../../docs/work.md");
        let (_, section) = docs.split_once("\n## Why a job ended\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).collect();
        let row = |row: &Row| {
            let Row { reason, name, subcode, meaning } = row;
            format!("| {} | `{name}` | {subcode} | {meaning} |", reason.code())
        };
        let mut expected = vec!["| code | name | subcode | the job |".to_owned()];
        expected.extend(TABLE.iter().map(row));
        assert_eq!(rows, expected);
    }
}
