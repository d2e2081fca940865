-- Each moment is now counted in an interval of each length, so that long times are read from few rows. Besides the rows of
-- accounts, keys and routes there are sums in hours and days: with the account's number below zero those of an account,
-- and with number -4294967296 those of all accounts by route. Old rows are counted anew by the program.

-- From when on there are minutes and hours, in minutes since the Unix epoch.
ALTER TABLE journal ADD COLUMN usage_minutes_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE journal ADD COLUMN usage_hours_from INTEGER NOT NULL DEFAULT 0;
UPDATE journal SET
    usage_minutes_from = (SELECT coalesce(max(at) + 60, 0) FROM usage WHERE step = 60),
    usage_hours_from = (SELECT coalesce(max(at) + 1440, 0) FROM usage WHERE step = 1440);
