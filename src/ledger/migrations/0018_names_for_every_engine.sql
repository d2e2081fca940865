-- Names that other engines reserve.
ALTER TABLE lots RENAME COLUMN left TO rest;
ALTER TABLE members RENAME COLUMN user TO user_id;
ALTER TABLE sessions RENAME COLUMN user TO user_id;
ALTER TABLE links RENAME COLUMN user TO user_id;
