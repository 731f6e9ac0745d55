//! Things that are stored once, though the logger may be killed between a record and the word that it is there.
//!
//! Before a thing is stored the ledger says which one it is and what number its record would get, and after that, that it
//! is stored. Numbers are given out in order, so whoever finds the first word without the second looks whether there is a
//! record of that number.

use super::ledger::{Count, Ledger};

/// One source of things, which have numbers that grow.
#[derive(Clone, Copy, Debug)]
pub struct Once {
    stored: Count,
    next: Count,
    record: Count,
}

/// The agent's records.
pub const AGENT: Once = Once { stored: Count::Agent, next: Count::AgentNext, record: Count::AgentAs };
/// Datagrams.
pub const MAIL: Once = Once { stored: Count::Mail, next: Count::MailNext, record: Count::MailAs };

impl Once {
    /// Before a thing is stored, as the next record or not at all.
    pub fn begin(self, ledger: &Ledger, thing: u64) {
        ledger.set(self.record, ledger.get(Count::Last) + 1);
        ledger.set(self.next, thing);
    }

    /// After that, be it stored or refused.
    pub fn end(self, ledger: &Ledger, thing: u64) {
        // Some things of the agent's have no number.
        ledger.set(self.stored, thing.max(ledger.get(self.stored)));
    }

    /// The last thing that is stored.
    pub fn stored(self, ledger: &Ledger) -> u64 {
        ledger.get(self.stored)
    }

    /// Says what the last logger did not live to say, as long as [`Count::Last`] is the number of the last record that it
    /// made. Returns the thing, if there is one.
    pub fn recover(self, ledger: &Ledger) -> Option<u64> {
        let (next, stored) = (ledger.get(self.next), ledger.get(self.stored));
        let is_stored = next > stored && ledger.get(Count::Last) >= ledger.get(self.record);
        // Either way both are the same from now on: the number is another record's, and would say that this is stored if
        // we are killed before we come to it.
        ledger.set(if is_stored { self.stored } else { self.next }, if is_stored { next } else { stored });
        is_stored.then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whenever_it_is_killed_the_next_one_knows() {
        let ledger = Ledger::open(Ledger::memory().unwrap()).unwrap();
        let made = || ledger.set(Count::Last, ledger.get(Count::Last) + 1);
        assert_eq!(MAIL.recover(&ledger), None);
        // Killed before, and after its record.
        MAIL.begin(&ledger, 1);
        assert_eq!(MAIL.recover(&ledger), None);
        MAIL.begin(&ledger, 1);
        made();
        assert_eq!((MAIL.recover(&ledger), MAIL.recover(&ledger)), (Some(1), None));
        // Others' records say nothing of one that was refused, or of the next.
        MAIL.begin(&ledger, 2);
        MAIL.end(&ledger, 2);
        made();
        assert_eq!((MAIL.recover(&ledger), MAIL.stored(&ledger)), (None, 2));
        MAIL.begin(&ledger, 3);
        assert_eq!((MAIL.recover(&ledger), AGENT.recover(&ledger)), (None, None));
        // Nor do those of a next one that is killed too, before it comes to this thing.
        made();
        assert_eq!((MAIL.recover(&ledger), MAIL.stored(&ledger)), (None, 2));
    }
}
