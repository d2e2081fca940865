-- Jobs of the upstreams that are settled. Open ones are kept holds in open_holds.
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL,               -- of the request that opened it
    account INTEGER NOT NULL,
    key INTEGER NOT NULL,
    route INTEGER NOT NULL,
    external_id TEXT NOT NULL,
    amount INTEGER NOT NULL,        -- millionths that were held
    charge INTEGER NOT NULL,        -- millionths that were charged
    opened INTEGER NOT NULL,        -- milliseconds since the Unix epoch
    settled INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_by_id ON jobs (external_id);
CREATE INDEX jobs_by_account ON jobs (account, number);
CREATE INDEX jobs_by_time ON jobs (settled);
CREATE INDEX open_jobs_by_account ON open_holds (account) WHERE external_id IS NOT NULL;
CREATE INDEX open_jobs_by_id ON open_holds (external_id) WHERE external_id IS NOT NULL;
