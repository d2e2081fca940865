-- What requests used. `step` is the length of the interval in minutes (1, 60 or 1440), `at` its start in minutes since
-- the Unix epoch; each moment is in the rows of one step only, and older ones are in longer steps. Number 0 stands for no
-- account, key or route.
CREATE TABLE usage (
    account   INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    key       INTEGER NOT NULL,
    route     INTEGER NOT NULL,
    outcome   TEXT    NOT NULL,
    requests  INTEGER NOT NULL,
    credits   INTEGER NOT NULL,
    bytes_in  INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    durations BLOB    NOT NULL,
    PRIMARY KEY (account, step, at, key, route, outcome)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_time ON usage (step, at);

-- Entries up to this position are counted.
ALTER TABLE journal ADD COLUMN usage_upto INTEGER NOT NULL DEFAULT 0;

-- When a key was last used, at most a minute ago.
ALTER TABLE keys ADD COLUMN last_used INTEGER;

-- Refused requests, the newest of each account.
CREATE TABLE refusals (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    id      BLOB    NOT NULL,
    key     INTEGER NOT NULL,
    route   INTEGER NOT NULL,
    reason  TEXT    NOT NULL
) STRICT;

CREATE INDEX refusals_by_account ON refusals (account, number);
