-- no-transaction
-- A page of all cases, closed ones too, was found by sorting all of them, and a case by its number by looking at each.
DROP INDEX CONCURRENTLY IF EXISTS case_listed;
CREATE INDEX CONCURRENTLY case_listed ON "case" (tenant_id, kind, rank, (coalesce(breached_at, due_at, 'infinity')), case_id);
DROP INDEX CONCURRENTLY IF EXISTS case_numbered;
CREATE INDEX CONCURRENTLY case_numbered ON "case" (tenant_id, number) WHERE kind = 'complaint';
