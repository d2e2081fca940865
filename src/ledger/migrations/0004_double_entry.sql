-- Entries are booked against the operator's accounts, and are chained: each contains the SHA-256 of itself and of the
-- previous link. The program migrates the rows of `old_entries`, since it computes the links.

DROP INDEX entries_by_account;
DROP INDEX entries_once;
ALTER TABLE entries RENAME TO old_entries;

-- The link of an account's last entry.
ALTER TABLE accounts ADD COLUMN link BLOB NOT NULL DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000';

-- Entries are only appended, and numbered without a gap.
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

-- The balances of the operator's accounts: what customers' accounts received or paid, with the opposite sign, in
-- millionths. Text, since a balance may exceed 64 bits.
CREATE TABLE sides (
    name    TEXT PRIMARY KEY,
    balance TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO sides VALUES ('granted', '0'), ('adjusted', '0'), ('earned', '0');
