-- no-transaction
-- What is due of each tenant, so that one with much does not stand before the others. Serves sandboxes as well, in place of their own index.
DROP INDEX CONCURRENTLY IF EXISTS wake_up_due;
CREATE INDEX CONCURRENTLY wake_up_due ON wake_up (tenant_id, wake_at);
DROP INDEX CONCURRENTLY IF EXISTS wake_up_sandbox;
