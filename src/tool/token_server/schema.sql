CREATE TABLE pools (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    min_leases INTEGER NOT NULL DEFAULT 0
) STRICT;
-- AUTOINCREMENT: the number of a deleted token never comes back, so an old URL never means a new token.
CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool INTEGER NOT NULL REFERENCES pools,
    name TEXT,
    type TEXT NOT NULL,
    length INTEGER NOT NULL,
    created INTEGER NOT NULL,
    leases INTEGER NOT NULL DEFAULT 0,
    lock_until INTEGER NOT NULL DEFAULT 0,
    lock_uuid TEXT,
    lock_description TEXT
) STRICT;
-- Apart from the rest, because SQLite writes a changed row anew whole: a claim must not copy the value.
CREATE TABLE contents (
    token INTEGER PRIMARY KEY REFERENCES tokens ON DELETE CASCADE,
    value BLOB NOT NULL
) STRICT;
CREATE INDEX free ON tokens (pool, leases, lock_until);
CREATE INDEX locked ON tokens (pool, lock_until) WHERE lock_until > 0;
CREATE UNIQUE INDEX locks ON tokens (lock_uuid) WHERE lock_uuid IS NOT NULL;
