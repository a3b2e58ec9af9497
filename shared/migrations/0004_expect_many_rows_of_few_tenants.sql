-- Two costs of what every table has: its policies, and plans that are made before anybody has counted its rows.
--
-- The other tenants of a transaction are looked for in the text of `app.tenant_ids`, where each id has the form in which PostgreSQL writes it: to
-- read the text as an array for each row took longer than to store the row. The transaction's first tenant is compared as a UUID as ever, and
-- first, so that without a tenant every look fails.
--
-- As long as nobody has counted rows, PostgreSQL takes a tenant's rows for as few as a key's, and then any index that begins with the tenant is
-- as good as the key, for as long as the plan is kept. So it is told what to expect: one tenant, and keys that differ in each row. The first
-- count puts what is true in place of it.

CREATE FUNCTION expect_many_rows_of_few_tenants(target text) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    service text := current_schema();
    known record;
BEGIN
    IF current_setting('server_version_num')::integer < 180000 THEN -- cannot be told
        RETURN;
    END IF;
    FOR known IN
        SELECT a.attname::text AS name, CASE a.attname WHEN 'tenant_id' THEN 1 ELSE -1 END::real AS distinct_values
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
         WHERE n.nspname = service AND c.relname = target AND c.reltuples < 0 -- nobody has counted it
           AND (a.attname = 'tenant_id' OR i.indnkeyatts = 2)
    LOOP
        PERFORM pg_restore_attribute_stats('schemaname', service, 'relname', target, 'attname', known.name, 'inherited', false,
                                           'n_distinct', known.distinct_values);
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION expect_many_rows_of_few_tenants(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION apply_tenant_policy(
    target text,
    worker_crosses boolean DEFAULT false,
    api_may text DEFAULT 'SELECT, INSERT, UPDATE, DELETE',
    worker_may text DEFAULT 'SELECT, INSERT, UPDATE, DELETE'
) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    service text := current_schema();
    own text := 'tenant_id = coalesce(nullif(current_setting(''app.tenant_id'', true), ''''), ''no tenant is set'')::uuid';
    one_of text := own || ' OR strpos(current_setting(''app.tenant_ids'', true), tenant_id::text) > 0';
BEGIN
    EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', service, target);
    EXECUTE format('ALTER TABLE %I.%I FORCE ROW LEVEL SECURITY', service, target);
    EXECUTE format('CREATE POLICY of_tenant ON %I.%I TO %I USING (%s) WITH CHECK (%s)',
                   service, target, service || '_api', own, own);
    IF worker_crosses THEN
        EXECUTE format('CREATE POLICY of_all_tenants ON %I.%I TO %I USING (true) WITH CHECK (true)',
                       service, target, service || '_worker');
    ELSE
        EXECUTE format('CREATE POLICY of_tenants_for_worker ON %I.%I TO %I USING (%s) WITH CHECK (%s)',
                       service, target, service || '_worker', one_of, one_of);
    END IF;
    IF api_may <> '' THEN
        EXECUTE format('GRANT %s ON %I.%I TO %I', api_may, service, target, service || '_api');
    END IF;
    IF worker_may <> '' THEN
        EXECUTE format('GRANT %s ON %I.%I TO %I', worker_may, service, target, service || '_worker');
    END IF;
    PERFORM expect_many_rows_of_few_tenants(target);
END $$;

-- The tables that are there already.
DO $$
DECLARE
    one_of text := 'tenant_id = coalesce(nullif(current_setting(''app.tenant_id'', true), ''''), ''no tenant is set'')::uuid'
                || ' OR strpos(current_setting(''app.tenant_ids'', true), tenant_id::text) > 0';
    known record;
BEGIN
    FOR known IN
        SELECT tablename, policyname FROM pg_policies WHERE schemaname = current_schema() AND qual LIKE '%app.tenant_ids%'
    LOOP
        EXECUTE format('ALTER POLICY %I ON %I.%I USING (%s) WITH CHECK (%s)',
                       known.policyname, current_schema(), known.tablename, one_of, one_of);
    END LOOP;
    PERFORM expect_many_rows_of_few_tenants(tablename)
       FROM (SELECT DISTINCT tablename::text FROM pg_policies WHERE schemaname = current_schema()) AS protected;
END $$;
