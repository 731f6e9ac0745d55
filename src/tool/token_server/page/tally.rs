//! The counters behind the page: how they come into the database.

use rusqlite::Connection;

/// Made in any database that has none yet: they are additions, which older programs do not see.
const TALLY: &str = include_str!("tally.sql");

/// Adds the counters where they are missing; part of the caller's transaction if there is one.
pub(in super::super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    let there = db.prepare("SELECT 1 FROM sqlite_master WHERE name = 'tallies'")?.exists([])?;
    if there { Ok(()) } else { db.execute_batch(&format!("BEGIN; {TALLY} COMMIT;")) }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::super::super::pools::{Pools, SCHEMA, Wish};
    use super::*;
    use crate::tool::pool::DRAIN;

    /// Added, done, gone.
    fn tally(db: &Connection, pool: &str) -> (i64, i64, i64) {
        let sql = "SELECT added, done, gone FROM tallies WHERE pool = (SELECT id FROM pools WHERE name = ?1)";
        db.query_row(sql, [pool], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    }

    /// The triggers go by the real clock.
    fn now() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
    }

    fn locked(pools: &Pools<'_>, description: &str) -> i64 {
        let wish = Wish { seconds: 60, description: description.to_owned() };
        pools.claim("p", Some(&wish)).unwrap().unwrap().token
    }

    #[test]
    fn what_becomes_of_tokens_is_counted() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        prepare(&db).unwrap();
        let pools = Pools { db: &db, now: now() };
        pools.add("p", "text/plain", ["a", "b", "c", "d", "e", "f"]).unwrap();
        assert_eq!(tally(&db, "p"), (6, 0, 0));
        assert!(pools.delete("p", locked(&pools, "vm1")).unwrap());
        assert_eq!(tally(&db, "p"), (6, 1, 0));
        assert!(pools.delete("p", locked(&pools, DRAIN)).unwrap());
        assert_eq!(tally(&db, "p"), (6, 1, 1), "a drained token is not done");
        pools.move_tokens("p", "p.failed", &[locked(&pools, "vm1")]).unwrap();
        assert_eq!((tally(&db, "p"), tally(&db, "p.failed")), ((6, 1, 2), (1, 0, 0)));
        assert!(pools.delete("p", 4).unwrap(), "nobody has it");
        assert_eq!(tally(&db, "p"), (6, 1, 3));
        locked(&pools, "vm1");
        pools.clear("p").unwrap();
        assert_eq!(tally(&db, "p"), (6, 1, 5), "an emptied pool was not worked on");
        let minutes: i64 = db.query_row("SELECT sum(done) FROM minutes", [], |row| row.get(0)).unwrap();
        assert_eq!(minutes, 1);
    }

    #[test]
    fn a_used_database_begins_with_what_is_there() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        let pools = Pools { db: &db, now: now() };
        pools.add("p", "text/plain", ["a", "b"]).unwrap();
        prepare(&db).unwrap();
        assert_eq!(tally(&db, "p"), (2, 0, 0));
        pools.add("p", "text/plain", ["c"]).unwrap();
        prepare(&db).unwrap();
        assert_eq!(tally(&db, "p"), (3, 0, 0));
    }

    #[test]
    fn old_minutes_are_forgotten() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA).unwrap();
        prepare(&db).unwrap();
        db.execute_batch(
            "INSERT INTO pools (name) VALUES ('p'), ('q');
             INSERT INTO minutes VALUES (1, 1000, 5), (2, 1000, 5), (1, 1180, 1), (1, 1181, 1);",
        )
        .unwrap();
        let mut query = db.prepare("SELECT pool, minute FROM minutes").unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let left: Vec<(i64, i64)> = rows.map(|row| row.unwrap()).collect();
        assert_eq!(left, [(1, 1180), (1, 1181), (2, 1000)]);
    }
}
