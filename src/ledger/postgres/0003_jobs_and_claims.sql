-- Jobs that are open in a fleet belong to none of its gateways: their holds have node 0, and so have the leases that the holds
-- are of. How many each account has:
CREATE TABLE open_jobs (
    account BIGINT PRIMARY KEY,
    jobs BIGINT NOT NULL
);
CREATE INDEX open_jobs_by_deadline ON open_holds (deadline) WHERE external_id IS NOT NULL AND node = 0;
-- Idempotency keys that gateways of a fleet have claimed, and that no fold has stored yet.
CREATE TABLE claims (
    id BYTEA PRIMARY KEY,
    request BYTEA NOT NULL,
    hold BYTEA NOT NULL,
    until BIGINT NOT NULL,
    node BIGINT NOT NULL
);
CREATE INDEX claims_by_node ON claims (node);
-- The gateway whose request was the first one.
ALTER TABLE repeats ADD COLUMN node BIGINT;
