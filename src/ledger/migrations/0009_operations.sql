-- The name of the limit that refused a request.
ALTER TABLE refusals ADD COLUMN limit_name TEXT;

-- The most that a key may spend, and what it has spent: millionths.
ALTER TABLE keys ADD COLUMN spend_limit INTEGER;
ALTER TABLE keys ADD COLUMN spent INTEGER NOT NULL DEFAULT 0;
UPDATE keys SET spent = sums.spent
    FROM (SELECT key, -sum(amount) AS spent FROM entries WHERE key IS NOT NULL GROUP BY key) AS sums
    WHERE sums.key = keys.num;

-- Keys that expire, in the order in which they do.
CREATE INDEX keys_expiring ON keys (expires) WHERE expires IS NOT NULL;

-- The id of a new message is random, so that none is used again, also after a backup was restored.
ALTER TABLE messages ADD COLUMN id TEXT;
UPDATE messages SET id = printf('msg_%016x%08x', (SELECT mark FROM journal), num);

-- The deliveries that wait at an endpoint, in the order in which they are due.
DROP INDEX deliveries_waiting;
CREATE INDEX deliveries_waiting ON deliveries (endpoint, next_at) WHERE next_at IS NOT NULL;
