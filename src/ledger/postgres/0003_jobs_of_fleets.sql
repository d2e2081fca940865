-- Jobs that are open in a fleet belong to none of its gateways: their holds have node 0, and so have the leases that the holds
-- are of. How many each account has:
CREATE TABLE open_jobs (
    account BIGINT PRIMARY KEY,
    jobs BIGINT NOT NULL
);
CREATE INDEX open_jobs_by_deadline ON open_holds (deadline) WHERE external_id IS NOT NULL AND node = 0;
