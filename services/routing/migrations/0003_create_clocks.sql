-- What tells the time. An entry is stamped while its writer holds a shared lock that lasts until commit; a tick holds the same lock alone.
-- So whatever is stamped up to a tick is committed before it, with a smaller outbox id, and the relay publishes in the order of ids.

-- The last tick of the live time. One row; it belongs to no tenant.
CREATE TABLE live_tick (
    one boolean PRIMARY KEY DEFAULT true,
    at timestamptz NOT NULL,
    outbox_id bigint NOT NULL DEFAULT 0,
    CONSTRAINT live_tick_one_row CHECK (one)
);
INSERT INTO live_tick (at) VALUES (clock_timestamp());

-- An administrator moves the test clock of a sandbox; done when sla has settled and notify has rested. What is written on the way asks for
-- another round, which sla and notify know under an id of its own.
CREATE TABLE clock_operation (
    tenant_id uuid NOT NULL,
    operation_id uuid NOT NULL,
    started_from timestamptz NOT NULL,
    target timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'running',
    round integer NOT NULL DEFAULT 1,
    round_id uuid NOT NULL,
    written integer NOT NULL DEFAULT 0,
    awaited integer NOT NULL DEFAULT 0,
    settled_at timestamptz,
    settled boolean NOT NULL DEFAULT false,
    rested boolean NOT NULL DEFAULT false,
    steps integer NOT NULL DEFAULT 0,
    asked_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,
    PRIMARY KEY (tenant_id, operation_id),
    CONSTRAINT clock_operation_goes_forward CHECK (target >= started_from),
    CONSTRAINT clock_operation_state CHECK (state IN ('running', 'done')),
    CONSTRAINT clock_operation_done_at CHECK ((state = 'done') = (done_at IS NOT NULL))
);
CREATE UNIQUE INDEX clock_operation_one_running ON clock_operation (tenant_id) WHERE state = 'running';
SELECT apply_tenant_policy('clock_operation', true, 'SELECT, INSERT, UPDATE', 'SELECT, UPDATE');

-- The first of the two keys of every clock lock; the second is 0 for the live time and the tenant's own for a sandbox.
CREATE FUNCTION clock_lock_space() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1380929876;

CREATE FUNCTION clock_lock_key(p_tenant uuid) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN p_tenant = '00000000-0000-0000-0000-000000000000' THEN 0
                ELSE coalesce(nullif(hashtext(p_tenant::text), 0), 1) END;

-- The instant to stamp entries with; the lock it takes lasts until commit. Volatile, so each statement sees what was committed while the
-- lock was waited for. Never the instant of the last tick or before: a clock that is set back must not write behind it.
-- In a sandbox that is being moved, people's acts bear the target, behind everything that falls due on the way.
-- `is_sandbox` is null for a tenant that is not known yet.
CREATE FUNCTION stamp_now(p_tenant uuid, OUT stamped_at timestamptz, OUT is_sandbox boolean) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT sandbox INTO is_sandbox FROM tenant WHERE tenant_id = p_tenant;
    IF is_sandbox THEN
        PERFORM pg_advisory_xact_lock_shared(clock_lock_space(), clock_lock_key(p_tenant));
        SELECT target INTO stamped_at FROM clock_operation WHERE tenant_id = p_tenant AND state = 'running';
        IF stamped_at IS NULL THEN
            SELECT now INTO stamped_at FROM test_clock WHERE tenant_id = p_tenant;
        END IF;
    ELSE
        PERFORM pg_advisory_xact_lock_shared(clock_lock_space(), 0);
        SELECT greatest(clock_timestamp(), at + interval '1 microsecond') INTO stamped_at FROM live_tick;
    END IF;
END $$;

-- Moves the live time on and returns the tick: every entry stamped up to it is committed.
CREATE FUNCTION tick_live() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ticked_at timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(clock_lock_space(), 0);
    UPDATE live_tick SET at = greatest(clock_timestamp(), at + interval '1 microsecond') RETURNING at INTO ticked_at;
    RETURN ticked_at;
END $$;

DO $$
BEGIN
    EXECUTE format('GRANT SELECT ON live_tick TO %I, %I', current_schema() || '_api', current_schema() || '_worker');
    EXECUTE format('GRANT UPDATE ON live_tick TO %I', current_schema() || '_worker');
    EXECUTE format('GRANT SELECT ON SEQUENCE outbox_id_seq TO %I', current_schema() || '_worker');
    EXECUTE format('GRANT INSERT, UPDATE ON test_clock TO %I', current_schema() || '_api');
END $$;
