//! A payload's isolation with steps left out: one, to see that somebody notices, or those that a builder's own machine
//! does not give him. ctxinit itself has nothing of it, as no release of it has one of the two cargo features.
//!
//! With the feature `tool` the program's own code says which ([`leave_out`]), and no token. With the feature `mutation`
//! words of a token's text say which: `without=STEP` leaves out a step and its proof, so that an attempt to get out must
//! then succeed; `skip=STEP` leaves out the step alone, and the proof must stop the job. Blanks in a name are written
//! as `-`.

/// Every step that can be left out, in the order in which they are taken: the agent's, those of clone3(2), the keeper's
/// view, and the drop.
///
/// The mount namespace is not among them: without it the view would become the machine's own.
pub const NAMES: &[&str] = &[
    "fresh uid",
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
    "scratch size",
    "scratch inodes",
    "environment",
    "cgroup",
    "pid namespace",
    "ipc namespace",
    "cgroup namespace",
    "net namespace",
    "nosuid",
    "nodev",
    "own proc",
    "own dev",
    "own pts",
    "own shm",
    "own tmp",
    "own var tmp",
    "own accounts",
    "own cgroup",
    "read-only sys",
    "hide policy",
    "hide context",
    "own run",
    "keeper user",
    "signals",
    "setsid",
    "streams",
    "output mode",
    "keyring",
    "umask",
    "rlimits",
    "nice",
    "ioprio",
    "affinity",
    "timer slack",
    "oom_score_adj",
    "ambient",
    "bounding set",
    "securebits",
    "setgroups",
    "setresgid",
    "setresuid",
    "capset",
    "pdeathsig",
    "chdir",
    "no_new_privs",
    "close_range",
    "landlock",
    "seccomp",
];

#[cfg(feature = "mutation")]
mod chosen {
    use std::sync::RwLock;

    use super::NAMES;

    /// What the token of the job that is being started leaves out.
    #[derive(Default)]
    struct Chosen {
        without: Vec<String>,
        skip: Vec<String>,
    }

    static CHOSEN: RwLock<Chosen> = RwLock::new(Chosen { without: Vec::new(), skip: Vec::new() });

    /// Takes the words of a token; what the one before left out is in place again.
    pub fn choose(token: &[u8]) {
        let text = String::from_utf8_lossy(token);
        let named = |key: &str| -> Vec<String> {
            let steps = text.split_whitespace().filter_map(|word| word.strip_prefix(key));
            let known = |step: &str| NAMES.iter().find(|name| name.replace(' ', "-") == step);
            steps.filter_map(known).map(|name| (*name).to_owned()).collect()
        };
        let chosen = Chosen { without: named("without="), skip: named("skip=") };
        if let Ok(mut current) = CHOSEN.write() {
            *current = chosen;
        }
    }

    /// Whether a step and its proof are left out.
    pub fn removed(step: &str) -> bool {
        super::is_left_out(step) || CHOSEN.read().is_ok_and(|chosen| chosen.without.iter().any(|name| name == step))
    }

    /// Whether a step is left out, and its proof is not.
    pub fn skipped(step: &str) -> bool {
        CHOSEN.read().is_ok_and(|chosen| chosen.skip.iter().any(|name| name == step))
    }
}

#[cfg(not(feature = "mutation"))]
mod chosen {
    /// Takes no words.
    pub const fn choose(_: &[u8]) {}

    /// Whether a step and its proof are left out.
    #[cfg(feature = "tool")]
    pub fn removed(step: &str) -> bool {
        super::is_left_out(step)
    }

    /// Never.
    #[cfg(not(feature = "tool"))]
    pub const fn removed(_: &str) -> bool {
        false
    }

    /// Never.
    pub const fn skipped(_: &str) -> bool {
        false
    }
}

pub use chosen::{choose, removed, skipped};

#[cfg(any(feature = "tool", feature = "mutation"))]
static LEFT_OUT: std::sync::RwLock<Vec<&'static str>> = std::sync::RwLock::new(Vec::new());

/// Leaves out these steps and their proofs in every job from now on, and no others. For `ctxtool work check`, which
/// tells the user of each.
#[cfg(feature = "tool")]
pub fn leave_out(steps: Vec<&'static str>) {
    if let Ok(mut left_out) = LEFT_OUT.write() {
        *left_out = steps;
    }
}

#[cfg(any(feature = "tool", feature = "mutation"))]
fn is_left_out(step: &str) -> bool {
    LEFT_OUT.read().is_ok_and(|steps| steps.contains(&step))
}

/// Whether a step is taken.
pub fn taken(step: &str) -> bool {
    !removed(step) && !skipped(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_a_token() {
        for (at, name) in NAMES.iter().enumerate() {
            assert!(!NAMES[..at].contains(name), "{name} is there twice");
            let plain = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b' ' | b'.' | b'_' | b'-');
            assert!(name.bytes().all(plain), "{name}");
        }
    }

    #[test]
    fn only_the_feature_leaves_anything_out() {
        choose(b"job without=own-proc skip=setgroups without=nonsense");
        let built_in = cfg!(feature = "mutation");
        assert_eq!([removed("own proc"), taken("own proc")], [built_in, !built_in]);
        assert_eq!([skipped("setgroups"), removed("setgroups"), taken("setgroups")], [built_in, false, !built_in]);
        assert!(taken("seccomp"));
        choose(b"job");
        assert!(taken("own proc") && taken("setgroups"));
    }
}
