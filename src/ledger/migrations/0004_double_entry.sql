-- Entries stand against the operator's sides, and are chained: each has the SHA-256 of itself and of the link
-- before it. The rows of `old_entries` are carried over by the program, which computes them.

DROP INDEX entries_by_account;
DROP INDEX entries_once;
ALTER TABLE entries RENAME TO old_entries;

-- The link of an account's last entry.
ALTER TABLE accounts ADD COLUMN link BLOB NOT NULL DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000';

-- Append-only, numbered without a gap.
CREATE TABLE entries (
    id            INTEGER PRIMARY KEY,
    at            INTEGER NOT NULL,
    account       INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    amount        INTEGER NOT NULL,
    balance_after INTEGER NOT NULL,
    route         INTEGER,
    requests      INTEGER NOT NULL,
    reference     TEXT,
    actor         TEXT    NOT NULL,
    link          BLOB    NOT NULL
) STRICT;

CREATE INDEX entries_by_account ON entries (account, id);
CREATE UNIQUE INDEX entries_once ON entries (account, kind, reference) WHERE reference IS NOT NULL;

-- What accounts got or paid, the other way round, in millionths: text, since it may outgrow 64 bits.
CREATE TABLE sides (
    name    TEXT PRIMARY KEY,
    balance TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO sides VALUES ('granted', '0'), ('adjusted', '0'), ('earned', '0');
