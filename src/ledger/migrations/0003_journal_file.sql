-- The journal moves to files of its own, `FILE.journal-0` and `-1`, so that a commit is one write of one block or two.
-- Rows of the table that an older version wrote are folded at the next start; no rows are added here.
ALTER TABLE journal RENAME TO old_journal;

-- `mark` identifies the journal files of this ledger. Folded into the entries are all batches up to `folded`, and of
-- the batches up to `part_upto` also the charges up to this account and route.
CREATE TABLE journal (
    mark         INTEGER NOT NULL,
    folded       INTEGER NOT NULL,
    part_upto    INTEGER,
    part_account INTEGER,
    part_route   INTEGER
) STRICT;
INSERT INTO journal (mark, folded) VALUES (random(), 0);
