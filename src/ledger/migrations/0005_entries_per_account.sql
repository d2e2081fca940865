-- Entries are numbered per account, and say their bucket, key and outcome. The number is in the text that a link is the
-- SHA-256 of. The rows of `old_entries` are moved by the program, which computes the links.

DROP INDEX entries_by_account;
DROP INDEX entries_once;
ALTER TABLE entries RENAME TO old_entries;

-- The number of an account's last entry.
ALTER TABLE accounts ADD COLUMN entries INTEGER NOT NULL DEFAULT 0;

-- Append-only. `position` orders the entries of all accounts, and may have gaps.
CREATE TABLE entries (
    position      INTEGER PRIMARY KEY,
    account       INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    amount        INTEGER NOT NULL,
    balance_after INTEGER NOT NULL,
    bucket        TEXT,
    key           INTEGER,
    route         INTEGER,
    outcome       TEXT,
    requests      INTEGER NOT NULL,
    reference     TEXT,
    actor         TEXT    NOT NULL,
    link          BLOB    NOT NULL
) STRICT;

CREATE UNIQUE INDEX entries_by_account ON entries (account, number);
CREATE UNIQUE INDEX entries_once ON entries (account, kind, reference) WHERE reference IS NOT NULL;

-- The operator's accounts: what customers' accounts got or paid, with the opposite sign, in millionths. Text, since it
-- may outgrow 64 bits.
ALTER TABLE sides RENAME TO operator_accounts;

-- What the journal's files belong to, up to which batch they are folded, and a number that grows at each start.
ALTER TABLE journal RENAME TO old_state;
CREATE TABLE journal (
    mark   INTEGER NOT NULL,
    folded INTEGER NOT NULL,
    epoch  INTEGER NOT NULL
) STRICT;
INSERT INTO journal SELECT mark, folded, 0 FROM old_state;

-- Holds that outlive their request say until when, and by which id of the upstream's they are settled.
ALTER TABLE open_holds ADD COLUMN external_id TEXT;
ALTER TABLE open_holds ADD COLUMN deadline INTEGER;
ALTER TABLE open_holds ADD COLUMN charge_at_deadline INTEGER;
