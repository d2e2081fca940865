-- What each request was charged, if the configuration says to list that.
CREATE TABLE requests (
    id      BLOB    PRIMARY KEY,
    account INTEGER NOT NULL,
    key     INTEGER NOT NULL,
    route   INTEGER NOT NULL,
    charge  INTEGER NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (at, id);
ALTER TABLE journal ADD COLUMN listed_since INTEGER; -- NULL: requests are not listed
