-- Tells whether there are spending limits.
CREATE INDEX limited_keys ON keys (num) WHERE spend_limit IS NOT NULL;
CREATE INDEX limited_accounts ON accounts (num) WHERE spend_limit IS NOT NULL;
