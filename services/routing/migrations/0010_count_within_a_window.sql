-- no-transaction
-- What a subject has counted in a month was found among all that it ever counted.
DROP INDEX CONCURRENTLY IF EXISTS entry_counted;
CREATE INDEX CONCURRENTLY entry_counted ON entry (tenant_id, case_id, at) WHERE kind IN ('counted', 'uncounted');
