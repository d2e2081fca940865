-- The name of the limit that refused a request.
ALTER TABLE refusals ADD COLUMN limit_name TEXT;
