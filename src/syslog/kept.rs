//! What is kept of all that is said: each record under its number, whatever happens to the logger meanwhile.

use std::fmt::Display;

use super::clock::Clock;
use super::lasting::Lasting;
use super::ledger::{Count, Ledger};
use super::once;
use super::parse::Message;
use super::record::{self, Audit, Record, Writer};
use super::store::superblock::{Names, State};
use super::store::{Dropped, Drops, Store};
use super::sync::Sync;

const WARNING: u8 = 4;
const SYSLOG: u8 = 5;

/// What collecting writes to; apart from the sources, whose buffer the records borrow.
pub struct Log {
    pub store: Store,
    pub ledger: Ledger,
    pub writer: Writer,
    pub clock: Clock,
    /// Of the agent's records, one that the last logger had stored and not yet written down.
    pub stored: Option<u64>,
}

impl Log {
    /// Goes on where the last one was killed, and says so.
    pub fn new(store: Store, ledger: Ledger, writer: Writer) -> Self {
        let mut log = Self { store, ledger, writer, clock: Clock::new(), stored: None };
        let starts = log.ledger.get(Count::Starts);
        if starts == 0 {
            // Of an earlier life of the machine.
            log.ledger.set(Count::Before, log.store.last());
            log.ledger.set(Count::Last, log.store.last());
            log.ledger.set(Count::Earlier, log.store.waiting());
        }
        // Only now: one that is killed before has not begun, and the next one takes the numbers down.
        log.ledger.set(Count::Starts, starts + 1);
        log.begin_use();
        if starts > 0 {
            log.recover();
            // Before anything is stored, which may drop more.
            log.announce_unannounced();
            let (waiting, last) = (log.store.waiting(), log.ledger.get(Count::Last) - log.ledger.get(Count::Before));
            log.push_own(&format!(
                "the logger was started again after number {last}: {waiting} records may come twice"
            ));
        }
        log
    }

    /// The next in the count of uses of the memory.
    pub fn begin_use(&mut self) -> u64 {
        self.ledger.add(Count::Uses, 1);
        let uses = self.ledger.get(Count::Uses);
        self.store.begin_use(uses, self.ledger.get(Count::Before));
        uses
    }

    pub fn start_sync(&mut self, lasting: &Lasting, names: &Names) -> Option<Sync> {
        let state = State { uses: self.ledger.get(Count::Uses), names: names.clone() };
        match lasting.sync(state)? {
            Ok(sync) => {
                if self.ledger.get(Count::Starts) > 1 {
                    self.store.change_all();
                }
                Some(sync)
            }
            Err(error) => {
                self.push_own(&format!("the spool is not written: {error}: records wait in memory alone"));
                None
            }
        }
    }

    /// The last logger may have been killed between a record and the numbers that go with it.
    fn recover(&mut self) {
        let Self { store, ledger, .. } = self;
        let last = ledger.get(Count::Last).max(store.last());
        ledger.set(Count::Last, last);
        if let Some(delivered) = ledger.get(Count::Settling).checked_sub(store.waiting()) {
            ledger.set(Count::Delivered, delivered.max(ledger.get(Count::Delivered)));
        }
        ledger.set(Count::Settling, 0);
        if last >= ledger.get(Count::DroppedAs) {
            ledger.set(Count::Dropped, ledger.get(Count::Dropped).max(ledger.get(Count::DroppedNext)));
        }
        ledger.set(Count::DroppedNext, 0);
        self.stored = once::AGENT.recover(ledger);
        once::MAIL.recover(ledger);
    }

    /// What the last logger had dropped and not yet announced when it was killed: all that was made and is neither here nor
    /// accounted for.
    fn announce_unannounced(&mut self) {
        let count = |of| self.ledger.get(of);
        let made = count(Count::Last) - count(Count::Before) + count(Count::Earlier);
        let known = count(Count::Delivered) + count(Count::Dropped) + self.store.waiting();
        let (missing, last) = (made.saturating_sub(known), count(Count::Last) - count(Count::Before));
        if missing > 0 {
            let text = format!("dropped {missing} records before number {last}: the queue was full");
            self.told(missing, |log| log.push_gap(missing, 1, last, &text));
        }
    }

    /// Says what was dropped, in numbers that a site sees.
    pub fn announce_drops(&mut self) {
        let before = self.ledger.get(Count::Before);
        let Dropped { earlier, own } = self.store.take_drops();
        if earlier > 0 {
            let text = format!("dropped {earlier} records of earlier boots: the spool was full");
            let data: [(&str, &dyn Display); 2] = [("source", &"spool"), ("count", &earlier)];
            self.told(earlier, |log| log.push_audit("log-gap", &data, &text));
        }
        if let Some(Drops { count, first, last }) = own {
            let (first, last) = (first - before, last - before);
            let text = format!("dropped {count} records, numbers {first} to {last}: the queue was full");
            self.told(count, |log| log.push_gap(count, first, last, &text));
        }
    }

    /// Runs what announces so many dropped records, by one record; they count once that is there.
    pub fn told(&mut self, count: u64, announce: impl FnOnce(&mut Self)) {
        let dropped = self.ledger.get(Count::Dropped) + count;
        self.ledger.set(Count::DroppedAs, self.ledger.get(Count::Last) + 1);
        self.ledger.set(Count::DroppedNext, dropped);
        announce(self);
        self.ledger.set(Count::Dropped, dropped);
    }

    /// Runs what hands records over, and returns how many are done with. It stores and drops none, so that whoever finds
    /// it interrupted knows them by what waits.
    pub fn deliver(&mut self, step: impl FnOnce(&mut Store) -> u64) {
        let Self { store, ledger, .. } = self;
        ledger.set(Count::Settling, ledger.get(Count::Delivered) + store.waiting());
        let done = step(store);
        ledger.add(Count::Delivered, done);
        ledger.set(Count::Settling, 0);
    }

    /// Runs what stores one of the agent's.
    pub fn of_agent(&mut self, number: u64, store: impl FnOnce(&mut Self)) {
        if self.stored.take_if(|stored| *stored == number).is_some() {
            return;
        }
        once::AGENT.begin(&self.ledger, number);
        store(self);
        once::AGENT.end(&self.ledger, number);
    }

    /// Runs what stores a datagram, unless the last logger has done so.
    pub fn of_mail(&mut self, number: u64, store: impl FnOnce(&mut Self)) {
        if number > once::MAIL.stored(&self.ledger) {
            once::MAIL.begin(&self.ledger, number);
            store(self);
            once::MAIL.end(&self.ledger, number);
        }
    }

    pub fn push(&mut self, record: &Record<'_>) {
        let number = self.ledger.get(Count::Last) + 1;
        let entry = self.writer.write(record, number - self.ledger.get(Count::Before), self.clock.is_synced());
        self.store.push(number, &entry);
        self.ledger.set(Count::Last, number);
    }

    pub fn push_admitted(&mut self, record: Option<Record<'_>>) {
        record.iter().for_each(|record| self.push(record));
    }

    /// What a site goes by when it asks whether something is missing.
    pub fn push_audit(&mut self, id: &str, data: &[(&str, &dyn Display)], text: &str) {
        let data: Vec<_> = data.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
        let message =
            Message { facility: record::AUDIT, severity: WARNING, tag: b"ctxinit", pid: None, text: text.as_bytes() };
        let audit = Some(Audit { id, data: &data });
        self.push(&Record { audit, ..Record::trusted(message, self.clock.now()) });
    }

    /// Numbers that nobody will see.
    pub fn push_gap(&mut self, count: u64, first: u64, last: u64, text: &str) {
        let data: [(&str, &dyn Display); 4] =
            [("source", &"queue"), ("count", &count), ("first", &first), ("last", &last)];
        self.push_audit("log-gap", &data, text);
    }

    pub fn push_own(&mut self, text: &str) {
        let message =
            Message { facility: SYSLOG, severity: WARNING, tag: b"ctxinit", pid: None, text: text.as_bytes() };
        self.push(&Record::trusted(message, self.clock.now()));
    }
}
