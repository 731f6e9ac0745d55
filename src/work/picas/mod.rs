//! PiCaS: tokens that are documents of a CouchDB database, shared with the clients of the `picas` Python package.
//!
//! CouchDB writes a document only for who names its newest revision, so of several that claim a token one succeeds. A
//! claim has no end: a token of a machine that is gone stays locked until a person frees it, or the machine itself when it
//! boots again. So nothing is lost by a server that is away for long, and a result waits for it as long as the worker may.
//!
//! Every write is one step: read the document, see that the claim on it is still this one, change what the step changes
//! and nothing else, put it; on a conflict all of it again. So neither a result nor what somebody else has written
//! meanwhile is ever overwritten.

mod answer;
mod calls;
mod document;

use std::collections::HashSet;
use std::time::Duration;

use self::calls::{Database, Miss};
use self::document::{Document, Mark, State};
use super::http::SetupError;
use super::source::{Claim, Fetched, Held, Reply, Source, Value};
use super::{Credentials, Identity, Pace};
use crate::ban::owner::Owner;
use crate::clock::Deadline;
use crate::context::picas::Picas;
use crate::protocol::channel::MAX_BODY;
use crate::sys::random;

/// Rows that one is chosen of: as many as the Python client asks for. The more, the fewer choose the same.
const WINDOW: usize = 100;
/// Tokens that somebody else was quicker with; as many as the Python client takes.
const MAX_CONFLICTS: u32 = 10;
/// The example views of PiCaS, one of which lists what is claimed.
const MONITOR: &str = "Monitor";
/// Claimed tokens that are looked through for this machine's own. All of them could be gigabytes.
const MAX_LOCKED: usize = 1000;
/// Claims of unknown outcome that are remembered; a server that loses more answers than that in a row has gone.
const MAX_ASTRAY: usize = 8;
/// Tokens that nobody could claim and that were told of.
const MAX_TOLD: usize = 1000;

/// A database of tokens as a source of work.
#[derive(Debug)]
pub struct Tokens {
    database: Database,
    design: String,
    view: String,
    max_scrubs: u32,
    identity: Identity,
    /// The newest document of the token that is held, where that is known.
    kept: Option<Document>,
    /// The revision that the result was to be attached to.
    stored_on: Option<String>,
    /// As long as a claim whose answer was lost may be on its way.
    stray: Duration,
    /// Those claims. Once that time is over, what is not found will not come any more; what is found is ours until it is
    /// free, as nobody else ever frees it.
    astray: Vec<(Held, Deadline)>,
    /// Tokens that the log has a line about.
    told: HashSet<String>,
    /// The last look at the claim failed.
    unseen: bool,
}

/// What came of one try for a token.
enum Try {
    Ours(Held),
    /// Somebody else was quicker.
    Taken,
    /// None is listed.
    Empty,
}

impl Tokens {
    /// Makes no call yet.
    ///
    /// # Errors
    /// When the site's URL, authorities and user do not fit together.
    pub fn new(picas: &Picas, credentials: &Credentials, identity: Identity, pace: &Pace) -> Result<Self, SetupError> {
        Ok(Self {
            database: Database::new(picas, credentials, pace)?,
            design: picas.design.to_string(),
            view: picas.view.to_string(),
            max_scrubs: picas.max_scrubs.into(),
            identity,
            kept: None,
            stored_on: None,
            stray: pace.lock + pace.call,
            astray: Vec::new(),
            told: HashSet::new(),
            unseen: false,
        })
    }

    /// One token of the view, claimed. `odd` are those that this claim has no use for.
    fn one(&mut self, odd: &mut HashSet<String>, due: Deadline) -> Result<Try, Miss> {
        let rows = self.database.view(&self.design, &self.view, &format!("?limit={WINDOW}"), left(due))?;
        let mut ids = Vec::new();
        for id in rows.into_iter().map(|row| row.id) {
            match answer::fault(&id) {
                Some(what) => self.tell(&id, &format!("not the id of a token: {what}")),
                None if !odd.contains(&id) => ids.push(id),
                None => {}
            }
        }
        let at = (random::fraction() * ids.len() as f64) as usize;
        let Some(id) = ids.into_iter().nth(at.min(WINDOW - 1)) else { return Ok(Try::Empty) };
        let mut document = match self.database.get(&id, left(due)) {
            Ok(document) => document,
            // The view is older than the document, which may be gone.
            Err(Miss::Absent(_)) => return Ok(Try::Taken),
            Err(Miss::Refused { why, banned: false }) => {
                self.tell(&id, &why);
                odd.insert(id);
                return Ok(Try::Taken);
            }
            Err(miss) => return Err(miss),
        };
        match document.state() {
            State::Free => self.take(id, &mut document, due),
            State::Locked | State::Over => Ok(Try::Taken),
            State::Odd(why) => {
                self.tell(&id, &why);
                odd.insert(id);
                Ok(Try::Taken)
            }
        }
    }

    /// Claims a token that is free in this document.
    fn take(&mut self, id: String, document: &mut Document, due: Deadline) -> Result<Try, Miss> {
        let random = random::bytes::<16>()
            .map_err(|error| Miss::Unsure { why: format!("/dev/urandom: {error}"), sent: false })?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mark = Mark { lock: self.database.stamp(), claim: format!("{}/{random}", self.identity.owner()) };
        let held = Held { id, lock: mark.text() };
        document.claim(&mark);
        let miss = match self.database.put(&held.id, document, left(due)) {
            Ok(()) => {
                self.kept = Some(document.clone());
                return Ok(Try::Ours(held));
            }
            Err(miss @ (Miss::Conflict(_) | Miss::Unsure { sent: true, .. })) => miss,
            Err(miss) => return Err(miss),
        };
        // A conflict may be one with ourselves: something between here and there sent the same twice.
        match (self.database.get(&held.id, left(due)), miss) {
            (Ok(found), _) if found.mark().as_ref() == Some(&mark) => {
                self.kept = Some(found);
                Ok(Try::Ours(held))
            }
            (_, Miss::Conflict(_)) => Ok(Try::Taken),
            // What is still on its way may yet arrive.
            (_, miss) => {
                if self.astray.len() == MAX_ASTRAY {
                    self.astray.remove(0);
                }
                self.astray.push((held, Deadline::after(self.stray)));
                Err(miss)
            }
        }
    }

    /// Once for each, or a broken token would fill the log.
    fn tell(&mut self, id: &str, what: &str) {
        if self.told.len() < MAX_TOLD && self.told.insert(id.to_owned()) {
            log::warn!("worker: {}: no token to claim: {what}", self.database.place(id));
        }
    }

    /// The document of a claim that stands.
    fn claimed(&mut self, held: &Held, limit: Duration) -> Result<Document, Miss> {
        let document = self.database.get(&held.id, limit)?;
        self.check(held, &document)?;
        Ok(document)
    }

    fn check(&self, held: &Held, document: &Document) -> Result<(), Miss> {
        if document.mark().is_some_and(|mark| mark.text() == held.lock) {
            return Ok(());
        }
        Err(Miss::Absent(format!("{}: the claim on it is gone", self.database.place(&held.id))))
    }

    /// Changes the document of a claim that stands, whatever others change meanwhile. `done` says whether it is changed
    /// already: a try whose answer was lost has worked.
    fn change(
        &mut self,
        held: &Held,
        limit: Duration,
        done: impl Fn(&Document) -> bool,
        mut change: impl FnMut(&mut Database, &mut Document, Duration) -> Result<(), Miss>,
    ) -> Reply {
        let due = Deadline::after(limit);
        let mut last = None;
        for _ in 0..MAX_CONFLICTS {
            let known = self.kept.take().filter(|kept| kept.id().as_ref() == Some(&held.id));
            let document = known.map_or_else(|| self.database.get(&held.id, left(due)), Ok);
            let checked = document.and_then(|document| match done(&document) {
                true => Ok((document, true)),
                false => self.check(held, &document).map(|()| (document, false)),
            });
            let (mut document, finished) = match checked {
                Ok(checked) => checked,
                Err(miss) => return miss.reply(),
            };
            if finished {
                return Reply::Done(());
            }
            match change(&mut self.database, &mut document, left(due)) {
                Ok(()) => return Reply::Done(()),
                Err(Miss::Conflict(why)) => last = Some(why),
                Err(miss) => return miss.reply(),
            }
        }
        Reply::Unsure { why: last.unwrap_or_default(), sent: false }
    }
}

impl Source for Tokens {
    fn recover(&mut self, limit: Duration) -> Reply<Vec<Held>> {
        let query = format!("?include_docs=true&limit={MAX_LOCKED}");
        let rows = match self.database.view(MONITOR, "locked", &query, limit) {
            Ok(rows) => rows,
            Err(Miss::Absent(why)) => return Reply::Refused(why),
            Err(miss) => return miss.reply(),
        };
        Reply::Done(rows.into_iter().filter_map(|row| left_here(&row.doc?, &self.identity)).collect())
    }

    fn astray(&self) -> bool {
        !self.astray.is_empty()
    }

    fn strays(&mut self, limit: Duration) -> Reply<Vec<Held>> {
        let due = Deadline::after(limit);
        let mut found = Vec::new();
        for (held, until) in self.astray.clone() {
            match self.claimed(&held, left(due)) {
                Ok(_) => found.push(held),
                Err(miss @ Miss::Unsure { .. }) => return miss.reply(),
                Err(_) if until.passed() => self.astray.retain(|(other, _)| *other != held),
                Err(_) => {}
            }
        }
        Reply::Done(found)
    }

    fn claim(&mut self, limit: Duration) -> Claim {
        let due = Deadline::after(limit);
        (self.kept, self.stored_on, self.unseen) = (None, None, false);
        let mut odd = HashSet::new();
        for _ in 0..MAX_CONFLICTS {
            if due.passed() {
                break;
            }
            match self.one(&mut odd, due) {
                Ok(Try::Ours(held)) => return Claim::Leased(held),
                Ok(Try::Taken) => {}
                Ok(Try::Empty) => break,
                Err(Miss::Unsure { why, .. }) => return Claim::Unsure { why },
                Err(Miss::Refused { why, banned }) => return Claim::Refused { why, broken: !banned },
                Err(Miss::Absent(why) | Miss::Conflict(why)) => return Claim::Refused { why, broken: true },
            }
        }
        Claim::Empty
    }

    fn fetch(&mut self, held: &Held, limit: Duration) -> Reply<Fetched> {
        let document = match self.kept.take().map_or_else(|| self.claimed(held, limit), Ok) {
            Ok(document) => document,
            Err(miss) => return miss.reply(),
        };
        let place = self.database.place(&held.id);
        let fetched = match document.input() {
            Err(why) => Fetched::Unfit(format!("{place}: {why}")),
            Ok((body, _)) if body.len() > MAX_BODY => {
                Fetched::Unfit(format!("{place}: its input is {} bytes, more than {MAX_BODY}", body.len()))
            }
            Ok((body, media_type)) => Fetched::Value(Value {
                body,
                owner: Owner::of_media_type(media_type.as_bytes()),
                media_type: Some(media_type),
                leases: Some(document.scrub_count().saturating_add(1)),
                pilot: false,
            }),
        };
        self.kept = Some(document);
        Reply::Done(fetched)
    }

    /// Only looks: a claim has no end. What the server says counts, its silence does not.
    fn renew(&mut self, held: &Held, limit: Duration) -> Reply {
        match self.claimed(held, limit) {
            Ok(document) => {
                self.kept = Some(document);
                self.unseen = false;
                Reply::Done(())
            }
            Err(Miss::Absent(why)) => Reply::Absent(why),
            Err(Miss::Conflict(why) | Miss::Refused { why, .. } | Miss::Unsure { why, .. }) => {
                if !std::mem::replace(&mut self.unseen, true) {
                    log::warn!("worker: token {} was not looked at: {why}", held.id);
                }
                Reply::Done(())
            }
        }
    }

    fn look(&mut self, held: &Held, limit: Duration) -> Reply {
        self.database.get(&held.id, limit).map_or_else(Miss::reply, |_| Reply::Done(()))
    }

    fn store(&mut self, held: &Held, result: &[u8], limit: Duration) -> Reply {
        let mut stored_on = None;
        let reply = self.change(
            held,
            limit,
            |_| false,
            |database, document, limit| {
                let rev = document.rev().unwrap_or_default();
                stored_on = Some(rev.clone());
                database.attach(&held.id, &rev, result, limit)
            },
        );
        self.stored_on = stored_on;
        reply
    }

    fn stored(&mut self, held: &Held, result: &[u8], limit: Duration) -> Reply<bool> {
        let Some(rev) = self.stored_on.clone() else { return Reply::Done(false) };
        match self.claimed(held, limit) {
            Ok(document) => Reply::Done(document.result_since(&rev) == Some(result.len() as u64)),
            Err(miss) => miss.reply(),
        }
    }

    fn finish(&mut self, held: &Held, limit: Duration) -> Reply {
        let Some(mark) = Mark::parse(&held.lock) else { return Reply::Refused(format!("{}: no claim", held.lock)) };
        let done = |document: &Document| document.is_completed(&mark);
        let reply = self.change(held, limit, done, |database, document, limit| {
            document.complete(database.stamp());
            database.put(&held.id, document, limit)
        });
        match reply {
            // Not taken off by an earlier try of ours, which would show: in somebody else's hands, or deleted.
            Reply::Absent(why) => Reply::Refused(why),
            other => other,
        }
    }

    fn release(&mut self, held: &Held, _: &str, limit: Duration) -> Reply {
        let hostname = self.identity.hostname.clone();
        let released = self.change(
            held,
            limit,
            |_| false,
            |database, document, limit| {
                document.scrub(&hostname);
                database.put(&held.id, document, limit)
            },
        );
        if released == Reply::Done(()) {
            self.astray.retain(|(other, _)| other != held);
        }
        released
    }

    fn fail(&mut self, held: &Held, why: &str, limit: Duration) -> Reply {
        let Some(mark) = Mark::parse(&held.lock) else { return Reply::Refused(format!("{}: no claim", held.lock)) };
        let done = |document: &Document| document.is_failed(&mark);
        self.change(held, limit, done, |database, document, limit| {
            document.fail(database.stamp(), why);
            database.put(&held.id, document, limit)
        })
    }

    fn result_place(&self, held: &Held) -> Option<String> {
        Some(format!("{}/{}", self.database.place(&held.id), document::RESULT))
    }

    fn failed_place(&self) -> String {
        format!("the tokens with an error ({MONITOR}/error)")
    }

    fn lease_limit(&self) -> u32 {
        self.max_scrubs + 1
    }
}

/// Whether a claim was left by an earlier life of this machine, or in this very slot. Other slots of this boot are alive.
fn left_here(document: &Document, identity: &Identity) -> Option<Held> {
    let (id, mark) = (document.id()?, document.mark()?);
    let rest = mark.claim.strip_prefix(&identity.machine())?;
    let own = mark.claim.strip_prefix(&identity.owner()).is_some_and(|rest| rest.starts_with('/'));
    let alive = rest.strip_prefix(&identity.boot_id).is_some_and(|rest| rest.starts_with('/'));
    (answer::fault(&id).is_none() && (own || !alive)).then(|| Held { id, lock: mark.text() })
}

/// Never nothing, which ureq takes for a second: a call that is begun gets the time of a short one.
fn left(due: Deadline) -> Duration {
    due.left().max(Duration::from_millis(50))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_dead_is_a_leftover() {
        let identity =
            Identity { hostname: "h".to_owned(), vm_uuid: "v".to_owned(), boot_id: "b1".to_owned(), slot: 0 };
        let left = |hostname: &str, lock: u32, claim: &str| {
            let text =
                format!(r#"{{"_id":"t","lock":{lock},"done":0,"hostname":"{hostname}","ctxinit_claim":"{claim}"}}"#);
            left_here(&Document::parse(text.as_bytes()).unwrap(), &identity).map(|left| left.id)
        };
        let cases = [
            ("h/v/b0/0/r", Some("t")),
            ("h/v/b0/1/r", Some("t")),
            ("h/v/b1/0/r", Some("t")),  // our own slot: an earlier process
            ("h/v/b1/1/r", None),       // another slot of this boot
            ("h/v/b11/1/r", Some("t")), // a boot whose id begins alike
            ("h/v/b1/00/r", None),
            ("h/v2/b0/0/r", None), // another machine
        ];
        for (claim, expected) in cases {
            assert_eq!(left("h", 1_700_000_000, claim).as_deref(), expected, "{claim}");
        }
        // Freed since, or claimed by a client that leaves our field.
        assert_eq!(left("h", 0, "h/v/b0/0/r"), None);
        assert_eq!(left("other", 1_700_000_000, "h/v/b0/0/r"), None);
    }
}
