-- Named groups of an account's keys that have a spending limit together, and what their keys have spent while they were in
-- the group.
CREATE TABLE spend_groups (
    num          INTEGER PRIMARY KEY,
    account      INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    spend_limit  INTEGER,
    spent        INTEGER NOT NULL DEFAULT 0,
    spend_every  TEXT,
    spent_before INTEGER NOT NULL DEFAULT 0,
    spend_period INTEGER,
    UNIQUE (account, name)
) STRICT;
CREATE INDEX spend_groups_by_period ON spend_groups (spend_every, spend_period) WHERE spend_every IS NOT NULL;

ALTER TABLE keys ADD COLUMN spend_group INTEGER;
CREATE INDEX keys_by_spend_group ON keys (spend_group) WHERE spend_group IS NOT NULL;
