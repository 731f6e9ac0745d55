//! Locks in the database: leases on tokens that end by themselves.
//!
//! Nothing happens when one expires. Its UUID stays with the token until the next lock replaces it, which is
//! why an expired lock can still be deleted, but not renewed.

use rusqlite::{OptionalExtension, named_params};

use super::pools::{Pools, Result, Token};

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
        let mut update = self.db.prepare_cached(
            "UPDATE tokens SET lock_until = :until, lock_description = ifnull(:description, lock_description)
             WHERE lock_uuid = :uuid AND lock_until > :now",
        )?;
        let renewed = update.execute(named_params! {
            ":uuid": uuid,
            ":until": self.until(seconds),
            ":description": description,
            ":now": self.now,
        })?;
        Ok(renewed > 0)
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
