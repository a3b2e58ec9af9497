-- What sla keeps of each case: the lines it has been told, when to look at it next, and what it has said so far.

CREATE TABLE timeline_entry (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    entry json NOT NULL,
    PRIMARY KEY (tenant_id, case_id, seq),
    CONSTRAINT timeline_entry_seq_from_one CHECK (seq >= 1)
);
SELECT apply_tenant_policy('timeline_entry', false, 'SELECT', 'SELECT, INSERT');

-- One row a case. wake_at is the next instant at which anything changes by itself; '1900-01-01 00:00:00+00' when something has been told since the last
-- look; NULL when nothing is to come. `late_since` bears the wish to try again after a failure.
CREATE TABLE watched_case (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    case_kind text NOT NULL,
    policy_version integer NOT NULL,
    number text NOT NULL DEFAULT '',
    silent boolean NOT NULL DEFAULT false,
    wake_at timestamptz,
    folded_seq integer NOT NULL DEFAULT 0,
    folded_at timestamptz,
    digest bytea,
    postings integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    error text,
    PRIMARY KEY (tenant_id, case_id)
);
CREATE INDEX watched_case_wake ON watched_case (tenant_id, wake_at) WHERE wake_at IS NOT NULL;
SELECT apply_tenant_policy('watched_case', true, 'SELECT', 'SELECT, INSERT, UPDATE');

-- What has been announced, once each; a row that holds no longer is withdrawn, never deleted.
CREATE TABLE announcement (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    key text NOT NULL,
    rule text NOT NULL,
    clause json,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    addressee text,
    what text,
    data json NOT NULL,
    late boolean NOT NULL,
    silent boolean NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    withdrawn_at timestamptz,
    PRIMARY KEY (tenant_id, case_id, key)
);
CREATE INDEX announcement_at ON announcement (tenant_id, at DESC, case_id, key);
SELECT apply_tenant_policy('announcement', false, 'SELECT', 'SELECT, INSERT, UPDATE');

-- What the ledger stands at for each imposed thing, and the rows that led there. Rows are posted, never edited.
CREATE TABLE ledger_position (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    key text NOT NULL,
    posted_minor bigint NOT NULL,
    digest bytea NOT NULL,
    penalty json NOT NULL,
    PRIMARY KEY (tenant_id, case_id, key)
);
SELECT apply_tenant_policy('ledger_position', false, 'SELECT', 'SELECT, INSERT, UPDATE');

CREATE TABLE ledger_posting (
    tenant_id uuid NOT NULL,
    posting_id uuid NOT NULL,
    case_id uuid NOT NULL,
    key text NOT NULL,
    rule text NOT NULL,
    party text NOT NULL,
    kind text NOT NULL,
    state text,
    currency text NOT NULL,
    difference_minor bigint NOT NULL,
    month text NOT NULL,
    posted_at timestamptz NOT NULL,
    penalty json NOT NULL,
    PRIMARY KEY (tenant_id, posting_id)
);
CREATE INDEX ledger_posting_case ON ledger_posting (tenant_id, case_id);
CREATE INDEX ledger_posting_party ON ledger_posting (tenant_id, party, month);
SELECT apply_tenant_policy('ledger_posting', false, 'SELECT', 'SELECT, INSERT');

-- The last tick of each time: every entry stamped up to it has been told. The zero tenant is the time of all live tenants.
CREATE TABLE tick (
    tenant_id uuid PRIMARY KEY,
    at timestamptz NOT NULL
);
SELECT apply_tenant_policy('tick', true, 'SELECT', 'SELECT, INSERT, UPDATE');

-- A sandbox on its way to another time.
CREATE TABLE advance (
    tenant_id uuid NOT NULL,
    operation_id uuid NOT NULL,
    target timestamptz NOT NULL,
    steps integer NOT NULL DEFAULT 0,
    settled_at timestamptz,
    PRIMARY KEY (tenant_id, operation_id)
);
CREATE INDEX advance_pending ON advance (tenant_id) WHERE settled_at IS NULL;
SELECT apply_tenant_policy('advance', true, 'SELECT', 'SELECT, INSERT, UPDATE');
