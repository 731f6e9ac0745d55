//! Locks in the database: leases on tokens that end by themselves.
//!
//! Nothing happens when one expires. Its UUID stays with the token until the next lock replaces it, which is
//! why an expired lock can still be deleted, but not renewed.

use rusqlite::OptionalExtension;

use super::pools::{Pools, Result, Token};

/// For [`Pools::each_locked_as`]. Made in any database that has none yet: it is an addition, which older programs keep up.
/// It does not name `lock_until`, so a renewal leaves it alone.
pub(super) const HOLDERS: &str = "CREATE INDEX IF NOT EXISTS holders ON tokens (pool, lock_description)
    WHERE lock_description IS NOT NULL";

/// Live locks whose descriptions lie in a range. The `+` keep SQLite off the index of `lock_until`, which would have it
/// read all locks of the pool.
const HELD_AS: &str = "SELECT * FROM tokens WHERE pool = (SELECT id FROM pools WHERE name = ?1)
    AND lock_description >= ?2 AND lock_description < ?3 AND +lock_until > ?4 ORDER BY +lock_until";

impl Pools<'_> {
    /// The token and pool of a live lock; the token's `lock` is set.
    pub(super) fn locked(&self, uuid: &str) -> Result<Option<(String, Token)>> {
        let mut query = self.db.prepare_cached(
            "SELECT tokens.*, pools.name AS pool_name FROM tokens JOIN pools ON pools.id = pool
             WHERE lock_uuid = ?1 AND lock_until > ?2",
        )?;
        Ok(query.query_row((uuid, self.now), |row| Ok((row.get("pool_name")?, self.read(row)?))).optional()?)
    }

    /// Lets a live lock end `seconds` from now, which may be sooner than before. Whether it lives.
    pub(super) fn renew(&self, uuid: &str, seconds: i64, description: Option<&str>) -> Result<bool> {
        let mut update =
            self.db.prepare_cached("UPDATE tokens SET lock_until = ?2 WHERE lock_uuid = ?1 AND lock_until > ?3")?;
        let renewed = update.execute((uuid, self.until(seconds), self.now))? > 0;
        // By itself, as most renewals have none: SQLite rewrites the index of a column that is named, changed or not.
        if let Some(description) = description.filter(|_| renewed) {
            let mut describe =
                self.db.prepare_cached("UPDATE tokens SET lock_description = ?2 WHERE lock_uuid = ?1")?;
            describe.execute((uuid, description))?;
        }
        Ok(renewed)
    }

    /// Frees a token at once. Whether there was such a lock, expired or not.
    pub(super) fn unlock(&self, uuid: &str) -> Result<bool> {
        let mut update = self.db.prepare_cached(
            "UPDATE tokens SET lock_until = 0, lock_uuid = NULL, lock_description = NULL WHERE lock_uuid = ?1",
        )?;
        Ok(update.execute([uuid])? > 0)
    }

    /// Frees all tokens of a pool.
    pub(super) fn unlock_all(&self, pool: &str) -> Result<()> {
        self.db.execute(
            "UPDATE tokens SET lock_until = 0, lock_uuid = NULL, lock_description = NULL
             WHERE lock_until > 0 AND pool = (SELECT id FROM pools WHERE name = ?1)",
            [pool],
        )?;
        Ok(())
    }

    /// Calls `each` with every locked token of a pool, the lock that ends first first.
    pub(super) fn each_locked(&self, pool: &str, mut each: impl FnMut(Token)) -> Result<()> {
        // "lock_until > 0" looks idle, but without it SQLite may not use the index of that condition.
        let mut query = self.db.prepare_cached(
            "SELECT * FROM tokens WHERE pool = (SELECT id FROM pools WHERE name = ?1)
             AND lock_until > 0 AND lock_until > ?2 ORDER BY lock_until",
        )?;
        let mut rows = query.query((pool, self.now))?;
        while let Some(row) = rows.next()? {
            each(self.read(row)?);
        }
        Ok(())
    }

    /// The same for those alone whose lock's description begins with `prefix`.
    pub(super) fn each_locked_as(&self, pool: &str, prefix: &str, mut each: impl FnMut(Token)) -> Result<()> {
        let mut query = self.db.prepare_cached(HELD_AS)?;
        // Nothing sorts behind it that begins alike: no text has this character, which Unicode keeps free.
        let end = format!("{prefix}\u{10ffff}");
        let mut rows = query.query((pool, prefix, end, self.now))?;
        while let Some(row) = rows.next()? {
            each(self.read(row)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::pools::{SCHEMA, Wish};
    use super::*;

    /// A database with one token, locked at second 1000 for ten seconds.
    fn locked() -> (Connection, String) {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        let pools = Pools { db: &db, now: 1000 };
        pools.add("p", "text/plain", ["a"]).unwrap();
        let wish = Wish { seconds: 10, description: "vm1".to_owned() };
        let uuid = pools.claim("p", Some(&wish)).unwrap().unwrap().lock.unwrap();
        (db, uuid)
    }

    fn live(pools: &Pools<'_>) -> Vec<(i64, String)> {
        let mut live = Vec::new();
        pools.each_locked("p", |token| live.extend(token.lock.map(|lock| (lock.left, lock.description)))).unwrap();
        live
    }

    #[test]
    fn a_live_lock_is_renewed_and_an_expired_one_is_not() {
        let (db, uuid) = locked();
        let at = |now| Pools { db: &db, now };
        assert!(at(1010).renew(&uuid, 10, None).unwrap());
        assert_eq!(live(&at(1011)), [(9, "vm1".to_owned())]);
        assert!(at(1011).renew(&uuid, 5, Some("vm2")).unwrap(), "a renewal may shorten");
        assert_eq!(live(&at(1011)), [(5, "vm2".to_owned())]);
        assert!(!at(1017).renew(&uuid, 10, None).unwrap());
        assert_eq!(at(1017).locked(&uuid).unwrap(), None);
        assert_eq!(live(&at(1017)), []);
    }

    #[test]
    fn an_expired_lock_can_be_deleted_until_the_token_is_locked_again() {
        let (db, uuid) = locked();
        let pools = Pools { db: &db, now: 2000 };
        let wish = Wish { seconds: 10, description: String::new() };
        let second = pools.claim("p", Some(&wish)).unwrap().unwrap().lock.unwrap();
        assert!(!pools.unlock(&uuid).unwrap(), "replaced by the second");
        assert!(Pools { db: &db, now: 3000 }.unlock(&second).unwrap());
        assert!(!pools.unlock(&second).unwrap());
    }

    #[test]
    fn live_locks_are_found_by_how_their_descriptions_begin() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        db.execute_batch(HOLDERS).unwrap();
        let pools = Pools { db: &db, now: 1000 };
        let all = ["h/v/b0/0", "h/v/b1/0", "h/v2/b0/0", "h/v/é", "h/v%", "", "H/v/b0/0"];
        pools.add("p", "text/plain", all).unwrap();
        pools.add("q", "text/plain", ["other pool"]).unwrap();
        for (n, description) in all.into_iter().enumerate() {
            let wish = Wish { seconds: 100 - n as i64, description: description.to_owned() };
            pools.claim("p", Some(&wish)).unwrap().unwrap();
        }
        pools.claim("q", Some(&Wish { seconds: 10, description: "h/v/q".to_owned() })).unwrap().unwrap();
        let found = |now, prefix: &str| {
            let mut found = Vec::new();
            let each = |token: Token| found.extend(token.lock.map(|lock| lock.description));
            Pools { db: &db, now }.each_locked_as("p", prefix, each).unwrap();
            found
        };
        assert_eq!(found(1000, "h/v/"), ["h/v/é", "h/v/b1/0", "h/v/b0/0"], "the first to end first");
        assert_eq!(found(1000, "h/v/b1/0"), ["h/v/b1/0"]);
        assert_eq!(found(1000, "h/v%"), ["h/v%"]);
        assert_eq!(found(1000, "h/v/b2"), [""; 0]);
        assert_eq!(found(1000, "").len(), all.len());
        assert_eq!(found(1099, "h/v/"), ["h/v/b1/0", "h/v/b0/0"], "the third has run out");
    }

    #[test]
    fn a_machines_locks_are_found_without_a_look_at_all_others() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        db.execute_batch(HOLDERS).unwrap();
        let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {HELD_AS}")).unwrap();
        let plan = explain.query_map(("p", "a", "b", 1000), |row| row.get("detail")).unwrap();
        let plan: Vec<String> = plan.map(|line| line.unwrap()).collect();
        let search = "SEARCH tokens USING INDEX holders (pool=? AND lock_description>? AND lock_description<?)";
        assert!(plan.iter().any(|line| line == search), "{plan:?}");
    }

    #[test]
    fn a_lock_dies_with_its_token() {
        let (db, uuid) = locked();
        let pools = Pools { db: &db, now: 1001 };
        assert_eq!(pools.locked(&uuid).unwrap().unwrap().0, "p");
        assert!(pools.delete("p", 1).unwrap());
        assert_eq!(pools.locked(&uuid).unwrap(), None);
        assert!(!pools.renew(&uuid, 10, None).unwrap());
        assert!(!pools.unlock(&uuid).unwrap());
    }

    #[test]
    fn all_locks_of_one_pool_are_freed() {
        let (db, uuid) = locked();
        let pools = Pools { db: &db, now: 1001 };
        pools.unlock_all("q").unwrap();
        assert!(pools.locked(&uuid).unwrap().is_some());
        pools.unlock_all("p").unwrap();
        assert_eq!(pools.locked(&uuid).unwrap(), None);
        assert!(pools.claim("p", None).unwrap().is_some());
    }
}
