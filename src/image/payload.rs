//! What the image's builder says about payloads: the program, its limits, and how far it is shut in.
//!
//! Each switch that opens something is off unless the image says otherwise, and a site may only take away.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::policy::{between, some_between};
pub use super::reach::{Access, Hosts, Network};
use crate::payload::outcome::End;
use crate::sys::process::Exit;

/// MiB; more than any machine has.
pub(crate) const MAX_MB: u32 = 16_777_216;
/// The kernel's own limit of process numbers.
pub(crate) const MAX_PIDS: u32 = 4_194_304;
/// The kernel takes no quota under 1 ms of its 100 ms.
pub(crate) const MAX_CPU_PERCENT: u32 = 1_000_000;
/// A program has three descriptors before it opens its first library.
pub(crate) const MIN_FILES: u32 = 16;
/// The kernel's own limit (fs.nr_open).
pub(crate) const MAX_FILES: u32 = 1_048_576;
/// A year.
pub(crate) const MAX_WALL_SECS: u32 = 31_536_000;

/// The program that works on tokens, its limits, and how far it is shut in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Absolute path and arguments; never a shell line.
    pub command: Command,
    /// Where there are several programs: a token's first word is looked up here, and `command` is not run for tokens.
    #[serde(default)]
    pub commands: Option<Commands>,
    /// MiB of memory for the whole job, its directory's files included; swap is never given.
    #[serde(default = "memory_mb", deserialize_with = "between::<_, 1, MAX_MB>")]
    pub memory_mb: u32,
    /// Processes and threads of the whole job; ctxinit's own first process is not counted.
    #[serde(default = "pids", deserialize_with = "between::<_, 1, MAX_PIDS>")]
    pub pids: u32,
    /// Hundredths of a processor for the whole job; all of the machine's unless said.
    #[serde(default, deserialize_with = "some_between::<_, 1, MAX_CPU_PERCENT>")]
    pub cpu_percent: Option<u32>,
    /// Descriptors of one process.
    #[serde(default = "open_files", deserialize_with = "between::<_, MIN_FILES, MAX_FILES>")]
    pub open_files: u32,
    /// MiB of the job's own directory.
    #[serde(default = "scratch_mb", deserialize_with = "between::<_, 1, MAX_MB>")]
    pub scratch_mb: u32,
    /// Seconds of wall time for one token.
    #[serde(default = "wall_secs", deserialize_with = "between::<_, 1, MAX_WALL_SECS>")]
    pub wall_secs: u32,
    /// Seconds between SIGTERM and the end of everything.
    #[serde(default = "grace_secs", deserialize_with = "between::<_, 0, MAX_GRACE_SECS>")]
    pub grace_secs: u32,
    /// Exit codes that say that no other try does better: the token is put aside and not given back.
    #[serde(default, deserialize_with = "exit_codes")]
    pub no_retry: Vec<i32>,
    /// Places beyond its own directories that it may write to where their owner lets it; a site's shared file system.
    #[serde(default, deserialize_with = "places")]
    pub writable: Vec<String>,
    /// Whether it may make user namespaces, as unprivileged Apptainer does. It loses Landlock, which forbids every mount,
    /// and the filter lets namespaces and mounts pass: a fault of the kernel that needs capabilities in a namespace of
    /// one's own is in its reach then. `/dev` has `fuse`.
    #[serde(default)]
    pub user_namespaces: bool,
    /// Whether setuid programs and file capabilities give it what they say, as setuid Apptainer needs. It loses nosuid,
    /// no_new_privs, the empty bounding set, the securebits and Landlock: every setuid program of the image is a way to
    /// root that ctxinit does not watch. View, namespaces, cgroup and filter stay.
    #[serde(default)]
    pub setuid_programs: bool,
    /// Whom it may talk to.
    #[serde(default)]
    pub network: Network,
    /// Whether a site may ask for a shell on the console, as the job's user and inside its isolation.
    #[serde(default)]
    pub console_shell: bool,
}

impl Payload {
    /// Before the file is read: default limits, and a program that is not there.
    pub(super) fn unread() -> Self {
        Self {
            command: Command(vec!["/nonexistent".to_owned()]),
            commands: None,
            memory_mb: memory_mb(),
            pids: pids(),
            cpu_percent: None,
            open_files: open_files(),
            scratch_mb: scratch_mb(),
            wall_secs: wall_secs(),
            grace_secs: grace_secs(),
            no_retry: Vec::new(),
            writable: Vec::new(),
            user_namespaces: false,
            setuid_programs: false,
            network: Network::default(),
            console_shell: false,
        }
    }
}

impl Payload {
    /// Whether a token whose job has failed so may do better at another try.
    pub fn tries_again(&self, end: &End) -> bool {
        end.again() && !matches!(end, End::Exited(Exit::Code(code)) if self.no_retry.contains(code))
    }
}

/// Seconds; the machine's own end waits for it.
pub const MAX_GRACE_SECS: u32 = 30;

fn memory_mb() -> u32 {
    256
}

fn pids() -> u32 {
    128
}

/// Frameworks with many remote files open use thousands; the kernel's 1024 is for select(2).
fn open_files() -> u32 {
    65_536
}

fn scratch_mb() -> u32 {
    64
}

fn wall_secs() -> u32 {
    86_400
}

fn grace_secs() -> u32 {
    10
}

/// 0 is success, and a status has eight bits.
fn exit_codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    let codes = Vec::<i32>::deserialize(deserializer)?;
    match codes.iter().find(|code| !(1..=255).contains(*code)) {
        Some(code) => Err(D::Error::custom(format!("{code} is not an exit code of a failure (1-255)"))),
        None => Ok(codes),
    }
}

/// Absolute paths, without a `/` at their end. What lies below which is decided by their names alone, so none may turn.
pub(crate) fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut places = Vec::<String>::deserialize(deserializer)?;
    for place in &mut places {
        if !place.starts_with('/') || place.contains('\0') {
            return Err(D::Error::custom(format!("{place:?} is not an absolute path")));
        }
        if place.len() > 1 && place.ends_with('/') {
            place.pop();
        }
        if place != "/" && place.split('/').skip(1).any(|name| matches!(name, "" | "." | "..")) {
            return Err(D::Error::custom(format!("{place:?} has an empty name, . or .. in it")));
        }
    }
    Ok(places)
}

/// Whether `place` is `outer`, or below it; both as [`places`] reads them.
pub(crate) fn is_within(place: &str, outer: &str) -> bool {
    place.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An absolute path and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Command(Vec<String>);

impl Command {
    /// Program and arguments.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Command {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Self, String> {
        match words.first() {
            None => Err("the command is empty".to_owned()),
            Some(program) if !program.starts_with('/') => Err(format!("{program:?} is not an absolute path")),
            Some(_) if words.iter().any(|word| word.contains('\0')) => Err("a word holds a NUL".to_owned()),
            Some(_) => Ok(Self(words)),
        }
    }
}

/// Programs by the word that a token begins with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Command>")]
pub struct Commands(BTreeMap<String, Command>);

impl Commands {
    /// The program of this word.
    pub fn get(&self, word: &str) -> Option<&Command> {
        self.0.get(word)
    }

    /// All words, in order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl TryFrom<BTreeMap<String, Command>> for Commands {
    type Error = String;

    fn try_from(table: BTreeMap<String, Command>) -> Result<Self, String> {
        // Another could never be a token's first word.
        let odd = |word: &&String| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic());
        match table.keys().find(odd) {
            _ if table.is_empty() => Err("the table is empty: no token could be run".to_owned()),
            Some(word) => Err(format!("{word:?} is not one word of printable ASCII")),
            None => Ok(Self(table)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_turn() {
        let payload = |keys: &str| {
            let text = format!(r#"{{"command": ["/w"], {keys}}}"#);
            crate::config::parse::<Payload>("i", text.as_bytes()).map_err(|error| error.to_string())
        };
        let places = |list: &str| payload(&format!(r#""writable": {list}"#)).map(|payload| payload.writable);
        assert_eq!(places(r#"["/", "/a/", "/a/b"]"#).unwrap(), ["/", "/a", "/a/b"]);
        assert_eq!(places(r#"["a"]"#).unwrap_err(), r#"i:1: writable: "a" is not an absolute path"#);
        for wrong in ["/a/..", "/a/../b", "/..", "/./a", "/a//b", "/a//"] {
            let why = places(&format!(r#"["{wrong}"]"#)).unwrap_err();
            assert!(why.ends_with("has an empty name, . or .. in it"), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_table_of_programs_is_read() {
        let payload = |table: &str| {
            let text = format!(r#"{{"command": ["/w"], "commands": {table}}}"#);
            let read = crate::config::parse::<Payload>("i", text.as_bytes());
            read.map(|payload| payload.commands.unwrap()).map_err(|error| error.to_string())
        };
        let table = payload(r#"{"simulate": ["/usr/bin/sim", "-v"], "merge": ["/usr/bin/merge"]}"#).unwrap();
        assert_eq!(table.words().collect::<Vec<_>>(), ["merge", "simulate"]);
        assert_eq!(table.get("simulate").unwrap().words(), ["/usr/bin/sim", "-v"]);
        assert_eq!(table.get("rm"), None);
        let cases = [
            ("{}", "commands: the table is empty: no token could be run"),
            (r#"{"a b": ["/w"]}"#, r#"commands: "a b" is not one word of printable ASCII"#),
            (r#"{"": ["/w"]}"#, r#"commands: "" is not one word of printable ASCII"#),
            (r#"{"é": ["/w"]}"#, r#"commands: "é" is not one word of printable ASCII"#),
            (r#"{"a": ["w"]}"#, r#"commands.a: "w" is not an absolute path"#),
            (r#"{"a": []}"#, "commands.a: the command is empty"),
        ];
        for (table, why) in cases {
            let error = payload(table).unwrap_err();
            assert!(error.starts_with("i:1: commands"), "{error}");
            assert!(error.ends_with(why.split_once(": ").unwrap().1), "{error}");
        }
    }

    #[test]
    fn an_exit_code_may_say_that_no_other_try_does_better() {
        let read = |codes: &str| {
            let text = format!(r#"{{"command": ["/w"], "no_retry": {codes}}}"#);
            crate::config::parse::<Payload>("i", text.as_bytes()).map_err(|error| error.to_string())
        };
        let payload = read("[2, 65]").unwrap();
        let ends = [
            (End::Exited(Exit::Code(2)), false),
            (End::Exited(Exit::Code(65)), false),
            (End::Exited(Exit::Code(1)), true),
            (End::Exited(Exit::Signal(2)), true),
            (End::TooLong(2), true),
            (End::UnknownWord("x".to_owned()), false),
        ];
        for (end, again) in ends {
            assert_eq!(payload.tries_again(&end), again, "{end}");
        }
        for code in ["0", "256", "-1"] {
            let why = read(&format!("[{code}]")).unwrap_err();
            assert_eq!(why, format!("i:1: no_retry: {code} is not an exit code of a failure (1-255)"));
        }
    }

    #[test]
    fn a_place_is_within_itself_and_those_above() {
        for (place, outer) in [("/a", "/a"), ("/a/b", "/a"), ("/a", "/"), ("/", "/")] {
            assert!(is_within(place, outer), "{place} in {outer}");
        }
        for (place, outer) in [("/ab", "/a"), ("/", "/a"), ("/a", "/a/b")] {
            assert!(!is_within(place, outer), "{place} in {outer}");
        }
    }
}
