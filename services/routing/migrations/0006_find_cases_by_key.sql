-- no-transaction
-- In a new database, whose rows nobody has counted yet, every index that begins with the tenant looks as good for one case as its key: writing a
-- case read all cases of its tenant by their years. These indexes hold only the rows that they are for, and nobody else can use them.
DROP INDEX CONCURRENTLY IF EXISTS case_once_a_year;
CREATE UNIQUE INDEX CONCURRENTLY case_once_a_year ON "case" (tenant_id, year) WHERE year IS NOT NULL;
ALTER TABLE "case" DROP CONSTRAINT IF EXISTS case_duty_once;
DROP INDEX CONCURRENTLY IF EXISTS case_once_a_subject;
CREATE UNIQUE INDEX CONCURRENTLY case_once_a_subject ON "case" (tenant_id, subject_key) WHERE subject_key IS NOT NULL;
ALTER TABLE "case" DROP CONSTRAINT IF EXISTS case_subject_once;
DROP INDEX CONCURRENTLY IF EXISTS assignment_in_hand;
CREATE INDEX CONCURRENTLY assignment_in_hand ON assignment (tenant_id, staff_id) WHERE active AND staff_id IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS assignment_of_staff;
