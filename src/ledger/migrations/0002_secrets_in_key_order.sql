-- With `until` in it, the index says all of a secret: a start reads it once from end to end.

DROP INDEX secrets_by_key;
CREATE INDEX secrets_by_key ON secrets (key, until);
