-- no-transaction
-- In a new database, whose rows nobody has counted yet, every index that begins with the tenant looks as good for one case as its key: what had
-- been announced of a case was looked for among all of the tenant's announcements. This one serves those alone who ask by the instant.
DROP INDEX CONCURRENTLY IF EXISTS announcement_newest;
CREATE INDEX CONCURRENTLY announcement_newest ON announcement (tenant_id, at DESC, case_id, key) WHERE at > '-infinity';
DROP INDEX CONCURRENTLY IF EXISTS announcement_at;
