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
    reversals TEXT    NOT NULL,
    taken     INTEGER NOT NULL,
    steps     INTEGER NOT NULL,
    told      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX payments_by_account ON payments (account, told) WHERE account IS NOT NULL;
