//! The probe: a payload that tries to get out, one attempt after the other, and says how each one went.
//!
//! Attempts are data. Each runs in a child of its own with a time limit, so that one that is killed for its trouble
//! does not end the others. What it says is a line for the log, `attempt LABEL NAME: denied EPERM`: the label tells
//! which job of a case it was.

pub mod files;
pub mod identity;
mod kernel;
mod leftovers;
mod namespaces;
pub mod network;
mod processes;
pub mod raw;
mod resources;
mod run;
mod scene;
pub mod secrets;
mod state;
mod terminal;
pub mod unclean;
pub mod verdict;
mod view;

use std::time::Duration;

use nix::errno::Errno;

pub use self::identity::help;
pub use self::run::{judged, payload};
pub use self::scene::Scene;

/// The word behind `guest` for a helper with privileges of its file: it says which ones it has.
pub const HELPER: &str = "helper";
/// The word for the probe as a foreign judge runs it.
pub const JUDGED: &str = "judged";

/// One attempt.
pub struct Attempt {
    /// Unique, fit for a table.
    pub name: &'static str,
    /// What success would mean, in a few words.
    pub what: &'static str,
    /// What it cannot do without.
    pub needs: Needs,
    /// Makes it.
    pub make: fn(&Scene) -> Tried,
}

/// What an attempt cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing but a Linux.
    Nothing,
    /// Something of ctxinit's: its files, its cgroups, its users.
    Ctxinit,
    /// The host half of a case, which serves what is to be reached.
    Host,
    /// A job before it that left something behind.
    Left,
    /// A job that ends by it, if all is well.
    Job,
    /// A policy by which payloads have no network.
    Alone,
}

/// How an attempt went.
pub type Tried = Result<Breach, Denied>;

/// It went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Something was done that must not be done.
    Escaped(String),
    /// A wall is not there; whether it would have mattered, this attempt does not say.
    Seen(String),
}

/// It did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The kernel's word.
    Errno(Errno),
    /// What there was instead.
    Said(String),
}

impl From<Errno> for Denied {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Denied {
    fn from(error: std::io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Said(error.to_string()), |errno| Self::Errno(Errno::from_raw(errno)))
    }
}

/// As most attempts are made.
const fn attempt(name: &'static str, what: &'static str, make: fn(&Scene) -> Tried) -> Attempt {
    Attempt { name, what, needs: Needs::Nothing, make }
}

impl Attempt {
    /// The same with a need.
    const fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }
}

/// Longer than any attempt waits by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// By subject.
const ALL: &[&[Attempt]] = &[
    identity::ATTEMPTS,
    state::ATTEMPTS,
    view::ATTEMPTS,
    processes::ATTEMPTS,
    namespaces::ATTEMPTS,
    files::ATTEMPTS,
    secrets::ATTEMPTS,
    kernel::ATTEMPTS,
    terminal::ATTEMPTS,
    network::ATTEMPTS,
    resources::ATTEMPTS,
    leftovers::ATTEMPTS,
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    ALL.iter().copied().flatten()
}

/// What must fail did not.
fn escaped(what: impl Into<String>) -> Tried {
    Ok(Breach::Escaped(what.into()))
}

fn seen(what: impl Into<String>) -> Tried {
    Ok(Breach::Seen(what.into()))
}

fn denied(what: impl Into<String>) -> Tried {
    Err(Denied::Said(what.into()))
}

/// The first breach of several tries. Else the first refusal: that something is not there at all says less.
fn any<T>(of: impl IntoIterator<Item = T>, mut try_one: impl FnMut(T) -> Tried) -> Tried {
    let mut said: Option<Denied> = None;
    for one in of {
        let answer = match try_one(one) {
            Ok(breach) => return Ok(breach),
            Err(answer) => answer,
        };
        let absent = |answer: &Denied| matches!(answer, Denied::Errno(Errno::ENOENT | Errno::ESRCH));
        if said.as_ref().is_none_or(|said| absent(said) && !absent(&answer)) {
            said = Some(answer);
        }
    }
    Err(said.unwrap_or_else(|| Denied::Said("nothing there to try it on".to_owned())))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_words() {
        let names: Vec<&str> = all().map(|attempt| attempt.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"-0123456789".contains(&byte));
        assert!(names.iter().all(plain), "{names:?}");
    }

    #[test]
    fn the_first_breach_counts() {
        let try_one = |number: i32| if number == 2 { escaped("two") } else { Err(Errno::EPERM.into()) };
        assert_eq!(any([1, 2, 3], try_one), escaped("two"));
        assert_eq!(any([1, 3], try_one), Err(Denied::Errno(Errno::EPERM)));
        let absent = |number: i32| Err(if number == 2 { Errno::EACCES } else { Errno::ENOENT }.into());
        assert_eq!(any([1, 2, 3], absent), Err(Denied::Errno(Errno::EACCES)));
        assert_eq!(any([], try_one), denied("nothing there to try it on"));
    }
}
