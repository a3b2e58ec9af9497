-- no-transaction
-- How much everybody has in hand, and since when, is read from as many rows as there are open complaints and members of staff, whatever was
-- closed before.
DROP INDEX CONCURRENTLY IF EXISTS case_in_hand;
CREATE INDEX CONCURRENTLY case_in_hand ON "case" (tenant_id, owner_staff)
    WHERE kind = 'complaint' AND NOT closed AND owner_staff IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS assignment_latest;
CREATE INDEX CONCURRENTLY assignment_latest ON assignment (tenant_id, staff_id, assigned_at) WHERE active AND staff_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS assignment_in_hand;
