-- Entries are numbered per account, and have columns for bucket, key and outcome. The number is part of the text that a
-- link is the SHA-256 of. The program migrates the rows of `old_entries`, since it computes the links.

DROP INDEX entries_by_account;
DROP INDEX entries_once;
ALTER TABLE entries RENAME TO old_entries;

-- The number of an account's last entry.
ALTER TABLE accounts ADD COLUMN entries INTEGER NOT NULL DEFAULT 0;

-- Entries are only appended. `position` orders the entries of all accounts, and may have gaps.
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

-- The operator's accounts: what customers' accounts received or paid, with the opposite sign, in millionths. Text,
-- since a balance may exceed 64 bits.
ALTER TABLE sides RENAME TO operator_accounts;
INSERT INTO operator_accounts VALUES ('expired', '0');

-- `mark` identifies the journal files of this ledger, `folded` is the last batch that is folded, and `epoch` is a
-- number that grows at each start.
ALTER TABLE journal RENAME TO old_state;
CREATE TABLE journal (
    mark   INTEGER NOT NULL,
    folded INTEGER NOT NULL,
    epoch  INTEGER NOT NULL
) STRICT;
INSERT INTO journal SELECT mark, folded, 0 FROM old_state;

-- Holds that outlive their request have a deadline, and the upstream's id by which they are settled before it.
ALTER TABLE open_holds ADD COLUMN external_id TEXT;
ALTER TABLE open_holds ADD COLUMN deadline INTEGER;
ALTER TABLE open_holds ADD COLUMN charge_at_deadline INTEGER;
