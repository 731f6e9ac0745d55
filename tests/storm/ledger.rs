//! The judge: it hears of everything that the pool does and the machines run, and writes down what must never be.
//!
//! 1. No result is lost: a token is deleted only after its result is stored.
//! 2. A token is deleted or put aside only by a machine that stored its own result (or found one), and has proved its lock since:
//!    the pool has answered a renewal after that, and that lock has not run out when the deletion arrives.
//! 3. A payload runs only while its lock lives: no token is run by two holders of a live lock at a time. It ends
//!    before its lock is released, and within [`SLACK`] of a lock's end that was not its own doing.
//! 4. A lock whose grant was never heard of is looked for before the same machine asks again.
//! 5. What a worker says of a token is so (see `machine.rs`).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::call::Life;
use crate::pool::Lock;

/// Life of a lock in a storm.
pub const LOCK: Duration = Duration::from_secs(2);
/// What a loaded machine may add to any time here.
pub const SLACK: Duration = Duration::from_secs(1);

/// How a lock ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By its holder, with the token or without.
    Released,
    /// By somebody else.
    Broken,
}

struct Hold {
    uuid: String,
    granted: Instant,
    until: Instant,
    end: Option<End>,
    /// When it was asked for.
    arrived: Instant,
}

struct Run {
    began: Instant,
}

#[derive(Default)]
pub struct Ledger {
    pub offences: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub added: u64,
    holds: HashMap<(Life, u64), Vec<Hold>>,
    runs: HashMap<(Life, u64), Run>,
    /// The first stored result of a lease, and the last renewal that was answered.
    stored: HashMap<(Life, u64), Instant>,
    proved: HashMap<(Life, u64), Instant>,
    /// When its payload ended last.
    ran: HashMap<(Life, u64), Instant>,
    /// Lives that have called.
    pub seen: HashSet<Life>,
    /// Lives that were cut off: nothing that they do counts.
    pub dead: HashSet<Life>,
    /// Tokens that are no more: by a machine that completed them, or by a person.
    pub completed: HashMap<u64, Life>,
    pub cancelled: HashSet<u64>,
    /// Lives that were told since their last claim that there is nothing, or nothing any more.
    empty: HashSet<Life>,
    /// The last calls of each, with what went wrong.
    calls: HashMap<Life, VecDeque<String>>,
    /// When they looked for lost locks last.
    looked: HashMap<Life, Instant>,
    /// The last crash of the server: calls before it may never have arrived.
    pub crashed: Option<Instant>,
}

impl Ledger {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn offence(&mut self, what: String) {
        self.offences.push(what);
    }

    /// An offence of one machine, and what it did before.
    fn accuse(&mut self, life: Life, what: &str) {
        let calls: Vec<_> = self.calls.get(&life).into_iter().flatten().map(String::as_str).collect();
        self.offences.push(format!("{life:?} {what}; its last calls: {}", calls.join(", ")));
    }

    /// A call came; `fault` is what will go wrong with it.
    pub fn called(&mut self, life: Life, kind: &str, fault: Option<&str>, at: Duration) {
        self.count("calls");
        self.seen.insert(life);
        let calls = self.calls.entry(life).or_default();
        let fault = fault.map(|fault| format!(" ({fault})")).unwrap_or_default();
        calls.push_back(format!("{kind}{fault} at {} ms", at.as_millis()));
        if calls.len() > 12 {
            calls.pop_front();
        }
    }

    pub fn granted(&mut self, life: Life, id: u64, uuid: &str, arrived: Instant, until: Instant) {
        let now = Instant::now();
        self.count("leases");
        let others = self.runs.keys().filter(|(other, token)| *token == id && *other != life).count();
        if others > 0 {
            // No offence by itself: how long it goes on is judged when the other run ends.
            self.count("tokens given out again while a late payload ran");
        }
        self.stored.remove(&(life, id));
        let hold = Hold { uuid: uuid.to_owned(), granted: now, until, end: None, arrived };
        self.holds.entry((life, id)).or_default().push(hold);
    }

    /// The machine looks at the locks, or tries to release one.
    pub fn looks(&mut self, life: Life) {
        self.looked.insert(life, Instant::now());
    }

    /// The worker owns up to a lock that it could not release: on a machine that is too busy, not even the call came.
    pub fn told(&mut self, life: Life, note: &str) {
        if note.contains("stays locked") {
            self.looks(life);
        }
    }

    /// A machine has asked for a token at `arrived`; these locks live.
    pub fn asked<'a>(&mut self, life: Life, locks: impl Iterator<Item = &'a Lock>, arrived: Instant) {
        for lock in locks.filter(|lock| lock.life == life) {
            let mut holds = self.holds.iter().filter(|((of, _), _)| *of == life).flat_map(|(_, holds)| holds);
            let hold = holds.find(|hold| hold.uuid == lock.uuid && hold.granted < arrived);
            let since = |what: Option<Instant>, hold: &Hold| what.is_some_and(|at| at > hold.arrived);
            let forgotten = |hold: &&Hold| !since(self.looked.get(&life).copied(), hold) && !since(self.crashed, hold);
            if let Some(hold) = hold.filter(forgotten) {
                let (uuid, ago) = (&hold.uuid, hold.granted.elapsed());
                self.accuse(life, &format!("asks for more and has forgotten lock {uuid} of {ago:?} ago"));
            }
        }
    }

    pub fn empty(&mut self, life: Life) {
        self.empty.insert(life);
    }

    pub fn claims(&mut self, life: Life) {
        self.empty.remove(&life);
    }

    pub fn was_empty(&self, life: Life) -> bool {
        self.empty.contains(&life)
    }

    pub fn renewed(&mut self, life: Life, id: u64, now: Instant, until: Instant, heard: bool) {
        self.count("renewals");
        if let Some(hold) = self.hold(life, id) {
            hold.until = until;
        }
        if heard {
            self.proved.insert((life, id), now);
        }
    }

    /// A live lock ends.
    pub fn unlocked(&mut self, life: Life, id: u64, now: Instant, end: End) {
        if end == End::Released && self.runs.contains_key(&(life, id)) {
            self.accuse(life, &format!("gave up its lock on token {id} while the payload ran"));
        }
        if let Some(hold) = self.hold(life, id) {
            (hold.until, hold.end) = (now, Some(end));
        }
    }

    pub fn stored(&mut self, life: Life, name: &str, body: &[u8], arrived: Instant) {
        self.count("results stored");
        let Some(id) = name.strip_prefix("mc.").and_then(|id| id.parse().ok()) else {
            return self.accuse(life, &format!("stored {name:?}"));
        };
        if body != product(life, id) {
            self.accuse(life, &format!("stored {:?} as {name}", String::from_utf8_lossy(body)));
        }
        // The first of a lease: a call that was given up may arrive behind all others.
        self.stored.entry((life, id)).or_insert(arrived);
    }

    pub fn deleted(&mut self, life: Life, id: u64, arrived: Instant, stored: bool) {
        self.count("tokens completed");
        self.completed.insert(id, life);
        if !stored {
            self.accuse(life, &format!("deleted token {id} and no result of it is stored"));
        }
        let since = self.stored.get(&(life, id)).copied();
        self.proof(life, id, since, arrived, "deleted");
    }

    pub fn failed(&mut self, life: Life, id: u64, arrived: Instant) {
        self.count("tokens put aside");
        let since = self.ran.get(&(life, id)).copied();
        self.proof(life, id, since, arrived, "put aside");
    }

    /// Whoever takes a token off the list has proved its lock just before.
    fn proof(&mut self, life: Life, id: u64, since: Option<Instant>, arrived: Instant, did: &str) {
        match self.proved.get(&(life, id)).copied() {
            None => self.accuse(life, &format!("{did} token {id} and has never proved its lock")),
            Some(at) if since.is_some_and(|since| at < since) => {
                self.accuse(life, &format!("{did} token {id} with no proof of its lock after all else"));
            }
            Some(at) if at + LOCK + SLACK < arrived => {
                self.accuse(life, &format!("{did} token {id} {:?} after the proof of its lock", arrived - at));
            }
            Some(_) => {}
        }
    }

    pub fn cancelled(&mut self, id: u64) {
        self.count("tokens cancelled by a person");
        self.cancelled.insert(id);
    }

    pub fn run_begins(&mut self, life: Life, id: u64) {
        self.count("payloads started");
        if !self.holds.contains_key(&(life, id)) {
            self.accuse(life, &format!("runs token {id}, which it never held"));
        }
        self.runs.insert((life, id), Run { began: Instant::now() });
    }

    pub fn run_ends(&mut self, life: Life, id: u64) {
        let now = Instant::now();
        let Some(run) = self.runs.remove(&(life, id)) else { return };
        self.ran.insert((life, id), now);
        let holds = self.holds.get(&(life, id)).map(Vec::as_slice).unwrap_or_default();
        let hold = holds.iter().rev().find(|hold| hold.granted <= run.began);
        let Some((until, end)) = hold.map(|hold| (hold.until, hold.end)) else { return };
        let allowed = match end {
            // It is told by the next renewal.
            Some(End::Broken) => LOCK + SLACK,
            Some(End::Released) | None => SLACK,
        };
        if now > until {
            self.count("payloads that outlived their lock by a moment");
        }
        if now > until + allowed {
            let by = now - until;
            self.accuse(life, &format!("ran token {id} {by:?} after its lock ended ({end:?})"));
        }
    }

    /// Whether a lock that was granted before the payload ended is still there, and not by a call that came late.
    pub fn kept(&self, life: Life, id: u64, lock: &Lock) -> bool {
        let ended = self.ran.get(&(life, id));
        let hold = self.holds.get(&(life, id)).and_then(|holds| holds.iter().find(|hold| hold.uuid == lock.uuid));
        hold.is_some_and(|hold| ended.is_some_and(|ended| hold.granted < *ended))
    }

    /// The machine is no more, with whatever ran in it.
    pub fn cut(&mut self, life: Life) {
        self.count("machines cut off");
        self.dead.insert(life);
        let runs: Vec<_> = self.runs.keys().filter(|(of, _)| *of == life).map(|(_, id)| *id).collect();
        runs.into_iter().for_each(|id| self.run_ends(life, id));
    }

    fn hold(&mut self, life: Life, id: u64) -> Option<&mut Hold> {
        self.holds.get_mut(&(life, id))?.last_mut()
    }
}

/// What a payload makes of a token.
pub fn product(life: Life, id: u64) -> Vec<u8> {
    format!("result of token {id} by machine {} in its life {}", life.machine, life.number).into_bytes()
}
