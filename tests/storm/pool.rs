//! A token pool as ToPoS has it (rules 1-8 of how its server works), exact and in memory. It survives the crashes of
//! the server around it, as a database would. Whatever it does it tells the ledger.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::call::{Call, Life};
use crate::ledger::{End, Ledger};

const XHTML: &str = "<?xml version=\"1.0\"?><html><body><pre id=\"message\">said</pre></body></html>";

#[derive(Debug)]
pub struct Token {
    pub leases: u32,
    /// It stays there when it has run out, until another takes its place.
    pub lock: Option<Lock>,
}

#[derive(Debug)]
pub struct Lock {
    pub uuid: String,
    pub description: String,
    pub until: Instant,
    pub life: Life,
}

impl Token {
    pub fn lock(&self, now: Instant) -> Option<&Lock> {
        self.lock.as_ref().filter(|lock| lock.until > now)
    }
}

/// What is answered: status, header lines, body.
pub type Answer = (u16, String, Vec<u8>);

#[derive(Default)]
pub struct Pool {
    pub tokens: BTreeMap<u64, Token>,
    /// Put aside; a lock goes along and stays what it is.
    pub failed: BTreeMap<u64, Token>,
    /// Name, content, and who put it there.
    pub results: Vec<(String, Vec<u8>, Life)>,
    min_leases: u32,
    ids: u64,
    uuids: u64,
    pub ledger: Ledger,
}

impl Pool {
    pub fn add(&mut self, count: u64) {
        for _ in 0..count {
            self.ids += 1;
            self.tokens.insert(self.ids, Token { leases: 0, lock: None });
        }
        self.ledger.added += count;
    }

    /// Carries out a call that arrived at `arrived`. `heard`: its status and headers are going to be sent.
    pub fn act(&mut self, life: Life, call: &Call, arrived: Instant, heard: bool) -> Answer {
        let now = Instant::now();
        let said = |status: u16| (status, "Content-Type: application/xhtml+xml\r\n".to_owned(), XHTML.into());
        match call {
            Call::Next { secs, description } => {
                self.ledger.asked(life, self.tokens.values().filter_map(|token| token.lock(now)), arrived);
                let Some((id, uuid)) = self.next(life, *secs, description, arrived) else {
                    self.ledger.empty(life);
                    return said(404);
                };
                let base = "http://elsewhere.example/4.1/pools/mc";
                let url = format!("{base}/tokens/{id}");
                (303, format!("Location: {url}\r\nX-Topos-LockURL: {base}/locks/{uuid}\r\n"), url.into())
            }
            Call::Read(id) => match self.tokens.get(id) {
                None => {
                    self.ledger.empty(life);
                    said(404)
                }
                Some(token) => {
                    let headers = format!("Content-Type: text/plain\r\nX-Number-Of-Leases: {}\r\n", token.leases);
                    (200, headers, format!("seed={id}").into())
                }
            },
            Call::Renew { uuid, secs } => {
                let found = self.tokens.iter_mut().chain(&mut self.failed).find_map(|(id, token)| {
                    token.lock.as_mut().filter(|lock| lock.uuid == *uuid && lock.until > now).map(|lock| (*id, lock))
                });
                let Some((id, lock)) = found else { return said(404) };
                lock.until = now + Duration::from_secs(*secs);
                let until = lock.until;
                self.ledger.renewed(life, id, now, until, heard);
                said(200)
            }
            Call::Release(uuid) => {
                let found = self
                    .tokens
                    .iter_mut()
                    .chain(&mut self.failed)
                    .find(|(_, token)| token.lock.as_ref().is_some_and(|l| l.uuid == *uuid));
                let Some((id, token)) = found else { return said(404) };
                if let Some(lock) = token.lock.take().filter(|lock| lock.until > now) {
                    let end = if lock.life == life { End::Released } else { End::Broken };
                    self.ledger.unlocked(lock.life, *id, now, end);
                }
                said(200)
            }
            Call::Delete(id) => {
                let Some(token) = self.tokens.remove(id) else { return said(404) };
                let stored = self.is_stored(*id);
                self.ledger.deleted(life, *id, arrived, stored);
                self.left(life, *id, token, now);
                said(200)
            }
            Call::Fail(ids) => {
                for id in ids {
                    let Some(token) = self.tokens.remove(id) else { continue };
                    self.ledger.failed(life, *id, arrived);
                    self.failed.insert(*id, token);
                }
                said(200)
            }
            Call::Failed(id) => said(if self.failed.contains_key(id) { 200 } else { 404 }),
            Call::Store { name, body } => {
                self.ledger.stored(life, name, body, arrived);
                self.results.push((name.clone(), body.clone(), life));
                (201, String::new(), Vec::new())
            }
            Call::Locks => {
                let row = |lock: &Lock| {
                    format!("{{\"Name\":\"{}\",\"LockDescription\":\"{}\"}}", lock.uuid, lock.description)
                };
                listing(self.tokens.values().filter_map(|token| token.lock(now)).map(row))
            }
            Call::Results => listing(
                self.results.iter().map(|(name, ..)| format!("{{\"Name\":\"1\",\"Original Name\":\"{name}\"}}")),
            ),
        }
    }

    fn next(&mut self, life: Life, secs: u64, description: &str, arrived: Instant) -> Option<(u64, String)> {
        let now = Instant::now();
        let free = |token: &Token| token.lock(now).is_none();
        let level = |tokens: &BTreeMap<u64, Token>, leases| {
            let mut ids = tokens.iter().filter(|(_, token)| free(token) && token.leases == leases);
            // Not the oldest first: the server promises no order.
            ids.next_back().map(|(id, _)| *id)
        };
        let id = level(&self.tokens, self.min_leases).or_else(|| {
            self.min_leases = self.tokens.values().filter(|token| free(token)).map(|token| token.leases).min()?;
            level(&self.tokens, self.min_leases)
        })?;
        let token = self.tokens.get_mut(&id)?;
        token.leases += 1;
        self.uuids += 1;
        let uuid = format!("{:08x}-0000-1000-8000-000000000000", self.uuids);
        let until = now + Duration::from_secs(secs);
        token.lock = Some(Lock { uuid: uuid.clone(), description: description.to_owned(), until, life });
        self.ledger.granted(life, id, &uuid, arrived, until);
        Some((id, uuid))
    }

    /// A token that is no more takes its lock along.
    fn left(&mut self, by: Life, id: u64, token: Token, now: Instant) {
        if let Some(lock) = token.lock.filter(|lock| lock.until > now) {
            let end = if lock.life == by { End::Released } else { End::Broken };
            self.ledger.unlocked(lock.life, id, now, end);
        }
    }

    pub fn is_stored(&self, id: u64) -> bool {
        let name = format!("mc.{id}");
        self.results.iter().any(|(stored, ..)| *stored == name)
    }

    /// Whether the lock on a token is still there under which this machine ran it.
    pub fn has_lock(&self, life: Life, id: u64) -> bool {
        let lock = self.tokens.get(&id).and_then(|token| token.lock(Instant::now()));
        lock.is_some_and(|lock| self.ledger.kept(life, id, lock))
    }

    /// Somebody with a browser breaks the `index`th lock.
    pub fn break_lock(&mut self, index: u64) {
        let now = Instant::now();
        let mut locked: Vec<_> = self.tokens.iter_mut().filter(|(_, token)| token.lock(now).is_some()).collect();
        let count = locked.len() as u64;
        if count == 0 {
            return;
        }
        let (id, token) = locked.swap_remove((index % count) as usize);
        if let Some(lock) = token.lock.take() {
            self.ledger.unlocked(lock.life, *id, now, End::Broken);
            self.ledger.count("locks broken by a person");
        }
    }

    /// Somebody with a browser deletes the `index`th token.
    pub fn cancel(&mut self, index: u64) {
        let count = self.tokens.len() as u64;
        let Some(id) = (count > 0).then(|| self.tokens.keys().nth((index % count) as usize)).flatten().copied() else {
            return;
        };
        if let Some(Token { lock: Some(lock), .. }) = self.tokens.remove(&id) {
            self.ledger.unlocked(lock.life, id, Instant::now(), End::Broken);
        }
        self.ledger.cancelled(id);
    }
}

/// An empty listing is `null`.
fn listing(rows: impl Iterator<Item = String>) -> Answer {
    let rows: Vec<_> = rows.collect();
    let body = if rows.is_empty() { "null".to_owned() } else { format!("[{}]", rows.join(",")) };
    (200, "Content-Type: application/json\r\n".to_owned(), body.into())
}
