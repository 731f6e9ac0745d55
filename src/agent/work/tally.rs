//! What was done so far, and what that means for the end.

use std::collections::HashSet;

use crate::payload::outcome::{End, Outcome};
use crate::protocol::Fate;
use crate::text::count;
use crate::verdict::Verdict;

/// A slot whose payloads fail this often in a row, with no success of any other meanwhile, does so for a reason that the
/// next token does not change; every further try would only add to the leases of somebody's token. Slots are counted one by
/// one: what hits all of them at once, a file system that hangs, is one misfortune and not as many as there are slots.
const MAX_FAILURES: u32 = 3;
/// Refused tokens that are remembered; a pool that holds more of them is asked as slowly as an empty one.
const MAX_REFUSED: usize = 10_000;

/// What was done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Tokens that were or are worked on, refused ones not counted; also the number of the next job.
    pub jobs: u32,
    completed: u32,
    /// By slot.
    failures_in_row: Vec<u32>,
    /// Tokens that were not worked on, as the site forbids it.
    refused: HashSet<String>,
    /// Jobs that were stopped for the same reason.
    banned: u32,
}

/// How a token was settled.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// Its work is done.
    Done,
    /// It was stopped by the site's or the host's word, which says nothing of this machine.
    Excused,
    /// It is not done; no next one is claimed at once.
    Failed,
    /// The same, and it was one too many.
    TooMany(Verdict),
}

impl Tally {
    /// Nothing, for so many slots.
    pub fn new(slots: usize) -> Self {
        Self { failures_in_row: vec![0; slots], ..Self::default() }
    }

    /// A token of this slot is settled.
    pub fn settled(&mut self, slot: usize, id: &str, fate: Fate, outcome: &Outcome) -> Settled {
        self.completed += u32::from(fate == Fate::Completed);
        if matches!(outcome.end, End::Banned(_)) {
            self.banned += 1;
            self.refused.insert(id.to_owned());
        }
        if matches!(outcome.end, End::Banned(_) | End::Stopped) {
            return Settled::Excused;
        }
        // A success that could not be stored counts as a failure too: the same token would come again at once.
        if fate == Fate::Completed && outcome.success() {
            self.failures_in_row.fill(0);
            return Settled::Done;
        }
        let Some(failures) = self.failures_in_row.get_mut(slot) else { return Settled::Failed };
        *failures += 1;
        if *failures < MAX_FAILURES {
            return Settled::Failed;
        }
        let end = &outcome.end;
        Settled::TooMany(Verdict::machine_fault(format!("{MAX_FAILURES} jobs in a row failed, the last: {end}")))
    }

    /// A token was not worked on, as the site forbids it. Whether that is the first time.
    pub fn refuse(&mut self, id: &str) -> bool {
        self.refused.len() < MAX_REFUSED && self.refused.insert(id.to_owned())
    }

    /// There is no more work.
    pub fn verdict(&self) -> Verdict {
        match (self.jobs - self.banned, self.completed) {
            (0, _) if !self.refused.is_empty() => {
                let tokens = count(self.refused.len() as u64, "token");
                Verdict::refused(format!("nothing to do but {tokens} whose work is refused here"))
            }
            (0, _) => Verdict::no_work("nothing to do"),
            (_, 0) => Verdict::machine_fault(self.in_words()),
            _ => Verdict::done(self.in_words()),
        }
    }

    /// `2 of 3 tokens completed, 1 refused`.
    pub fn in_words(&self) -> String {
        let refused = match self.refused.len() {
            0 => String::new(),
            count => format!(", {count} refused"),
        };
        match (self.jobs - self.banned, self.completed) {
            (0, _) => format!("no token worked on{refused}"),
            (jobs, 0) => format!("none of {jobs} tokens completed{refused}"),
            (jobs, completed) if jobs == completed => format!("{completed} tokens completed{refused}"),
            (jobs, completed) => format!("{completed} of {jobs} tokens completed{refused}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::job::nothing_of;
    use crate::sys::process::Exit;

    fn exit(code: i32) -> Outcome {
        nothing_of(End::Exited(Exit::Code(code)))
    }

    #[test]
    fn a_slot_that_fails_thrice_in_a_row_ends_the_machine() {
        let mut tally = Tally::new(2);
        let fail =
            |tally: &mut Tally, slot| matches!(tally.settled(slot, "1", Fate::Released, &exit(3)), Settled::TooMany(_));
        assert_eq!([0, 1, 0, 1].map(|slot| fail(&mut tally, slot)), [false; 4]);
        // The other one shows that the machine can work.
        assert_eq!(tally.settled(1, "2", Fate::Completed, &exit(0)), Settled::Done);
        assert_eq!([0, 0, 1, 1].map(|slot| fail(&mut tally, slot)), [false; 4]);
        let verdict = Verdict::machine_fault("3 jobs in a row failed, the last: exit 3");
        assert_eq!(tally.settled(0, "1", Fate::Failed, &exit(3)), Settled::TooMany(verdict));
    }

    #[test]
    fn what_could_not_be_stored_has_failed_and_what_was_stopped_has_not() {
        let mut tally = Tally::new(1);
        assert_eq!(tally.settled(0, "1", Fate::Stranded, &exit(0)), Settled::Failed);
        let banned = nothing_of(End::Banned("no".to_owned()));
        for _ in 0..5 {
            assert_eq!(tally.settled(0, "1", Fate::Released, &banned), Settled::Excused);
            assert_eq!(tally.settled(0, "1", Fate::Released, &nothing_of(End::Stopped)), Settled::Excused);
        }
    }

    #[test]
    fn the_end_in_words() {
        let verdict = |jobs, completed, banned, refused: &[&str]| {
            let refused = refused.iter().map(|id| (*id).to_owned()).collect();
            Tally { jobs, completed, banned, refused, ..Tally::new(1) }.verdict().to_string()
        };
        assert_eq!(verdict(0, 0, 0, &[]), "300 nothing to do");
        assert_eq!(verdict(0, 0, 0, &["1"]), "400 nothing to do but 1 token whose work is refused here");
        assert_eq!(verdict(1, 0, 1, &["1"]), "400 nothing to do but 1 token whose work is refused here");
        assert_eq!(verdict(2, 0, 0, &[]), "700 none of 2 tokens completed");
        assert_eq!(verdict(2, 1, 0, &["7"]), "200 1 of 2 tokens completed, 1 refused");
        assert_eq!(verdict(3, 3, 0, &[]), "200 3 tokens completed");
    }
}
