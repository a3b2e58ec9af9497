-- no-transaction
-- In a new database, whose rows nobody has counted yet, every index that begins with the tenant looks as good for one case as its key: making a
-- fact read all facts of its tenant by their days. Partial ones serve those alone who ask by the column, and the column never changes.
DROP INDEX CONCURRENTLY IF EXISTS fact_received;
CREATE INDEX CONCURRENTLY fact_received ON fact (tenant_id, received_at, case_id) WHERE received_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS fact_by_receipt;
DROP INDEX CONCURRENTLY IF EXISTS fact_of_day;
CREATE INDEX CONCURRENTLY fact_of_day ON fact (tenant_id, day) WHERE day IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS fact_by_day;
