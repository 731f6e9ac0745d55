-- What became of a pool's tokens, for its page. Triggers count, so that no request that changes tokens has to know, and
-- a count is in the same commit as what it counts. A claim changes nothing that is counted: it costs nothing here.
CREATE TABLE tallies (
    pool INTEGER PRIMARY KEY REFERENCES pools,
    -- Came into the pool, moved ones included.
    added INTEGER NOT NULL DEFAULT 0,
    -- Deleted under a live lock: that is how a client says that it has done one.
    done INTEGER NOT NULL DEFAULT 0,
    -- Deleted without one, drained, or moved to another pool.
    gone INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Of the last hours, by Unix minute.
CREATE TABLE minutes (
    pool INTEGER NOT NULL REFERENCES pools,
    minute INTEGER NOT NULL,
    done INTEGER NOT NULL,
    PRIMARY KEY (pool, minute)
) STRICT, WITHOUT ROWID;
-- Lets a page of a hundred tokens cost the same in a pool of a million.
CREATE INDEX listed ON tokens (pool, id);

CREATE TRIGGER tally_added AFTER INSERT ON tokens BEGIN
    INSERT INTO tallies (pool, added) VALUES (new.pool, 1) ON CONFLICT DO UPDATE SET added = added + 1;
END;
CREATE TRIGGER tally_done AFTER DELETE ON tokens
    WHEN old.lock_until > unixepoch() AND old.lock_description IS NOT 'ctxtool pool drain'
BEGIN
    UPDATE tallies SET done = done + 1 WHERE pool = old.pool;
    INSERT INTO minutes (pool, minute, done) VALUES (old.pool, unixepoch() / 60, 1)
        ON CONFLICT DO UPDATE SET done = done + 1;
END;
CREATE TRIGGER tally_gone AFTER DELETE ON tokens
    WHEN old.lock_until <= unixepoch() OR old.lock_description IS 'ctxtool pool drain'
BEGIN
    UPDATE tallies SET gone = gone + 1 WHERE pool = old.pool;
END;
CREATE TRIGGER tally_moved AFTER UPDATE OF pool ON tokens WHEN old.pool <> new.pool BEGIN
    UPDATE tallies SET gone = gone + 1 WHERE pool = old.pool;
    INSERT INTO tallies (pool, added) VALUES (new.pool, 1) ON CONFLICT DO UPDATE SET added = added + 1;
END;
-- A new minute ends what is older than three hours.
CREATE TRIGGER forget_minutes AFTER INSERT ON minutes BEGIN
    DELETE FROM minutes WHERE pool = new.pool AND minute < new.minute - 180;
END;

-- Tokens of a database that has been used before there were tallies.
INSERT INTO tallies (pool, added) SELECT pool, count(*) FROM tokens GROUP BY pool;
