-- Times are milliseconds since the Unix epoch, amounts millionths of a credit.

CREATE TABLE accounts (
    num     INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL UNIQUE,
    balance INTEGER NOT NULL DEFAULT 0,
    plan    TEXT,
    state   TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
    source  TEXT    NOT NULL CHECK (source IN ('file', 'store')),
    opening INTEGER,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE keys (
    num         INTEGER PRIMARY KEY,
    id          INTEGER NOT NULL UNIQUE,
    account     INTEGER NOT NULL REFERENCES accounts (num),
    source      TEXT    NOT NULL CHECK (source IN ('file', 'store')),
    state       TEXT    NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'revoked')),
    label       TEXT    NOT NULL,
    environment TEXT    NOT NULL DEFAULT '',
    hint        TEXT    NOT NULL DEFAULT '',
    scopes      TEXT,
    allow_from  TEXT,
    expires     INTEGER,
    created     INTEGER NOT NULL
) STRICT;

CREATE INDEX keys_by_account ON keys (account);

-- The hashes of keys that were created by command. Hashes of keys in the configuration file are not stored.
CREATE TABLE secrets (
    hash  BLOB    PRIMARY KEY,
    key   INTEGER NOT NULL REFERENCES keys (num),
    until INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX secrets_by_key ON secrets (key);

CREATE TABLE routes (
    num  INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

-- Entries are only appended.
CREATE TABLE entries (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    at            INTEGER NOT NULL,
    account       INTEGER NOT NULL REFERENCES accounts (num),
    kind          TEXT    NOT NULL CHECK (kind IN ('grant', 'adjustment', 'charge', 'in_doubt', 'given_back')),
    amount        INTEGER NOT NULL,
    balance_after INTEGER NOT NULL,
    route         INTEGER REFERENCES routes (num),
    requests      INTEGER NOT NULL DEFAULT 0,
    reference     TEXT,
    actor         TEXT    NOT NULL
) STRICT;

CREATE INDEX entries_by_account ON entries (account, id);
CREATE UNIQUE INDEX entries_once ON entries (account, kind, reference) WHERE reference IS NOT NULL;

-- Records since the last fold: one row per commit.
CREATE TABLE journal (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    records BLOB    NOT NULL
) STRICT;

-- Holds that were open at the last fold.
CREATE TABLE open_holds (
    id      BLOB    PRIMARY KEY,
    account INTEGER NOT NULL,
    key     INTEGER NOT NULL,
    route   INTEGER NOT NULL,
    amount  INTEGER NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Holds that a crash left open: charged in full, and returned by command at most once.
CREATE TABLE in_doubt (
    id         BLOB    PRIMARY KEY,
    account    INTEGER NOT NULL REFERENCES accounts (num),
    key        INTEGER NOT NULL,
    route      INTEGER NOT NULL,
    amount     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    given_back INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE limits (
    owner BLOB    PRIMARY KEY,
    state BLOB    NOT NULL,
    saved INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
