-- no-transaction
-- Showing a case, or returning it to whoever had it before, read all assignments of its tenant: only active ones could be found by their case.
DROP INDEX CONCURRENTLY IF EXISTS assignment_by_case;
CREATE INDEX CONCURRENTLY assignment_by_case ON assignment (tenant_id, case_id);
