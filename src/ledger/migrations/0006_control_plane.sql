-- Accounts have a name, and can be closed. `version` grows with each change by the control plane.
ALTER TABLE accounts ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN closed INTEGER;
ALTER TABLE accounts ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- Limits of a key's own, as JSON.
ALTER TABLE keys ADD COLUMN limits TEXT;
ALTER TABLE keys ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- Tokens of the admin API.
CREATE TABLE tokens (
    name      TEXT    PRIMARY KEY,
    hash      BLOB    NOT NULL UNIQUE,
    role      TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER,
    last_used INTEGER,
    revoked   INTEGER
) STRICT, WITHOUT ROWID;

-- Who changed what. Only appended.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    origin TEXT    NOT NULL,
    action TEXT    NOT NULL,
    object TEXT    NOT NULL,
    before TEXT,
    after  TEXT
) STRICT;

CREATE INDEX audit_by_object ON audit (object, number);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'audit entries are only appended'); END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'audit entries are only appended'); END;

-- Answers to requests with an Idempotency-Key, encrypted.
CREATE TABLE answers (
    id      BLOB    PRIMARY KEY,
    request BLOB    NOT NULL,
    answer  BLOB    NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX answers_by_time ON answers (at);
