-- What each gateway of a fleet has of its own. A ledger in a file has one.
CREATE TABLE nodes (
    num INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    mark INTEGER,
    folded INTEGER NOT NULL DEFAULT 0,
    usage_upto INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO nodes (num, name, mark, folded, usage_upto) SELECT 1, 'main', mark, folded, usage_upto FROM journal;
ALTER TABLE journal DROP COLUMN mark;
ALTER TABLE journal DROP COLUMN folded;
ALTER TABLE journal DROP COLUMN usage_upto;
ALTER TABLE open_holds ADD COLUMN node INTEGER NOT NULL DEFAULT 1;
ALTER TABLE entries ADD COLUMN node INTEGER NOT NULL DEFAULT 1;
CREATE TABLE limits_of_nodes (
    node INTEGER NOT NULL,
    owner BLOB NOT NULL,
    state BLOB NOT NULL,
    saved INTEGER NOT NULL,
    PRIMARY KEY (node, owner)
) STRICT, WITHOUT ROWID;
INSERT INTO limits_of_nodes SELECT 1, owner, state, saved FROM limits;
DROP TABLE limits;
ALTER TABLE limits_of_nodes RENAME TO limits;
