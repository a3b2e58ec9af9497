-- Publications that reach open cases: worked off in batches, in the order of case ids.
CREATE TABLE move (
    tenant_id uuid NOT NULL,
    move_id uuid NOT NULL,
    cause text NOT NULL,
    policy_version integer,
    effect text,
    calendar text,
    revision integer,
    after_case uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    looked_at integer NOT NULL DEFAULT 0,
    moved integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,
    PRIMARY KEY (tenant_id, move_id),
    CONSTRAINT move_cause CHECK (cause IN ('policy', 'calendar'))
);
CREATE INDEX move_open ON move (created_at) WHERE done_at IS NULL;
SELECT apply_tenant_policy('move', true, 'SELECT');
