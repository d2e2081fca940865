-- Requests with an idempotency key: the hashes of account and key and of the request, the id of the first request, and its
-- answer, encrypted. NULL while the request is in progress, and after a crash; empty if the answer was not kept.
CREATE TABLE repeats (
    id      BLOB    PRIMARY KEY,
    request BLOB    NOT NULL,
    hold    BLOB    NOT NULL,
    until   INTEGER NOT NULL,
    answer  BLOB
) STRICT;
CREATE INDEX repeats_by_time ON repeats (until);
CREATE INDEX unanswered_repeats ON repeats (until DESC, id) WHERE answer IS NULL;
