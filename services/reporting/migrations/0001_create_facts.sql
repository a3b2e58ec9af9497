-- What was told, as it was told: everything below `fact` can be made again from these tables.

CREATE TABLE entry (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    case_kind text NOT NULL,
    number text NOT NULL,
    source text NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (tenant_id, case_id, seq),
    CONSTRAINT entry_seq_from_one CHECK (seq >= 1)
);
SELECT apply_tenant_policy('entry', false, 'SELECT', 'SELECT, INSERT, UPDATE');

-- The newest standing of each case by (seq, now); the message id settles what would otherwise be a tie.
CREATE TABLE standing (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    now timestamptz NOT NULL,
    message_id uuid NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (tenant_id, case_id)
);
SELECT apply_tenant_policy('standing', false, 'SELECT', 'SELECT, INSERT, UPDATE');

CREATE TABLE announcement (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    key text NOT NULL,
    effect jsonb NOT NULL,
    is_withdrawn boolean NOT NULL,
    PRIMARY KEY (tenant_id, case_id, key)
);
SELECT apply_tenant_policy('announcement', false, 'SELECT', 'SELECT, INSERT, UPDATE');

CREATE TABLE posting (
    tenant_id uuid NOT NULL,
    posting_id uuid NOT NULL,
    case_id uuid NOT NULL,
    kind text NOT NULL,
    currency text NOT NULL,
    difference_minor bigint NOT NULL,
    PRIMARY KEY (tenant_id, posting_id)
);
CREATE INDEX posting_of_case ON posting (tenant_id, case_id);
SELECT apply_tenant_policy('posting', false, 'SELECT', 'SELECT, INSERT');

CREATE TABLE delivery (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    case_id uuid,
    channel text NOT NULL,
    state text NOT NULL,
    attempts integer NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, delivery_id)
);
CREATE INDEX delivery_of_case ON delivery (tenant_id, case_id);
SELECT apply_tenant_policy('delivery', false, 'SELECT', 'SELECT, INSERT, UPDATE');

-- Cases whose fact is older than what was told. A queue without a unique key: whoever adds to it never waits for anybody.
CREATE TABLE stale (
    tenant_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    case_id uuid NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX stale_case ON stale (tenant_id, case_id);
SELECT apply_tenant_policy('stale', true, 'SELECT', 'SELECT, INSERT, UPDATE, DELETE');

-- One row for each case. A row with seq 0 is only known by name: its first entry has not come yet.
CREATE TABLE fact (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL DEFAULT 0,
    case_kind text,
    number text,
    received_at timestamptz,
    last_at timestamptz,
    kind text,
    category text,
    severity text,
    channel text,
    unit text,
    state text,
    outcome text,
    is_late boolean,
    is_closed boolean,
    zone text,
    day date,
    counted jsonb,
    body jsonb,
    PRIMARY KEY (tenant_id, case_id),
    CONSTRAINT fact_is_whole CHECK (seq = 0 OR (received_at IS NOT NULL AND counted IS NOT NULL AND body IS NOT NULL AND day IS NOT NULL))
);
CREATE INDEX fact_by_receipt ON fact (tenant_id, received_at, case_id) WHERE seq > 0;
CREATE INDEX fact_by_day ON fact (tenant_id, day) WHERE seq > 0;
SELECT apply_tenant_policy('fact', false, 'SELECT', 'SELECT, INSERT, UPDATE, DELETE');

-- Sums over facts, kept up by differences.
CREATE TABLE rollup (
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    dimension text NOT NULL,
    part text NOT NULL,
    measure text NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (tenant_id, day, dimension, part, measure)
);
CREATE INDEX rollup_by_dimension ON rollup (tenant_id, dimension, day);
CREATE INDEX rollup_empty ON rollup (tenant_id, day) WHERE amount = 0;
SELECT apply_tenant_policy('rollup', false, 'SELECT', 'SELECT, INSERT, UPDATE, DELETE');
