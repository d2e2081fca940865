-- The journal is in files of its own, `FILE.journal-0` and `-1`: a commit is then one write of one block or two.
-- Its rows of an older version are folded at the next start; none are added here.
ALTER TABLE journal RENAME TO old_journal;

-- Which files those are, and what of it stands in the entries: everything up to `folded`, and of what
-- is up to `part_upto` also the charges whose account and route are not after these.
CREATE TABLE journal (
    mark         INTEGER NOT NULL,
    folded       INTEGER NOT NULL,
    part_upto    INTEGER,
    part_account INTEGER,
    part_route   INTEGER
) STRICT;
INSERT INTO journal (mark, folded) VALUES (random(), 0);
