-- Who is told what: the timelines that message rules look at, what happened, deliveries with their attempts, providers and webhook endpoints.
-- No table here holds a name, an address or a text for people: addresses are asked for right before sending and stored masked.

-- The copy of each case's timeline, so that a rule sees the case as it was at the moment it tells of.
CREATE TABLE entry (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    case_kind text NOT NULL,
    policy_version integer NOT NULL,
    number text NOT NULL,
    silent boolean NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (tenant_id, case_id, seq),
    CONSTRAINT entry_seq_from_one CHECK (seq >= 1)
);
SELECT apply_tenant_policy('entry', false, 'SELECT', 'SELECT, INSERT');

-- What somebody is told of: an entry, an effect, a posting. `source` is the key of the effect or penalty, by which a withdrawal finds it.
CREATE TABLE event (
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    type text NOT NULL,
    case_id uuid,
    number text NOT NULL,
    source text NOT NULL,
    at timestamptz NOT NULL,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, event_id)
);
CREATE INDEX event_by_source ON event (tenant_id, case_id, source) WHERE source <> '';
CREATE INDEX event_created_at ON event (tenant_id, created_at);
SELECT apply_tenant_policy('event', false, 'SELECT, INSERT', 'SELECT, INSERT, DELETE');

-- How a tenant's SMS and e-mail leave. `sealed` holds its secrets, encrypted for this row.
CREATE TABLE provider (
    tenant_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    channel text NOT NULL,
    name text NOT NULL,
    config jsonb NOT NULL,
    sealed bytea NOT NULL,
    active boolean NOT NULL,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, provider_id),
    CONSTRAINT provider_channel CHECK (channel IN ('sms', 'email'))
);
CREATE UNIQUE INDEX provider_one_active ON provider (tenant_id, channel) WHERE active;
SELECT apply_tenant_policy('provider', false, 'SELECT, INSERT, UPDATE, DELETE', 'SELECT');

-- Where delivery receipts arrive: the way from a provider's id, all that a receipt's path holds, to its tenant.
CREATE TABLE receipt_address (
    tenant_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, provider_id),
    CONSTRAINT receipt_address_of_provider FOREIGN KEY (tenant_id, provider_id)
        REFERENCES provider (tenant_id, provider_id) ON DELETE CASCADE
);
CREATE INDEX receipt_address_by_provider ON receipt_address (provider_id);
SELECT apply_tenant_policy('receipt_address', true, 'SELECT, INSERT, DELETE', 'SELECT');

-- Receipts taken, by the id under which the provider sent them.
CREATE TABLE receipt (
    tenant_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    webhook_id text NOT NULL,
    provider_ref text NOT NULL,
    state text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, provider_id, webhook_id),
    CONSTRAINT receipt_of_provider FOREIGN KEY (tenant_id, provider_id)
        REFERENCES provider (tenant_id, provider_id) ON DELETE CASCADE
);
CREATE INDEX receipt_received_at ON receipt (tenant_id, received_at);
SELECT apply_tenant_policy('receipt', false, '', 'SELECT, INSERT, DELETE');

-- The tenant's own systems that want to be told. `sealed` holds the signing secrets with their ends.
CREATE TABLE endpoint (
    tenant_id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    url text NOT NULL,
    description text NOT NULL DEFAULT '',
    events text[] NOT NULL,
    sealed bytea NOT NULL,
    active boolean NOT NULL DEFAULT true,
    stopped_because text,
    failing_since timestamptz,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, endpoint_id)
);
SELECT apply_tenant_policy('endpoint', false, 'SELECT, INSERT, UPDATE, DELETE', 'SELECT, INSERT, UPDATE');

-- One message to one recipient on one channel. The id is derived from what makes it one, so telling it again finds the same row.
-- `attempts` counts since it was queued last, `round` how often a person has queued it again.
CREATE TABLE delivery (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    event_id uuid NOT NULL,
    case_id uuid,
    rule text NOT NULL,
    audience text NOT NULL,
    addressee text NOT NULL,
    channel text NOT NULL,
    policy_version integer,
    fields jsonb NOT NULL DEFAULT '{}',
    state text NOT NULL,
    reason text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    round integer NOT NULL DEFAULT 0,
    recipient text NOT NULL DEFAULT '',
    provider_id uuid,
    provider_ref text,
    at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (tenant_id, delivery_id),
    CONSTRAINT delivery_once UNIQUE (tenant_id, event_id, rule, audience, addressee, channel),
    CONSTRAINT delivery_of_event FOREIGN KEY (tenant_id, event_id) REFERENCES event (tenant_id, event_id),
    CONSTRAINT delivery_channel CHECK (channel IN ('sms', 'email', 'webhook')),
    CONSTRAINT delivery_state CHECK (
        state IN ('queued', 'held', 'sending', 'sent', 'delivered', 'failed', 'dead', 'suppressed', 'expanded'))
);
CREATE INDEX delivery_listed ON delivery (tenant_id, created_at DESC, delivery_id DESC);
CREATE INDEX delivery_of_case ON delivery (tenant_id, case_id, created_at, delivery_id);
CREATE INDEX delivery_by_provider_ref ON delivery (tenant_id, provider_id, provider_ref) WHERE provider_ref IS NOT NULL;
CREATE INDEX delivery_unsent ON delivery (tenant_id, state) WHERE state IN ('queued', 'held', 'sending');
SELECT apply_tenant_policy('delivery', false, 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE, DELETE');

-- Written before the provider is called; without an end its outcome is not known.
CREATE TABLE delivery_attempt (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    attempt integer NOT NULL,
    key uuid NOT NULL,
    at timestamptz NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text,
    detail text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, delivery_id, attempt),
    CONSTRAINT delivery_attempt_of_delivery FOREIGN KEY (tenant_id, delivery_id)
        REFERENCES delivery (tenant_id, delivery_id) ON DELETE CASCADE,
    CONSTRAINT delivery_attempt_outcome CHECK (outcome IN ('accepted', 'refused', 'unavailable', 'unknown')),
    CONSTRAINT delivery_attempt_ended_has_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
SELECT apply_tenant_policy('delivery_attempt', false, 'SELECT', 'SELECT, INSERT, UPDATE, DELETE');

-- What is still to be sent, and when it is looked at next: the one table here that the sender reads across tenants. `fence` grows with every
-- claim, so whoever lost the lease cannot record. `held_until` is an instant of a sandbox's own time.
CREATE TABLE delivery_queue (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    wake_at timestamptz NOT NULL,
    held_until timestamptz,
    fence bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, delivery_id),
    CONSTRAINT delivery_queue_of_delivery FOREIGN KEY (tenant_id, delivery_id)
        REFERENCES delivery (tenant_id, delivery_id) ON DELETE CASCADE
);
CREATE INDEX delivery_queue_due ON delivery_queue (tenant_id, wake_at);
SELECT apply_tenant_policy('delivery_queue', true, 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE, DELETE');

-- When messages were sent to a number, a range, a mailbox; `subject` is a keyed hash.
CREATE TABLE budget (
    tenant_id uuid NOT NULL,
    scope text NOT NULL,
    subject bytea NOT NULL,
    used timestamptz[] NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, scope, subject)
);
CREATE INDEX budget_last_at ON budget (tenant_id, last_at);
SELECT apply_tenant_policy('budget', false, '', 'SELECT, INSERT, UPDATE, DELETE');

-- How many messages a tenant has sent on a day, by channel.
CREATE TABLE day_budget (
    tenant_id uuid NOT NULL,
    channel text NOT NULL,
    day date NOT NULL,
    used integer NOT NULL,
    PRIMARY KEY (tenant_id, channel, day)
);
SELECT apply_tenant_policy('day_budget', false, 'SELECT', 'SELECT, INSERT, UPDATE, DELETE');

-- A sandbox's clock has settled, and everything due up to `target` is to be sent before we say that we rest.
CREATE TABLE settlement (
    tenant_id uuid NOT NULL,
    operation_id uuid NOT NULL,
    target timestamptz NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rested_at timestamptz,
    PRIMARY KEY (tenant_id, operation_id)
);
CREATE INDEX settlement_open ON settlement (begun_at) WHERE rested_at IS NULL;
SELECT apply_tenant_policy('settlement', true, '', 'SELECT, INSERT, UPDATE, DELETE');
