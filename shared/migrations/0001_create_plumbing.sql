-- Tables that every service has, in its own schema: transport of messages, and its copies of reference data.
-- Run with search_path set to the service's schema, as the service's owner role.

-- The tenant of the transaction. A transaction without one fails on the cast, loudly: "no tenant is set" is no UUID.
CREATE FUNCTION current_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(nullif(current_setting('app.tenant_id', true), ''), 'no tenant is set')::uuid;

-- Puts a table under row-level security: both roles see their transaction's tenant only; with `worker_crosses` the worker role sees all
-- tenants. Also grants what either role may do with it. Every table with a tenant_id needs one call.
CREATE FUNCTION apply_tenant_policy(
    target text,
    worker_crosses boolean DEFAULT false,
    api_may text DEFAULT 'SELECT, INSERT, UPDATE, DELETE',
    worker_may text DEFAULT 'SELECT, INSERT, UPDATE, DELETE'
) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    service text := current_schema();
    own text := 'tenant_id = coalesce(nullif(current_setting(''app.tenant_id'', true), ''''), ''no tenant is set'')::uuid';
BEGIN
    EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', service, target);
    EXECUTE format('ALTER TABLE %I.%I FORCE ROW LEVEL SECURITY', service, target);
    EXECUTE format('CREATE POLICY of_tenant ON %I.%I TO %I USING (%s) WITH CHECK (%s)',
                   service, target, service || '_api', own, own);
    IF worker_crosses THEN
        EXECUTE format('CREATE POLICY of_all_tenants ON %I.%I TO %I USING (true) WITH CHECK (true)',
                       service, target, service || '_worker');
    ELSE
        EXECUTE format('CREATE POLICY of_tenant_for_worker ON %I.%I TO %I USING (%s) WITH CHECK (%s)',
                       service, target, service || '_worker', own, own);
    END IF;
    IF api_may <> '' THEN
        EXECUTE format('GRANT %s ON %I.%I TO %I', api_may, service, target, service || '_api');
    END IF;
    IF worker_may <> '' THEN
        EXECUTE format('GRANT %s ON %I.%I TO %I', worker_may, service, target, service || '_worker');
    END IF;
END $$;

REVOKE ALL ON FUNCTION apply_tenant_policy(text, boolean, text, text) FROM PUBLIC;

-- Messages to publish. Rows stay, with their place in the stream, until the retention has passed, so that a lost stream can be refilled.
CREATE TABLE outbox (
    tenant_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    message_id uuid NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    stream_seq bigint,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT outbox_message_once UNIQUE (tenant_id, message_id),
    CONSTRAINT outbox_published_has_place CHECK ((published_at IS NULL) = (stream_seq IS NULL))
);
-- The relay's queue, its comparison with the stream, and housekeeping cross tenants, hence these indexes do too.
CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL;
CREATE INDEX outbox_stream_seq ON outbox (stream_seq) WHERE stream_seq IS NOT NULL;
CREATE INDEX outbox_created_at ON outbox (created_at);
SELECT apply_tenant_policy('outbox', true, 'SELECT, INSERT');

-- What the relay knows of the stream: when it was created. One row.
CREATE TABLE relay_state (
    one boolean PRIMARY KEY DEFAULT true,
    stream_created text NOT NULL,
    repaired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT relay_state_one_row CHECK (one)
);

-- Which messages each consumer has applied.
CREATE TABLE inbox (
    tenant_id uuid NOT NULL,
    consumer text NOT NULL,
    message_id uuid NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, consumer, message_id)
);
CREATE INDEX inbox_received_at ON inbox (received_at);
SELECT apply_tenant_policy('inbox', true, '');

-- Messages that did not go through at once: how often they failed, and how often their handling was begun without coming to an end
-- (a message that kills its process is found by that).
CREATE TABLE attempt (
    tenant_id uuid NOT NULL,
    consumer text NOT NULL,
    message_key text NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    begun integer NOT NULL DEFAULT 0,
    first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_error text,
    PRIMARY KEY (tenant_id, consumer, message_key)
);
CREATE INDEX attempt_last_at ON attempt (last_at);
SELECT apply_tenant_policy('attempt', true, '');

-- Messages that were given up, with the reason.
CREATE TABLE dead_letter (
    tenant_id uuid NOT NULL,
    dead_letter_id uuid NOT NULL,
    consumer text NOT NULL,
    message_key text NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    body_sha256 text NOT NULL,
    reason text NOT NULL,
    error_class text NOT NULL,
    error text NOT NULL,
    attempts integer NOT NULL,
    state text NOT NULL DEFAULT 'dead',
    first_at timestamptz NOT NULL,
    dead_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at timestamptz,
    resolved_by text,
    PRIMARY KEY (tenant_id, dead_letter_id),
    CONSTRAINT dead_letter_once UNIQUE (tenant_id, consumer, message_key),
    CONSTRAINT dead_letter_state CHECK (state IN ('dead', 'retry', 'done', 'discarded'))
);
CREATE INDEX dead_letter_dead_at ON dead_letter (dead_at DESC);
CREATE INDEX dead_letter_retry ON dead_letter (dead_at) WHERE state = 'retry';
SELECT apply_tenant_policy('dead_letter', true, '');

-- Answers that were given under an Idempotency-Key.
CREATE TABLE idempotency_key (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    status smallint NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_key_created_at ON idempotency_key (created_at);
SELECT apply_tenant_policy('idempotency_key', true, 'SELECT, INSERT', 'SELECT, INSERT, DELETE');

-- Reference data. intake owns tenants, credentials, policies and calendars, routing owns staff and test clocks; each grants itself more.
CREATE TABLE tenant (
    tenant_id uuid PRIMARY KEY,
    revision integer NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    zone text NOT NULL,
    sandbox boolean NOT NULL,
    active boolean NOT NULL,
    limits jsonb NOT NULL,
    webhook_url text,
    language text NOT NULL DEFAULT 'en',
    two_admins boolean NOT NULL DEFAULT false,
    created_at timestamptz
);
SELECT apply_tenant_policy('tenant', true, 'SELECT', 'SELECT, INSERT, UPDATE');

CREATE TABLE credential (
    tenant_id uuid NOT NULL,
    credential_id uuid NOT NULL,
    revision integer NOT NULL,
    key_hash text NOT NULL,
    role text NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL,
    staff_id text,
    expires_at timestamptz,
    sees_personal_data boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, credential_id)
);
-- Who calls is found by the credential's id, before any tenant is known.
CREATE INDEX credential_by_id ON credential (credential_id);
SELECT apply_tenant_policy('credential', true, 'SELECT', 'SELECT, INSERT, UPDATE');

-- `json`, not `jsonb`: a policy keeps the order of its keys.
CREATE TABLE policy (
    tenant_id uuid NOT NULL,
    version integer NOT NULL,
    document json NOT NULL,
    settings json NOT NULL,
    effect text NOT NULL,
    published_by text NOT NULL,
    reason text NOT NULL DEFAULT '',
    sha256 text NOT NULL DEFAULT '',
    published_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, version)
);
SELECT apply_tenant_policy('policy', false, 'SELECT', 'SELECT, INSERT');

CREATE TABLE calendar (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    revision integer NOT NULL,
    spec json NOT NULL,
    announced_through date,
    moves_running boolean NOT NULL DEFAULT false,
    published_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name, revision)
);
SELECT apply_tenant_policy('calendar', false, 'SELECT', 'SELECT, INSERT');

CREATE TABLE staff (
    tenant_id uuid NOT NULL,
    staff_id text NOT NULL,
    revision integer NOT NULL,
    roles text[] NOT NULL DEFAULT '{}',
    unit text,
    active boolean NOT NULL DEFAULT true,
    absent_until timestamptz,
    deputy text,
    PRIMARY KEY (tenant_id, staff_id)
);
SELECT apply_tenant_policy('staff', false, 'SELECT', 'SELECT, INSERT, UPDATE');

CREATE TABLE test_clock (
    tenant_id uuid PRIMARY KEY,
    now timestamptz NOT NULL
);
SELECT apply_tenant_policy('test_clock', true, 'SELECT', 'SELECT, INSERT, UPDATE');

DO $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON relay_state TO %I', current_schema() || '_worker');
    EXECUTE format('GRANT EXECUTE ON FUNCTION current_tenant() TO %I, %I', current_schema() || '_api', current_schema() || '_worker');
END $$;
