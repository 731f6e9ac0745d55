//! What the page of a pool tells, read from the database in one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::OptionalExtension;

use super::super::pools::{Pools, Result, Token};
use super::super::random::time_of;

/// Tokens on one page, and holders at most.
pub(super) const ROWS: usize = 100;
/// Width of the throughput's picture.
pub(super) const MINUTES: usize = 60;
/// Of a pool with more, nobody waits for the tries to be counted.
const COUNTABLE: i64 = 300_000;
/// What pools of results are called, after the name of the pool of work.
const RESULTS: [&str; 4] = ["-results", ".results", ".out", "-out"];

/// A pool at one moment.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) pool: String,
    /// Unix seconds.
    pub(super) now: i64,
    /// Tokens that are there.
    pub(super) tokens: i64,
    /// Those of them that are locked.
    pub(super) locked: i64,
    /// Ever deleted under a lock.
    pub(super) done: i64,
    /// Ever deleted without one, or moved to another pool.
    pub(super) gone: i64,
    /// Tokens in `<pool>.failed`.
    pub(super) failed: i64,
    /// Pools that look like those of its results, and how many tokens are there.
    pub(super) results: Vec<(String, i64)>,
    /// How many tokens were handed out how often; nothing where they are too many to be counted.
    pub(super) tries: Vec<(i64, i64)>,
    /// Done in each of the last minutes, the running one last.
    pub(super) minutes: Vec<i64>,
    /// Different machines among the holders.
    pub(super) machines: usize,
    /// Locked tokens, the one that is held for longest first.
    pub(super) holders: Vec<Token>,
    /// One page of tokens, oldest first.
    pub(super) rows: Vec<Token>,
    /// The page begins behind this token.
    pub(super) after: i64,
    /// Whether there are tokens behind the page.
    pub(super) more: bool,
}

impl Facts {
    /// Everything ever put in, but for what was taken out again.
    pub(super) fn total(&self) -> i64 {
        self.tokens + self.done + self.failed
    }

    pub(super) fn waiting(&self) -> i64 {
        self.tokens - self.locked
    }

    /// Deleted or moved, and not to the failed ones.
    pub(super) fn withdrawn(&self) -> i64 {
        (self.gone - self.failed).max(0)
    }

    /// Done in a minute, on average over those of the last ten in which there was work; none done is none.
    pub(super) fn rate(&self) -> Option<f64> {
        let whole = self.minutes.split_last().map(|(_, whole)| whole).unwrap_or_default();
        let mut last = &whole[whole.len().saturating_sub(10)..];
        while let Some((0, later)) = last.split_first() {
            last = later;
        }
        let done: i64 = last.iter().sum();
        (done > 0).then(|| done as f64 / last.len() as f64)
    }
}

/// A pool in one line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) tokens: i64,
    pub(super) locked: i64,
    pub(super) done: i64,
}

/// `vm7.site`, of `vm7.site/<vm-uuid>/<boot-id>/<slot>` as ctxinit describes its locks; and what is behind it.
pub(super) fn holder(description: &str) -> (&str, Option<Vm<'_>>) {
    let mut parts = description.split('/');
    let vm = (|| {
        let (host, vm, _boot, slot) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none() && !host.is_empty() && !vm.is_empty();
        (whole && slot.bytes().all(|b| b.is_ascii_digit())).then_some((host, Vm { uuid: vm, slot }))
    })();
    vm.map_or((description, None), |(host, vm)| (host, Some(vm)))
}

/// A machine's slot.
#[derive(Debug, PartialEq)]
pub(super) struct Vm<'a> {
    pub(super) uuid: &'a str,
    pub(super) slot: &'a str,
}

impl Pools<'_> {
    /// Everything about a pool; `after` is where the page of tokens begins.
    pub(super) fn facts(&self, pool: &str, after: i64) -> Result<Facts> {
        let mut facts = Facts { pool: pool.to_owned(), now: self.now, after, ..Facts::default() };
        let Some(id) = self.id_of(pool)? else { return Ok(facts) };
        let (added, done, gone) = self.tally(id)?;
        (facts.done, facts.gone, facts.tokens) = (done, gone, added - done - gone);
        facts.failed = self.size_of(&format!("{pool}.failed"))?.unwrap_or(0);
        for ending in RESULTS {
            let name = format!("{pool}{ending}");
            facts.results.extend(self.size_of(&name)?.map(|size| (name, size)));
        }
        facts.tries = if facts.tokens > COUNTABLE { Vec::new() } else { self.tries(id)? };
        facts.minutes = self.minutes(id)?;
        self.holders(pool, &mut facts)?;
        self.page(id, &mut facts)?;
        Ok(facts)
    }

    /// All pools that were ever written to.
    pub(super) fn lines(&self) -> Result<Vec<Line>> {
        let mut query = self.db.prepare(
            "SELECT name, added - done - gone, done,
                    (SELECT count(*) FROM tokens WHERE pool = p.id AND lock_until > 0 AND lock_until > ?1)
             FROM pools AS p JOIN tallies ON pool = p.id ORDER BY name",
        )?;
        let line = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Line> {
            Ok(Line { name: row.get(0)?, tokens: row.get(1)?, done: row.get(2)?, locked: row.get(3)? })
        };
        Ok(query.query_map([self.now], line)?.collect::<rusqlite::Result<_>>()?)
    }

    fn id_of(&self, pool: &str) -> Result<Option<i64>> {
        let mut query = self.db.prepare_cached("SELECT id FROM pools WHERE name = ?1")?;
        Ok(query.query_row([pool], |row| row.get(0)).optional()?)
    }

    fn tally(&self, pool: i64) -> Result<(i64, i64, i64)> {
        let mut query = self.db.prepare_cached("SELECT added, done, gone FROM tallies WHERE pool = ?1")?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        Ok(query.query_row([pool], read).optional()?.unwrap_or_default())
    }

    fn size_of(&self, pool: &str) -> Result<Option<i64>> {
        let Some(id) = self.id_of(pool)? else { return Ok(None) };
        let (added, done, gone) = self.tally(id)?;
        Ok(Some(added - done - gone))
    }

    fn tries(&self, pool: i64) -> Result<Vec<(i64, i64)>> {
        let mut query =
            self.db.prepare("SELECT leases, count(*) FROM tokens WHERE pool = ?1 GROUP BY leases ORDER BY leases")?;
        Ok(query.query_map([pool], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?)
    }

    fn minutes(&self, pool: i64) -> Result<Vec<i64>> {
        let first = self.now / 60 + 1 - MINUTES as i64;
        let mut query =
            self.db.prepare("SELECT minute - ?2, done FROM minutes WHERE pool = ?1 AND minute BETWEEN ?2 AND ?3")?;
        let mut minutes = vec![0; MINUTES];
        let mut rows = query.query([pool, first, self.now / 60])?;
        while let Some(row) = rows.next()? {
            if let Some(minute) = minutes.get_mut(row.get::<_, u32>(0)? as usize) {
                *minute = row.get(1)?;
            }
        }
        Ok(minutes)
    }

    fn holders(&self, pool: &str, facts: &mut Facts) -> Result<()> {
        // No more than a page of them is kept.
        let mut oldest: BTreeMap<(Option<i64>, i64), Token> = BTreeMap::new();
        let mut machines = BTreeSet::new();
        self.each_locked(pool, |token| {
            let Some(lock) = &token.lock else { return };
            facts.locked += 1;
            let (name, vm) = holder(&lock.description);
            machines.insert(format!("{name}/{}", vm.map_or("", |vm| vm.uuid)));
            oldest.insert((time_of(&lock.uuid), token.id), token);
            if oldest.len() > ROWS {
                oldest.pop_last();
            }
        })?;
        facts.machines = machines.len();
        facts.holders = oldest.into_values().collect();
        Ok(())
    }

    fn page(&self, pool: i64, facts: &mut Facts) -> Result<()> {
        let mut query = self.db.prepare("SELECT * FROM tokens WHERE pool = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
        let mut rows = query.query([pool, facts.after, ROWS as i64 + 1])?;
        while let Some(row) = rows.next()? {
            facts.rows.push(self.read(row)?);
        }
        facts.more = facts.rows.len() > ROWS;
        facts.rows.truncate(ROWS);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::super::pools::{SCHEMA, Wish};
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        super::super::prepare(&db).unwrap();
        db
    }

    fn unix() -> i64 {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
    }

    #[test]
    fn a_pool_that_nobody_wrote_to_is_all_zero() {
        let db = database();
        let facts = Pools { db: &db, now: 1000 }.facts("p", 0).unwrap();
        assert_eq!((facts.total(), facts.waiting(), facts.rows.len(), facts.rate()), (0, 0, 0, None));
    }

    #[test]
    fn everything_of_a_pool_is_counted() {
        let db = database();
        let now = unix();
        let pools = Pools { db: &db, now };
        pools.add("p", "text/plain", (0..250).map(|n| n.to_string())).unwrap();
        pools.add("p-results", "text/plain", ["r"]).unwrap();
        let claim = |slot: u32| {
            let description = format!("h/v{}/b/{slot}", slot / 2);
            pools.claim("p", Some(&Wish { seconds: 60, description })).unwrap().unwrap().token
        };
        let mut held: Vec<i64> = (0..5).map(claim).collect();
        assert!(pools.delete("p", held.remove(0)).unwrap());
        pools.move_tokens("p", "p.failed", &[held.remove(0)]).unwrap();
        assert!(pools.delete("p", 250).unwrap());
        let facts = pools.facts("p", 0).unwrap();
        assert_eq!((facts.total(), facts.tokens, facts.locked, facts.waiting()), (249, 247, 3, 244));
        assert_eq!((facts.done, facts.failed, facts.withdrawn()), (1, 1, 1));
        assert_eq!(facts.results, [("p-results".to_owned(), 1)]);
        assert_eq!(facts.tries, [(0, 244), (1, 3)]);
        assert_eq!(facts.machines, 2, "v1 with two slots, and v2");
        assert_eq!(facts.minutes.iter().sum::<i64>(), 1);
        assert_eq!((facts.rows.len(), facts.more, facts.rows[0].id), (100, true, 3));
        let last = pools.facts("p", facts.rows[99].id).unwrap();
        let last = pools.facts("p", last.rows[99].id).unwrap();
        assert_eq!((last.rows.len(), last.more, last.rows[46].id), (47, false, 249));
    }

    #[test]
    fn the_longest_held_come_first_and_not_all_of_them() {
        let db = database();
        let at = |now| Pools { db: &db, now };
        at(1000).add("p", "text/plain", vec!["x"; 150]).unwrap();
        for second in 0..150 {
            at(1000 + second)
                .claim("p", Some(&Wish { seconds: 900 - second * 5, description: "d".to_owned() }))
                .unwrap();
        }
        let facts = at(1150).facts("p", 0).unwrap();
        assert_eq!((facts.locked, facts.machines, facts.holders.len()), (150, 1, ROWS));
        let ids: Vec<i64> = facts.holders.iter().map(|token| token.id).collect();
        assert!(ids.is_sorted() && ids[0] == 1, "{ids:?}");
    }

    #[test]
    fn the_rate_is_that_of_the_minutes_with_work() {
        let rate = |minutes: &[i64]| Facts { minutes: minutes.to_vec(), ..Facts::default() }.rate();
        assert_eq!(rate(&[0; 60]), None);
        assert_eq!(rate(&[0, 0, 0, 4, 6, 99]), Some(5.0), "the running minute is not over");
        assert_eq!(rate(&[100, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0]), Some(2.0));
        assert_eq!(rate(&[4, 0, 0]), Some(2.0));
    }

    #[test]
    fn a_machine_is_known_by_its_description() {
        assert_eq!(holder("h/v/b/3"), ("h", Some(Vm { uuid: "v", slot: "3" })));
        for other in ["", "h", "h/v/b/x", "h/v/b/3/4", "//b/3", "wn1.example.org"] {
            assert_eq!(holder(other), (other, None));
        }
    }

    /// What keeps the page cheap in a large pool.
    #[test]
    fn a_page_of_tokens_is_found_by_index() {
        let db = database();
        let sql = "EXPLAIN QUERY PLAN SELECT * FROM tokens WHERE pool = 1 AND id > 5 ORDER BY id LIMIT 101";
        let plan: String = db.query_row(sql, [], |row| row.get("detail")).unwrap();
        assert_eq!(plan, "SEARCH tokens USING INDEX listed (pool=? AND id>?)");
    }
}
