-- Complaints of several tenants are stored in one transaction of the edge. It names one tenant in `app.tenant_id`, as ever, and the others in
-- `app.tenant_ids`, as an array; in the tables that storing touches it sees and writes rows of these and of nobody else. In all other tables it
-- has one tenant, as every transaction of the edge.
DO $$
DECLARE
    one_of text := 'tenant_id = coalesce(nullif(current_setting(''app.tenant_id'', true), ''''), ''no tenant is set'')::uuid'
                || ' OR tenant_id = ANY (coalesce(nullif(current_setting(''app.tenant_ids'', true), ''''), ''{}'')::uuid[])';
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['receipt', 'counter', 'data_key', 'contact_point', 'complaint', 'free_text', 'attachment', 'outbox', 'policy',
                                  'test_clock']
    LOOP
        EXECUTE format('ALTER POLICY of_tenant ON %I USING (%s) WITH CHECK (%s)', target, one_of, one_of);
    END LOOP;
END $$;
