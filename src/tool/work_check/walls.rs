//! Which walls of a machine stand here: the steps of a job's isolation, by what they are for.

use std::fmt::Write;

use super::stage::Stage;
use crate::image::payload::{Access, Payload};
use crate::payload::error::JobError;
use crate::payload::landlock;
use crate::payload::mutation::NAMES;
use crate::starting::SpawnError;

/// Some steps, what they are together, and what a machine of the grid does.
struct Wall {
    name: &'static str,
    steps: &'static [&'static str],
    there: &'static str,
}

/// Every step is in one of them.
const WALLS: [Wall; 10] = [
    Wall {
        name: "user",
        steps: &["fresh uid", "setresuid", "setresgid", "setgroups", "keeper user"],
        there: "one that never existed before, in no group",
    },
    Wall {
        name: "privileges",
        steps: &["ambient", "bounding set", "securebits", "capset", "no_new_privs", "nosuid"],
        there: "none, and no way to any",
    },
    Wall {
        name: "processes",
        steps: &["pid namespace", "ipc namespace", "own proc", "setsid", "pdeathsig"],
        there: "it sees and signals its own",
    },
    Wall {
        name: "files",
        steps: &[
            "own dev",
            "own pts",
            "own shm",
            "own tmp",
            "own var tmp",
            "own accounts",
            "own run",
            "read-only sys",
            "hide policy",
            "hide context",
            "nodev",
            "landlock",
        ],
        there: "the image, read-only; it writes in its own directories",
    },
    Wall { name: "system calls", steps: &["seccomp"], there: "a filter refuses those that no payload needs" },
    Wall {
        name: "memory",
        steps: &["memory.max", "memory.swap.max", "memory.oom.group"],
        there: "memory_mb for the whole job, its files included",
    },
    Wall { name: "process number", steps: &["pids.max"], there: "pids for the whole job" },
    Wall {
        name: "cgroup",
        steps: &["cgroup", "cgroup namespace", "own cgroup", "cpu.max"],
        there: "its own, the end of it is the end of all; cpu_percent",
    },
    Wall { name: "network", steps: &["net namespace"], there: "as image and site say, by the machine's firewall" },
    Wall {
        name: "what it inherits",
        steps: &[
            "scratch size",
            "scratch inodes",
            "environment",
            "signals",
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
            "chdir",
            "close_range",
        ],
        there: "nothing but what is meant for it",
    },
];

/// The step of a job's isolation that failed, where it is one that can be left out.
pub fn failed(error: &JobError) -> Option<(&'static str, String)> {
    match error {
        JobError::Cgroup(error) => {
            let text = error.to_string();
            let file = text.split(": ").next().and_then(|place| place.rsplit('/').next())?;
            known(file).map(|step| (step, why(&text, ": ")))
        }
        JobError::Spawn(SpawnError::Stage(stage)) => stage_of(&stage.stage, &stage.errno.to_string()),
        JobError::Scratch { step, .. } => known(step).map(|step| (step, error.to_string())),
        JobError::Stale { .. } => known("fresh uid").map(|step| (step, error.to_string())),
        _ => None,
    }
}

/// Of a report such as `setgroups`, `verify own proc: it shows processes of others` or `keeper: setresgid`.
fn stage_of(stage: &str, errno: &str) -> Option<(&'static str, String)> {
    let (in_keeper, inner) = stage.strip_prefix("keeper: ").map_or((false, stage), |inner| (true, inner));
    let inner = inner.strip_prefix("verify ").unwrap_or(inner);
    let step = match inner.split(':').next().unwrap_or_default() {
        "clone3" => "cgroup",
        step => step,
    };
    let why = inner.split_once(": ").map_or_else(|| errno.to_owned(), |(_, why)| why.to_owned());
    match known(step)? {
        // The keeper drops by the same list; those alone are not of its drop.
        step if in_keeper && !step.starts_with("cgroup") => Some(("keeper user", format!("{step}: {why}"))),
        step => Some((step, why)),
    }
}

fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().copied().find(|step| *step == name)
}

fn why(text: &str, separator: &str) -> String {
    text.split_once(separator).map_or(text, |(_, why)| why).to_owned()
}

/// `step: why`, and `step, step: why` of those that have one reason.
fn told_once<'a>(left_out: impl Iterator<Item = &'a (&'static str, String)>) -> Vec<String> {
    let mut told: Vec<(String, &str)> = Vec::new();
    for (step, why) in left_out {
        match told.iter_mut().find(|(_, same)| same == why) {
            Some((steps, _)) => *steps = format!("{steps}, {step}"),
            None => told.push(((*step).to_owned(), why)),
        }
    }
    told.into_iter().map(|(steps, why)| format!("{steps}: {why}")).collect()
}

/// What does not stand here, by the name of its wall.
pub struct Table<'a> {
    /// The place.
    pub stage: &'a Stage,
    /// What the payload may.
    pub policy: &'a Payload,
}

impl Table<'_> {
    /// Whether everything stands that a machine has.
    pub fn is_whole(&self) -> bool {
        WALLS.iter().all(|wall| self.missing(wall).is_empty())
    }

    /// What is missing in a wall, each as `step: why`.
    fn missing(&self, wall: &Wall) -> Vec<String> {
        let mut missing = told_once(self.left_out(wall));
        match wall.name {
            "files" if matches!(landlock::status(self.policy), landlock::Status::Absent) => {
                missing.push("landlock: not in this kernel".to_owned());
            }
            "files" if self.stage.own_root && !self.stage.root => {
                missing
                    .push("it can read what you can read on this computer; --image gives it another root".to_owned());
            }
            "network" if self.policy.network.access != Access::None => {
                missing.push(format!(
                    "no firewall here: access {} is all that you reach, mail and metadata servers included",
                    self.policy.network.access
                ));
            }
            "memory" if !missing.is_empty() => {
                missing.push(format!(
                    "instead: each process {} MiB of data, and the sum is looked at",
                    self.policy.memory_mb
                ));
            }
            "process number" if !missing.is_empty() => missing.push("instead: RLIMIT_NPROC".to_owned()),
            _ => {}
        }
        missing
    }

    fn left_out(&self, wall: &Wall) -> impl Iterator<Item = &(&'static str, String)> {
        self.stage.left_out.iter().filter(|(step, _)| wall.steps.contains(step) && self.is_due(step))
    }

    fn is_due(&self, step: &str) -> bool {
        step != "cpu.max" || self.policy.cpu_percent.is_some()
    }

    /// Lines of wall, here, on the grid; below each what is missing.
    pub fn text(&self) -> String {
        let mut text = format!("{:<17} {:<9} {}\n", "wall", "here", "on the grid");
        for wall in &WALLS {
            let missing = self.missing(wall);
            let due = wall.steps.iter().filter(|step| self.is_due(step)).count();
            let here = match self.left_out(wall).count() {
                _ if missing.is_empty() => "stands",
                gone if gone == due => "no",
                _ if wall.name == "network" => "no",
                _ => "in part",
            };
            let _ = writeln!(text, "{:<17} {here:<9} {}", wall.name, wall.there);
            missing.iter().for_each(|line| text += &format!("  - {line}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_in_one_wall() {
        let mut steps: Vec<&str> = WALLS.iter().flat_map(|wall| wall.steps).copied().collect();
        let mut names = NAMES.to_vec();
        steps.sort_unstable();
        names.sort_unstable();
        assert_eq!(steps, names);
    }

    #[test]
    fn a_report_names_its_step() {
        let cases = [
            ("setgroups", Some(("setgroups", "EPERM"))),
            ("verify own proc: it shows processes of others", Some(("own proc", "it shows processes of others"))),
            ("verify rlimits: RLIMIT_NOFILE: x is y", Some(("rlimits", "RLIMIT_NOFILE: x is y"))),
            ("keeper: setresgid", Some(("keeper user", "setresgid: EPERM"))),
            ("keeper: verify cgroup: it is / and not /x", Some(("cgroup", "it is / and not /x"))),
            ("landlock: /x", Some(("landlock", "/x"))),
            ("clone3", Some(("cgroup", "EPERM"))),
            ("exec /bin/work", None),
            ("open /bin/work", None),
            ("verify mount namespace: it is the agent's", None),
            ("mount propagation", None),
        ];
        for (stage, expected) in cases {
            let found = stage_of(stage, "EPERM");
            assert_eq!(found.as_ref().map(|(step, why)| (*step, why.as_str())), expected, "{stage}");
        }
    }
}
