-- What customers paid by a payment service, and what of it is asked back. The account is NULL of a payment of which only a
-- dispute is known so far.
CREATE TABLE payments (
    id        TEXT    PRIMARY KEY,
    account   INTEGER,
    package   TEXT,
    credits   INTEGER,
    price     INTEGER,
    currency  TEXT,
    granted   INTEGER,
    bucket    TEXT,
    expires   INTEGER,
    reversals TEXT    NOT NULL,
    taken     INTEGER NOT NULL,
    missing   INTEGER NOT NULL,
    steps     INTEGER NOT NULL,
    told      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX payments_by_account ON payments (account, told);
CREATE INDEX payments_missing ON payments (told) WHERE missing > 0;

-- The id of this seller. Payments are told to all sellers that have the same account of a payment service.
CREATE TABLE seller (id TEXT NOT NULL) STRICT;
INSERT INTO seller VALUES (lower(hex(randomblob(8))));

-- How accounts pay: as JSON, and what automatic top-ups are found by.
CREATE TABLE payers (
    account  INTEGER PRIMARY KEY,
    payer    TEXT    NOT NULL,
    below    INTEGER,
    is_begun INTEGER NOT NULL,
    wait     INTEGER NOT NULL
) STRICT;
CREATE INDEX payers_topped_up ON payers (wait) WHERE below IS NOT NULL OR is_begun;
