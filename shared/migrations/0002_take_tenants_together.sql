-- A transaction of the worker role may belong to several tenants: what each of them is told at one moment is applied together. It names
-- one in `app.tenant_id`, as ever, and the others in `app.tenant_ids`, as an array; it sees and writes rows of these and of nobody else.
-- A transaction of the edge has one tenant.

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
    one_of text := own || ' OR tenant_id = ANY (coalesce(nullif(current_setting(''app.tenant_ids'', true), ''''), ''{}'')::uuid[])';
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
END $$;

-- The tables that are there already.
DO $$
DECLARE
    one_of text := 'tenant_id = coalesce(nullif(current_setting(''app.tenant_id'', true), ''''), ''no tenant is set'')::uuid'
                || ' OR tenant_id = ANY (coalesce(nullif(current_setting(''app.tenant_ids'', true), ''''), ''{}'')::uuid[])';
    known record;
BEGIN
    FOR known IN
        SELECT tablename FROM pg_policies WHERE schemaname = current_schema() AND policyname = 'of_tenant_for_worker'
    LOOP
        EXECUTE format('ALTER POLICY of_tenant_for_worker ON %I.%I USING (%s) WITH CHECK (%s)',
                       current_schema(), known.tablename, one_of, one_of);
        EXECUTE format('ALTER POLICY of_tenant_for_worker ON %I.%I RENAME TO of_tenants_for_worker', current_schema(), known.tablename);
    END LOOP;
END $$;
