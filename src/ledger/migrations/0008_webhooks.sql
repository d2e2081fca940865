-- Where events are sent. Account 0 is the operator. A secret that was replaced signs too until `old_until`.
CREATE TABLE endpoints (
    num       INTEGER PRIMARY KEY,
    id        TEXT    NOT NULL UNIQUE,
    account   INTEGER NOT NULL,
    url       TEXT    NOT NULL,
    events    TEXT,
    source    TEXT    NOT NULL,
    secret    TEXT    NOT NULL,
    old_secret TEXT,
    old_until INTEGER,
    disabled  TEXT,
    created   INTEGER NOT NULL,
    UNIQUE (account, url)
) STRICT;

-- Events, written in the transaction of their cause, if an endpoint wants them.
CREATE TABLE messages (
    num     INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    body    TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

-- A message on its way to an endpoint. `next_at` is null once it was delivered or given up.
CREATE TABLE deliveries (
    num       INTEGER PRIMARY KEY AUTOINCREMENT,
    message   INTEGER NOT NULL REFERENCES messages (num),
    endpoint  INTEGER NOT NULL REFERENCES endpoints (num) ON DELETE CASCADE,
    attempts  INTEGER NOT NULL DEFAULT 0,
    next_at   INTEGER,
    status    INTEGER,
    error     TEXT,
    delivered INTEGER
) STRICT;

CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_by_endpoint ON deliveries (endpoint, num);
CREATE INDEX deliveries_waiting ON deliveries (endpoint) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_by_message ON deliveries (message);

-- Events that are sent once for each object.
CREATE TABLE notices (
    kind   TEXT    NOT NULL,
    object TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (kind, object)
) STRICT, WITHOUT ROWID;

-- Balances at which `credits.low` is sent when they are crossed: millionths, as JSON.
ALTER TABLE accounts ADD COLUMN credits_low TEXT;
-- 1 from `credits.exhausted` until credits are added.
ALTER TABLE accounts ADD COLUMN exhausted INTEGER NOT NULL DEFAULT 0;
