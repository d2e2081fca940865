-- People who use the dashboard. An operator has a role; customers are members of accounts. A password is an argon2id
-- hash (PHC string); the secret of one-time codes is needed as it is.
CREATE TABLE users (
    id           TEXT    NOT NULL PRIMARY KEY,
    email        TEXT    NOT NULL UNIQUE,
    name         TEXT    NOT NULL,
    password     TEXT,
    operator     TEXT,
    verified     INTEGER,
    otp_secret   BLOB,
    otp_step     INTEGER NOT NULL DEFAULT 0,
    recovery     TEXT,
    disabled     INTEGER NOT NULL DEFAULT 0,
    created      INTEGER NOT NULL,
    last_sign_in INTEGER
) STRICT, WITHOUT ROWID;

-- What a user may do in an account.
CREATE TABLE members (
    account INTEGER NOT NULL REFERENCES accounts (num),
    user    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role    TEXT    NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (account, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user);

-- Who is signed in: the SHA-256 of a session's secret. `account` and `role` are set for a customer whom the operator's own
-- site handed over, who is no user.
CREATE TABLE sessions (
    hash     BLOB    NOT NULL PRIMARY KEY,
    user     TEXT    REFERENCES users (id) ON DELETE CASCADE,
    account  INTEGER,
    role     TEXT,
    person   TEXT,
    created  INTEGER NOT NULL,
    seen     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    origin   TEXT    NOT NULL,
    agent    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user);
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE INDEX sessions_by_use ON sessions (seen);

-- Links that can be used once, by the SHA-256 of their secret.
CREATE TABLE links (
    hash     BLOB    NOT NULL PRIMARY KEY,
    purpose  TEXT    NOT NULL,
    email    TEXT    NOT NULL,
    user     TEXT    REFERENCES users (id) ON DELETE CASCADE,
    account  INTEGER,
    role     TEXT,
    by       TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_account ON links (account);
CREATE INDEX links_by_user ON links (user);
CREATE INDEX links_by_email ON links (email);
CREATE INDEX links_by_expiry ON links (expires);

-- Accounts that signed up and wait for an operator to approve them.
CREATE TABLE awaiting_approval (account INTEGER NOT NULL PRIMARY KEY REFERENCES accounts (num)) STRICT;

-- How accounts are renewed: `top_up` credits are asked for once the balance falls below `below`, and `renew` credits each
-- `every` milliseconds. `number` counts what was asked for.
CREATE TABLE renewals (
    account  INTEGER NOT NULL PRIMARY KEY REFERENCES accounts (num),
    below    INTEGER,
    top_up   INTEGER,
    asked    INTEGER NOT NULL DEFAULT 0,
    renew    INTEGER,
    every    INTEGER,
    renew_at INTEGER,
    number   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX renewals_by_time ON renewals (renew_at) WHERE renew_at IS NOT NULL;

-- The account that an audit entry belongs to. Of entries from before, only those of the account itself have it.
ALTER TABLE audit ADD COLUMN account INTEGER;
DROP TRIGGER audit_is_never_changed;
UPDATE audit SET account = accounts.num FROM accounts WHERE audit.object = 'account/' || accounts.id;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'audit entries are only appended'); END;
CREATE INDEX audit_by_account ON audit (account, number) WHERE account IS NOT NULL;
