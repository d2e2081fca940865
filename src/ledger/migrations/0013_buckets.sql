-- Buckets pay in the order of their priorities. Those that the configuration no longer has stay.
CREATE TABLE buckets (
    name     TEXT    PRIMARY KEY,
    priority INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Credits that were granted into a bucket, or with an expiry, and are not all spent. The rest of an account's balance
-- is in the default bucket and does not expire.
CREATE TABLE lots (
    id      INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    bucket  TEXT    NOT NULL,
    left    INTEGER NOT NULL CHECK (left > 0),
    expires INTEGER,
    ended   INTEGER,
    refill  INTEGER NOT NULL CHECK (refill IN (0, 1))
) STRICT;
CREATE INDEX lots_by_account ON lots (account);
CREATE INDEX lots_by_expiry ON lots (expires, id) WHERE ended IS NULL;
CREATE INDEX ended_lots ON lots (account, ended) WHERE ended IS NOT NULL;

-- True if the account has or had lots.
ALTER TABLE accounts ADD COLUMN lots INTEGER NOT NULL DEFAULT 0;

-- Spending limits with periods: the period's name and start, and what was spent before it. Of accounts, also the limit that
-- is in force, and what their keys have spent since this version.
ALTER TABLE keys ADD COLUMN spend_every TEXT;
ALTER TABLE keys ADD COLUMN spent_before INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN spend_period INTEGER;
CREATE INDEX keys_by_spend_period ON keys (spend_every, spend_period) WHERE spend_every IS NOT NULL;
ALTER TABLE accounts ADD COLUMN spend_limit INTEGER;
ALTER TABLE accounts ADD COLUMN spent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN spend_every TEXT;
ALTER TABLE accounts ADD COLUMN spent_before INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN spend_period INTEGER;
CREATE INDEX accounts_by_spend_period ON accounts (spend_every, spend_period) WHERE spend_every IS NOT NULL;

INSERT OR IGNORE INTO operator_accounts VALUES ('expired', '0');

-- The accounts that are on a plan: when the plan's refill is due, if it has one, and the start of the last period that
-- was refilled.
CREATE TABLE refills (
    account  INTEGER PRIMARY KEY,
    plan     TEXT    NOT NULL,
    due      INTEGER,
    refilled INTEGER,
    absent   INTEGER NOT NULL DEFAULT 0     -- true if the configuration did not have the account or its plan
) STRICT;
CREATE INDEX refills_by_due ON refills (due, account) WHERE due IS NOT NULL;
CREATE INDEX refills_by_plan ON refills (plan);
INSERT INTO refills (account, plan, due) SELECT num, plan, 0 FROM accounts WHERE plan IS NOT NULL AND closed IS NULL;

-- The refills of the plans in the configuration, as text, by which a changed one is recognised.
CREATE TABLE plan_refills (
    plan TEXT PRIMARY KEY,
    text TEXT NOT NULL
) STRICT, WITHOUT ROWID;
