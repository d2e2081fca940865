-- Names that other engines reserve.
ALTER TABLE lots RENAME COLUMN left TO rest;
ALTER TABLE members RENAME COLUMN user TO user_id;
ALTER TABLE sessions RENAME COLUMN user TO user_id;
ALTER TABLE links RENAME COLUMN user TO user_id;

-- As the statements of every engine say it, so that the index is used.
DROP INDEX payers_topped_up;
CREATE INDEX payers_topped_up ON payers (wait) WHERE below IS NOT NULL OR is_begun = 1;
