//! What came of it: the end as a machine would report it, what it used, and what would become of the token.

use std::fmt::Write;
use std::path::PathBuf;

use crate::image::payload::Payload;
use crate::payload::choice::UnknownWord;
use crate::payload::given::Outputs;
use crate::payload::outcome::{End, Outcome, Usage};
use crate::protocol::channel::MAX_BODY;
use crate::status::words;
use crate::sys::process::Exit;
use crate::text::{count, printable};

/// A job that is over.
pub struct Ended {
    /// How it went.
    pub outcome: Outcome,
    /// What counts as its result; none unless it succeeded.
    pub result: Option<Vec<u8>>,
    /// Where that was put.
    pub kept: Option<PathBuf>,
    /// What the site would get, and what it would not, with the reason.
    pub outputs: Outputs,
    /// What the image allows.
    pub limits: Limits,
}

/// Of what is told beside what was used; units as in [`Payload`].
pub struct Limits {
    wall_secs: u32,
    memory_mb: u32,
    scratch_mb: u32,
    /// Whether the token would be tried again.
    again: bool,
}

impl Ended {
    /// Without a result.
    pub fn of(policy: &Payload, outcome: Outcome) -> Self {
        let Payload { wall_secs, memory_mb, scratch_mb, .. } = *policy;
        let again = policy.tries_again(&outcome.end);
        let limits = Limits { wall_secs, memory_mb, scratch_mb, again };
        Self { outcome, result: None, kept: None, outputs: Outputs::default(), limits }
    }

    /// A token that names no program: nothing was started.
    pub fn unknown_word(policy: &Payload, unknown: &UnknownWord) -> Self {
        let end = End::UnknownWord(unknown.to_string());
        Self::of(policy, Outcome { end, wall_millis: 0, usage: Usage::default(), left_behind: 0, tail: Vec::new() })
    }

    /// Whether the token would be completed.
    pub fn success(&self) -> bool {
        self.outcome.success()
    }

    /// Some lines.
    pub fn text(&self) -> String {
        let Outcome { end, wall_millis, usage, left_behind, .. } = &self.outcome;
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<8} {value}");
        };
        let coded = end.coded();
        row("end", format!("{} ({coded} {})", printable(&end.to_string()), coded.name));
        if *wall_millis > 0 {
            let Limits { wall_secs, memory_mb, scratch_mb, .. } = self.limits;
            let of = |used: Option<u64>, most: String| match used {
                Some(used) => format!("{} of at most {most}", words::bytes(used)),
                None => format!("not known, of at most {most}"),
            };
            row("wall", format!("{} of at most {wall_secs} s", words::duration(*wall_millis)));
            row("cpu", usage.cpu_millis.map_or_else(|| "not known".to_owned(), words::duration));
            row("memory", of(usage.memory_kib.map(|kib| kib * 1024), format!("{memory_mb} MiB")));
            row("scratch", of(usage.scratch_bytes, format!("{scratch_mb} MiB")));
        }
        if *left_behind > 0 {
            row("left", format!("{} that it left behind, killed", count(*left_behind as u64, "process")));
        }
        if let Some(result) = &self.result {
            let place = self.kept.as_ref().map(|path| format!(" -> {}", printable(&path.display().to_string())));
            row("result", words::bytes(result.len() as u64) + &place.unwrap_or_default());
        }
        let Outputs { files, left_out } = &self.outputs;
        let sized = |(name, content): &(String, Vec<u8>)| format!("{name} ({})", words::bytes(content.len() as u64));
        if !files.is_empty() {
            row("outputs", files.iter().map(sized).collect::<Vec<_>>().join(", ") + ", for the site");
        }
        left_out.iter().for_each(|line| row("outputs", format!("{}; it is left out", printable(line))));
        row("token", self.fate().to_owned());
        self.hints().into_iter().for_each(|hint| row("hint", hint));
        text
    }

    /// Of the token, on the grid.
    fn fate(&self) -> &'static str {
        match &self.outcome.end {
            end if self.success() && matches!(end, End::Exited(_)) => {
                "completed: the result is stored as POOL.ID, then the token is deleted"
            }
            _ if !self.limits.again => "failed: moved to POOL.failed at once, as no other try would end otherwise",
            End::Stopped => "released: a machine that ends gives it back",
            end if !end.is_failure() => "released: it is no fault of the token; three in a row end the machine",
            _ => "released: free for the next try; after work.topos.lease_limit of them it is moved to POOL.failed",
        }
    }

    /// What people miss first.
    fn hints(&self) -> Vec<String> {
        let Outcome { end, tail, usage, .. } = &self.outcome;
        let mut hints = Vec::new();
        let said = |words: &[&str]| tail.iter().any(|line| words.iter().any(|word| line.contains(word)));
        match end {
            End::NotStarted { why, .. } if why.contains("ENOENT") => hints.push(
                "the program, or the interpreter in its first line, is not in the payload's root (--image says which); its \
                 /tmp, /var/tmp and /dev/shm are its own, and empty"
                    .to_owned(),
            ),
            End::NotStarted { why, .. } if why.contains("EACCES") => {
                hints.push("everybody must be able to execute the program, and to enter its directories".to_owned());
            }
            End::NotStarted { why, .. } if why.contains("ENOEXEC") => {
                hints.push("a script needs #!INTERPRETER in its first line: no shell reads it otherwise".to_owned());
            }
            End::BadResult { .. } => {
                hints.push(format!("$RESULT_FILE is a regular file of at most {} MiB; more goes elsewhere, and its place into the result", MAX_BODY >> 20));
            }
            End::OutOfMemory => hints.push("files in $HOME, $TMPDIR and /dev/shm are memory, too".to_owned()),
            End::Exited(Exit::Code(127)) => {
                hints.push(
                    "127 is a shell's word for a command that is not there: PATH is that of the image".to_owned(),
                );
            }
            End::Exited(Exit::Signal(nix::libc::SIGSYS)) => {
                hints.push("a 32-bit program: the filter of system calls lets none run".to_owned());
            }
            End::Exited(exit) if exit.success() && self.result.as_ref().is_some_and(Vec::is_empty) => {
                hints.push("the result is empty: nothing was written to $RESULT_FILE".to_owned());
            }
            _ => {}
        }
        if said(&["Read-only file system", "Permission denied", "EROFS", "EACCES"]) {
            hints.push(
                "it may write in $HOME, $TMPDIR, /tmp and /dev/shm, and in the image's payload.writable".to_owned(),
            );
        }
        if said(&["No space left on device"]) {
            hints.push("its directories hold scratch_mb together".to_owned());
        }
        if said(&["Network is unreachable", "Name or service not known", "Temporary failure in name resolution"]) {
            hints.push("payload.network says whom it may talk to".to_owned());
        }
        if usage.pids_refused.is_some_and(|refused| refused > 0) || said(&["Resource temporarily unavailable"]) {
            hints.push("pids limits its processes and threads together".to_owned());
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::choice;

    fn ended(end: End, tail: &[&str]) -> Ended {
        let policy = serde_json::from_str(r#"{"command": ["/w"]}"#).unwrap();
        let tail = tail.iter().map(|&line| line.to_owned()).collect();
        Ended::of(&policy, Outcome { end, wall_millis: 1500, usage: Usage::default(), left_behind: 0, tail })
    }

    #[test]
    fn the_fate_of_the_token_is_that_of_the_grid() {
        let not_started = End::NotStarted { why: "open /w: ENOENT".to_owned(), errno: Some(2) };
        let cases = [
            (End::Exited(Exit::Code(0)), "completed"),
            (End::Exited(Exit::Code(3)), "released"),
            (End::Exited(Exit::Signal(9)), "released"),
            (End::TooLong(5), "released"),
            (End::Stopped, "released: a machine"),
            (not_started, "released"),
            (End::UnknownWord("x".to_owned()), "failed"),
        ];
        for (end, fate) in cases {
            let ended = ended(end, &[]);
            assert!(ended.fate().starts_with(fate), "{}", ended.text());
        }
    }

    #[test]
    fn the_end_has_its_number_and_a_hint() {
        let text = ended(End::Exited(Exit::Code(3)), &["sh: 1: cannot create /x: Read-only file system"]).text();
        assert!(text.starts_with("end      exit 3 (reason 1/3 exited)\nwall     1.5 s of at most 86400 s\n"), "{text}");
        assert!(text.contains("\nhint     it may write in $HOME"), "{text}");
        assert!(text.contains("memory   not known, of at most 256 MiB"), "{text}");
        let plain = ended(End::Exited(Exit::Code(1)), &["boom"]).text();
        assert!(!plain.contains("hint"), "{plain}");
    }

    #[test]
    fn an_unknown_word_is_told_with_those_that_are_known() {
        let policy: Payload =
            serde_json::from_str(r#"{"command": ["/w"], "commands": {"sim": ["/bin/sim"]}}"#).unwrap();
        let unknown = choice::of(&policy, Some(b"rm -rf /")).unwrap_err();
        let text = Ended::unknown_word(&policy, &unknown).text();
        assert!(text.contains("\"rm\", is none of payload.commands: sim (reason 12 unknown-word)"), "{text}");
    }
}
