//! Pools and tokens in the database: what each request does inside its transaction.
//!
//! Every statement finds its rows through an index, so that a claim takes the same time in a pool of ten
//! tokens and of a million. Locks are in `locks.rs`.

use std::io;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, named_params};
use thiserror::Error;

use super::metrics::Census;
use super::names::Search;
use super::random::{random, timed_uuid};

/// Layout of the database, version [`SCHEMA_VERSION`].
pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// Kept in the database's `user_version`.
pub(super) const SCHEMA_VERSION: i64 = 1;

/// The next token of a pool with this number of leases; the one that has been free for longest.
const FREE_AT: &str = "SELECT id FROM tokens WHERE pool = ?1 AND leases = ?2 AND lock_until <= ?3
    ORDER BY lock_until, id LIMIT 1";

/// The next higher number of leases in a pool.
const NEXT_LEVEL: &str = "SELECT leases FROM tokens WHERE pool = ?1 AND leases > ?2 ORDER BY leases LIMIT 1";

/// Why a request could not be carried out; nothing of it was.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    #[error("pools.sqlite: {0}")]
    Database(#[from] rusqlite::Error),
    /// The commit, shared with all other requests in it.
    #[error("pools.sqlite: commit: {0}")]
    Commit(Arc<rusqlite::Error>),
    #[error("/dev/urandom: {0}")]
    Random(#[from] io::Error),
    /// The writer could not begin, or has ended.
    #[error("pools.sqlite: the request was dropped")]
    Dropped,
}

impl StoreError {
    /// Whether the disk is to blame, and the same request may succeed when there is room again.
    pub(super) fn may_pass(&self) -> bool {
        let code = match self {
            Self::Database(error) => error.sqlite_error_code(),
            Self::Commit(error) => error.sqlite_error_code(),
            Self::Random(_) | Self::Dropped => None,
        };
        matches!(code, Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::OperationAborted))
    }
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// All pools, inside one transaction and at one time.
pub(super) struct Pools<'a> {
    pub(super) db: &'a Connection,
    /// Unix seconds of the server's clock; no other clock plays a part.
    pub(super) now: i64,
}

/// The lock that a claim asks for.
pub(super) struct Wish {
    /// More than 0.
    pub(super) seconds: i64,
    pub(super) description: String,
}

#[derive(Debug, PartialEq)]
pub(super) struct Claim {
    pub(super) token: i64,
    /// Its UUID, if a lock was asked for.
    pub(super) lock: Option<String>,
}

/// A token to be stored.
pub(super) struct New<'a> {
    pub(super) name: Option<&'a str>,
    /// Its `Content-Type`.
    pub(super) kind: &'a str,
    pub(super) value: &'a [u8],
}

/// A token without its value.
#[derive(Debug, PartialEq)]
pub(super) struct Token {
    pub(super) id: i64,
    pub(super) name: Option<String>,
    pub(super) kind: String,
    /// Bytes.
    pub(super) length: i64,
    /// Unix seconds.
    pub(super) created: i64,
    pub(super) leases: i64,
    /// Only while it lasts.
    pub(super) lock: Option<Lock>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Lock {
    pub(super) uuid: String,
    /// Seconds.
    pub(super) left: i64,
    pub(super) description: String,
}

impl Pools<'_> {
    /// Hands out a token: one that is free at the pool's level of leases, else at the lowest level that has
    /// one, which becomes the pool's. Tokens added to a pool on its second round so wait for that round's end.
    pub(super) fn claim(&self, pool: &str, wish: Option<&Wish>) -> Result<Option<Claim>> {
        let pool = self
            .db
            .prepare_cached("SELECT id, min_leases FROM pools WHERE name = ?1")?
            .query_row([pool], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((pool, level)) = pool else { return Ok(None) };
        let token = match self.free_at(pool, level)? {
            Some(token) => token,
            None => {
                let Some((level, token)) = self.lowest_free(pool)? else { return Ok(None) };
                self.db.prepare_cached("UPDATE pools SET min_leases = ?2 WHERE id = ?1")?.execute([pool, level])?;
                token
            }
        };
        self.lease(token, wish).map(Some)
    }

    fn lease(&self, token: i64, wish: Option<&Wish>) -> Result<Claim> {
        let Some(wish) = wish else {
            self.db.prepare_cached("UPDATE tokens SET leases = leases + 1 WHERE id = ?1")?.execute([token])?;
            return Ok(Claim { token, lock: None });
        };
        let uuid = timed_uuid(self.now, random()?);
        self.db
            .prepare_cached(
                "UPDATE tokens SET leases = leases + 1, lock_until = :until, lock_uuid = :uuid,
                    lock_description = :description WHERE id = :id",
            )?
            .execute(named_params! {
                ":id": token,
                ":until": self.until(wish.seconds),
                ":uuid": uuid,
                ":description": wish.description,
            })?;
        Ok(Claim { token, lock: Some(uuid) })
    }

    /// When a lock of so many seconds ends. The clock is cut to whole seconds: without one more, a lock would last up
    /// to a second less than its holder was promised.
    pub(super) fn until(&self, seconds: i64) -> i64 {
        self.now.saturating_add(seconds).saturating_add(1)
    }

    fn free_at(&self, pool: i64, level: i64) -> Result<Option<i64>> {
        let mut query = self.db.prepare_cached(FREE_AT)?;
        Ok(query.query_row([pool, level, self.now], |row| row.get(0)).optional()?)
    }

    /// Steps from level to level, not over tokens: a pool of which all is locked answers as fast as any.
    fn lowest_free(&self, pool: i64) -> Result<Option<(i64, i64)>> {
        let mut next = self.db.prepare_cached(NEXT_LEVEL)?;
        let mut level = -1;
        while let Some(higher) = next.query_row([pool, level], |row| row.get(0)).optional()? {
            level = higher;
            if let Some(token) = self.free_at(pool, level)? {
                return Ok(Some((level, token)));
            }
        }
        Ok(None)
    }

    /// Stores a token and, in the same step, deletes one of the same pool. If that one does not exist,
    /// nothing happens and there is no number.
    pub(super) fn put(&self, pool: &str, new: &New<'_>, delete: Option<i64>) -> Result<Option<i64>> {
        if let Some(old) = delete
            && !self.delete(pool, old)?
        {
            return Ok(None);
        }
        Ok(Some(self.insert(self.pool_id(pool)?, new)?))
    }

    /// Stores tokens of one kind, without names.
    pub(super) fn add<V: AsRef<[u8]>>(
        &self,
        pool: &str,
        kind: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<()> {
        let pool = self.pool_id(pool)?;
        for value in values {
            self.insert(pool, &New { name: None, kind, value: value.as_ref() })?;
        }
        Ok(())
    }

    fn insert(&self, pool: i64, new: &New<'_>) -> Result<i64> {
        self.db
            .prepare_cached(
                "INSERT INTO tokens (pool, name, type, length, created) VALUES (:pool, :name, :type, :length, :created)",
            )?
            .execute(named_params! {
                ":pool": pool,
                ":name": new.name,
                ":type": new.kind,
                ":length": i64::try_from(new.value.len()).unwrap_or(i64::MAX),
                ":created": self.now,
            })?;
        let id = self.db.last_insert_rowid();
        self.db.prepare_cached("INSERT INTO contents (token, value) VALUES (?1, ?2)")?.execute((id, new.value))?;
        Ok(id)
    }

    /// The number of a pool, which comes into being where it is first written to.
    fn pool_id(&self, name: &str) -> Result<i64> {
        self.db.prepare_cached("INSERT INTO pools (name) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([name])?;
        Ok(self.db.prepare_cached("SELECT id FROM pools WHERE name = ?1")?.query_row([name], |row| row.get(0))?)
    }

    /// A token and its value.
    pub(super) fn token(&self, pool: &str, id: i64) -> Result<Option<(Token, Vec<u8>)>> {
        let mut query = self.db.prepare_cached(
            "SELECT tokens.*, value FROM tokens JOIN contents ON token = tokens.id
             WHERE tokens.id = :id AND pool = (SELECT id FROM pools WHERE name = :pool)",
        )?;
        let read = |row: &Row<'_>| Ok((self.read(row)?, row.get("value")?));
        Ok(query.query_row(named_params! { ":id": id, ":pool": pool }, read).optional()?)
    }

    /// Whether it was there. Nobody's lock is asked for: that is the protocol.
    pub(super) fn delete(&self, pool: &str, id: i64) -> Result<bool> {
        let mut delete = self
            .db
            .prepare_cached("DELETE FROM tokens WHERE id = ?1 AND pool = (SELECT id FROM pools WHERE name = ?2)")?;
        Ok(delete.execute((id, pool))? > 0)
    }

    /// Deletes all tokens of a pool.
    pub(super) fn clear(&self, pool: &str) -> Result<()> {
        // What is deleted under a lock counts as done.
        self.unlock_all(pool)?;
        self.db.execute("DELETE FROM tokens WHERE pool = (SELECT id FROM pools WHERE name = ?1)", [pool])?;
        Ok(())
    }

    /// Moves these tokens, or all, with leases and locks. The number of those that were there.
    pub(super) fn move_tokens(&self, from: &str, to: &str, ids: &[i64]) -> Result<usize> {
        let to = self.pool_id(to)?;
        if ids.is_empty() {
            let all = "UPDATE tokens SET pool = ?2 WHERE pool = (SELECT id FROM pools WHERE name = ?1)";
            return Ok(self.db.execute(all, (from, to))?);
        }
        let mut one = self.db.prepare_cached(
            "UPDATE tokens SET pool = ?2 WHERE id = ?3 AND pool = (SELECT id FROM pools WHERE name = ?1)",
        )?;
        let mut moved = 0;
        for id in ids {
            moved += one.execute((from, to, id))?;
        }
        Ok(moved)
    }

    /// How many tokens and how many live locks a pool has.
    pub(super) fn counts(&self, pool: &str) -> Result<(i64, i64)> {
        let mut count = self.db.prepare_cached(
            "SELECT (SELECT count(*) FROM tokens WHERE pool = p.id),
                    (SELECT count(*) FROM tokens WHERE pool = p.id AND lock_until > 0 AND lock_until > :now)
             FROM pools AS p WHERE name = :pool",
        )?;
        let counts =
            count.query_row(named_params! { ":pool": pool, ":now": self.now }, |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(counts.optional()?.unwrap_or((0, 0)))
    }

    /// What is in all pools together, and in the `limit` largest.
    pub(super) fn census(&self, limit: usize) -> Result<Census> {
        let mut query = self.db.prepare_cached(
            "SELECT name, ifnull(tokens, 0), ifnull(locks, 0) FROM pools LEFT JOIN
                (SELECT pool, count(*) AS tokens, sum(lock_until > ?1) AS locks FROM tokens GROUP BY pool)
             ON pool = pools.id ORDER BY 2 DESC, name",
        )?;
        let mut rows = query.query([self.now])?;
        let mut census = Census::default();
        while let Some(row) = rows.next()? {
            let (tokens, locks) = (row.get(1)?, row.get(2)?);
            census.pools += 1;
            census.tokens += tokens;
            census.locks += locks;
            if census.largest.len() < limit {
                census.largest.push((row.get(0)?, tokens, locks));
            }
        }
        Ok(census)
    }

    /// Free tokens of a pool whose name is looked for: those leased least first, at most `limit`.
    pub(super) fn free_named(&self, pool: &str, search: &Search, limit: usize) -> Result<Vec<i64>> {
        let mut query = self.db.prepare_cached(
            "SELECT id, name FROM tokens WHERE pool = (SELECT id FROM pools WHERE name = ?1) AND lock_until <= ?2
             AND name IS NOT NULL ORDER BY leases, lock_until, id",
        )?;
        let mut rows = query.query((pool, self.now))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()?
            && found.len() < limit
        {
            if search.finds(&row.get::<_, String>(1)?) {
                found.push(row.get(0)?);
            }
        }
        Ok(found)
    }

    /// Hands out the first of these tokens that is still free and in the pool. The pool's level stays as it is:
    /// it is for those who take any token.
    pub(super) fn claim_one(&self, pool: &str, candidates: &[i64], wish: Option<&Wish>) -> Result<Option<Claim>> {
        let mut free = self.db.prepare_cached(
            "SELECT 1 FROM tokens WHERE id = ?1 AND lock_until <= ?3
             AND pool = (SELECT id FROM pools WHERE name = ?2)",
        )?;
        for token in candidates {
            if free.exists((token, pool, self.now))? {
                return self.lease(*token, wish).map(Some);
            }
        }
        Ok(None)
    }

    /// Calls `each` with every token of a pool, oldest first.
    pub(super) fn each_token(&self, pool: &str, mut each: impl FnMut(Token)) -> Result<()> {
        let mut query = self.db.prepare_cached(
            "SELECT * FROM tokens WHERE pool = (SELECT id FROM pools WHERE name = :pool) ORDER BY id",
        )?;
        let mut rows = query.query(named_params! { ":pool": pool })?;
        while let Some(row) = rows.next()? {
            each(self.read(row)?);
        }
        Ok(())
    }

    pub(super) fn read(&self, row: &Row<'_>) -> rusqlite::Result<Token> {
        let until: i64 = row.get("lock_until")?;
        let uuid: Option<String> = row.get("lock_uuid")?;
        let description = row.get::<_, Option<String>>("lock_description")?.unwrap_or_default();
        Ok(Token {
            id: row.get("id")?,
            name: row.get("name")?,
            kind: row.get("type")?,
            length: row.get("length")?,
            created: row.get("created")?,
            leases: row.get("leases")?,
            lock: uuid.filter(|_| until > self.now).map(|uuid| Lock { uuid, left: until - self.now - 1, description }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        db
    }

    fn lock(seconds: i64) -> Wish {
        Wish { seconds, description: "vm1".to_owned() }
    }

    fn claimed(pools: &Pools<'_>, wish: Option<&Wish>) -> Option<i64> {
        pools.claim("p", wish).unwrap().map(|claim| claim.token)
    }

    #[test]
    fn a_locked_token_comes_back_when_its_time_is_over() {
        let db = database();
        let at = |now| Pools { db: &db, now };
        at(1000).add("p", "text/plain", ["a", "b"]).unwrap();
        assert_eq!(claimed(&at(1000), Some(&lock(10))), Some(1));
        assert_eq!(claimed(&at(1000), Some(&lock(20))), Some(2));
        assert_eq!(claimed(&at(1010), Some(&lock(10))), None, "claimed at 1000.9 it has 100 ms left at 1010.8");
        assert_eq!(at(1009).token("p", 1).unwrap().unwrap().0.lock.unwrap().left, 1);
        assert_eq!(at(1011).token("p", 1).unwrap().unwrap().0.lock, None);
        assert_eq!(claimed(&at(1011), Some(&lock(10))), Some(1));
        assert_eq!(claimed(&at(1011), Some(&lock(10))), None);
    }

    #[test]
    fn tokens_added_on_the_second_round_wait_for_its_end() {
        let db = database();
        let pools = Pools { db: &db, now: 1000 };
        pools.add("p", "text/plain", ["a", "b"]).unwrap();
        assert_eq!([claimed(&pools, None), claimed(&pools, None)], [Some(1), Some(2)]);
        assert_eq!(claimed(&pools, None), Some(1), "an unlocked lease hides nothing");
        pools.add("p", "text/plain", ["c"]).unwrap();
        assert_eq!(claimed(&pools, None), Some(2), "level 1 is not used up");
        assert_eq!(claimed(&pools, None), Some(3), "now the lowest level is 0");
        assert_eq!(claimed(&pools, None), Some(3), "and then 1, where only the new one is");
        assert_eq!(claimed(&pools, None), Some(1));
    }

    #[test]
    fn put_and_delete_are_one_step() {
        let db = database();
        let pools = Pools { db: &db, now: 1000 };
        pools.add("p", "text/plain", ["a"]).unwrap();
        pools.add("q", "text/plain", ["b"]).unwrap();
        let new = New { name: Some("../n"), kind: "text/x", value: b"c" };
        assert_eq!(pools.put("p", &new, Some(2)).unwrap(), None, "token 2 is in another pool");
        assert_eq!(pools.counts("p").unwrap(), (1, 0));
        assert_eq!(pools.put("p", &new, Some(1)).unwrap(), Some(3));
        assert_eq!(pools.counts("p").unwrap(), (1, 0));
        let (token, value) = pools.token("p", 3).unwrap().unwrap();
        assert_eq!((token.name.as_deref(), token.kind.as_str(), token.length), (Some("../n"), "text/x", 1));
        assert_eq!(value, b"c");
        assert_eq!(pools.token("q", 3).unwrap(), None);
    }

    #[test]
    fn numbers_of_deleted_tokens_never_come_back() {
        let db = database();
        let pools = Pools { db: &db, now: 1000 };
        pools.add("p", "text/plain", ["a", "b"]).unwrap();
        pools.clear("p").unwrap();
        pools.add("p", "text/plain", ["c"]).unwrap();
        assert_eq!(claimed(&pools, None), Some(3));
        let orphans: i64 = db.query_row("SELECT count(*) FROM contents", [], |row| row.get(0)).unwrap();
        assert_eq!(orphans, 1, "values go with their tokens");
    }

    #[test]
    fn a_move_keeps_leases_and_locks() {
        let db = database();
        let pools = Pools { db: &db, now: 1000 };
        pools.add("p", "text/plain", ["a", "b", "c"]).unwrap();
        let claim = pools.claim("p", Some(&lock(10))).unwrap().unwrap();
        assert_eq!(pools.move_tokens("p", "q", &[claim.token, 99]).unwrap(), 1);
        assert_eq!((pools.counts("p").unwrap(), pools.counts("q").unwrap()), ((2, 0), (1, 1)));
        let token = pools.token("q", claim.token).unwrap().unwrap().0;
        assert_eq!((token.leases, token.lock.map(|lock| lock.uuid)), (1, claim.lock));
        assert_eq!(pools.move_tokens("p", "q", &[]).unwrap(), 2);
        assert_eq!(pools.counts("p").unwrap(), (0, 0));
    }

    #[test]
    fn a_token_is_claimed_by_name() {
        let db = database();
        let pools = Pools { db: &db, now: 1000 };
        for name in [None, Some("run one"), Some("run two"), Some("run two")] {
            pools.put("p", &New { name, kind: "text/plain", value: b"" }, None).unwrap();
        }
        let two = Search::words("two");
        assert_eq!(pools.free_named("p", &two, 100).unwrap(), [3, 4]);
        assert_eq!(pools.free_named("p", &two, 1).unwrap(), [3]);
        assert_eq!(pools.free_named("q", &two, 100).unwrap(), [] as [i64; 0]);
        let claim = |candidates| pools.claim_one("p", candidates, Some(&lock(10))).unwrap().map(|claim| claim.token);
        assert_eq!(claim(&[3, 4]), Some(3));
        assert_eq!(claim(&[3, 4]), Some(4), "the first was taken since it was found");
        assert_eq!(claim(&[3, 4]), None);
        assert_eq!(pools.claim_one("q", &[2], None).unwrap(), None);
        assert_eq!(pools.free_named("p", &two, 100).unwrap(), [] as [i64; 0]);
    }

    #[test]
    fn a_census_counts_all_and_names_the_largest() {
        let db = database();
        let at = |now| Pools { db: &db, now };
        at(1000).add("p", "text/plain", ["a", "b"]).unwrap();
        at(1000).add("q", "text/plain", ["a"]).unwrap();
        at(1000).add("r", "text/plain", ["a"]).unwrap();
        at(1000).clear("r").unwrap();
        at(1000).claim("p", Some(&lock(10))).unwrap();
        let census = at(1005).census(2).unwrap();
        let largest = vec![("p".to_owned(), 2, 1), ("q".to_owned(), 1, 0)];
        assert_eq!(census, Census { pools: 3, tokens: 3, locks: 1, largest });
        assert_eq!(at(1011).census(0).unwrap(), Census { pools: 3, tokens: 3, locks: 0, largest: Vec::new() });
    }

    /// What makes a claim flat in the number of tokens: no scan, no sort.
    #[test]
    fn a_claim_only_searches_indexes() {
        let db = database();
        for sql in [FREE_AT, NEXT_LEVEL] {
            let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = rusqlite::params_from_iter(std::iter::repeat_n(1, explain.parameter_count()));
            let plan: Vec<String> =
                explain.query_map(parameters, |row| row.get("detail")).unwrap().map(|line| line.unwrap()).collect();
            assert_eq!(plan.len(), 1, "{plan:?}");
            assert!(plan[0].starts_with("SEARCH tokens USING COVERING INDEX free (pool=? AND leases"), "{plan:?}");
        }
    }
}
