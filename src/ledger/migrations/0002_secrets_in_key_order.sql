-- With `until`, the index covers every column that a start needs of a secret, so that one scan of the index suffices.

DROP INDEX secrets_by_key;
CREATE INDEX secrets_by_key ON secrets (key, until);
