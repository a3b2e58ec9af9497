-- As the shared migration has it for the other tables: the tenants of a transaction are looked for in the text that names them.
DO $$
DECLARE
    one_of text := 'tenant_id = coalesce(nullif(current_setting(''app.tenant_id'', true), ''''), ''no tenant is set'')::uuid'
                || ' OR strpos(current_setting(''app.tenant_ids'', true), tenant_id::text) > 0';
    known record;
BEGIN
    FOR known IN
        SELECT tablename, policyname FROM pg_policies WHERE schemaname = current_schema() AND qual LIKE '%app.tenant_ids%'
    LOOP
        EXECUTE format('ALTER POLICY %I ON %I USING (%s) WITH CHECK (%s)', known.policyname, known.tablename, one_of, one_of);
    END LOOP;
END $$;
