-- What intake owns beside the plumbing of shared/migrations: sources, complaints as received, the vault, imports, policy proposals.
-- Sealed columns are AES-256-GCM, bound to tenant, table, column and row; see services/intake/envelope.py.

-- intake is where reference data is written; the other services keep copies.
DO $$
BEGIN
    EXECUTE format('GRANT INSERT, UPDATE ON tenant, credential TO %I', current_schema() || '_api');
    EXECUTE format('GRANT INSERT ON policy, calendar TO %I', current_schema() || '_api');
END $$;

-- Which tenant a slug means, and which source a mail address. Both are asked before any tenant is known and both are public by
-- nature, so these two tables stand outside row-level security and hold nothing else.
CREATE TABLE slug (
    slug text PRIMARY KEY,
    owner_id uuid NOT NULL,
    CONSTRAINT slug_form CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$')
);
CREATE TABLE mail_address (
    token text PRIMARY KEY,
    owner_id uuid NOT NULL,
    source_id uuid NOT NULL,
    CONSTRAINT mail_address_form CHECK (token ~ '^[a-z0-9]{20,40}$')
);

-- Keys of one tenant, wrapped by the master key that is not in the database: `wrapped_key` seals data keys and what belongs to no
-- person, `wrapped_index_key` makes the blind indexes.
CREATE TABLE tenant_key (
    tenant_id uuid NOT NULL,
    generation integer NOT NULL,
    master_key_id text NOT NULL,
    wrapped_key bytea NOT NULL,
    wrapped_index_key bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, generation)
);
SELECT apply_tenant_policy('tenant_key', false, 'SELECT, INSERT', 'SELECT, INSERT, UPDATE');

-- One key for each complainant (or each case without one), wrapped by the tenant's. Without it nothing about them can be read again:
-- to erase a person is to delete their key.
CREATE TABLE data_key (
    tenant_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    generation integer NOT NULL,
    wrapped_key bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at timestamptz,
    PRIMARY KEY (tenant_id, owner_id),
    CONSTRAINT data_key_erased_has_none CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL))
);
SELECT apply_tenant_policy('data_key');

-- By which telephone number or address a complainant is known: HMACs, so that equal ones meet and none can be read.
CREATE TABLE contact_point (
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    blind bytea NOT NULL,
    complainant_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, kind, blind),
    CONSTRAINT contact_point_kind CHECK (kind IN ('phone', 'email'))
);
CREATE INDEX contact_point_complainant ON contact_point (tenant_id, complainant_id);
SELECT apply_tenant_policy('contact_point');

CREATE TABLE source (
    tenant_id uuid NOT NULL,
    source_id uuid NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    channel text,
    settings jsonb NOT NULL,
    mail_token text,
    sealed_secrets bytea,
    active boolean NOT NULL DEFAULT true,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, source_id),
    CONSTRAINT source_name_once UNIQUE (tenant_id, name),
    CONSTRAINT source_kind CHECK (kind IN ('webhook', 'email', 'csv', 'sms', 'letter'))
);
SELECT apply_tenant_policy('source');

-- Complaints as received, in the words of the policy. `sealed_contact` is how the complainant is reached, as stated with this one.
CREATE TABLE complaint (
    tenant_id uuid NOT NULL,
    complaint_id uuid NOT NULL,
    number text NOT NULL,
    source text NOT NULL,
    source_id uuid,
    complainant_id uuid NOT NULL,
    policy_version integer NOT NULL,
    received_at timestamptz NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    duplicate_of uuid,
    words jsonb NOT NULL,
    sealed_contact bytea,
    PRIMARY KEY (tenant_id, complaint_id)
);
CREATE INDEX complaint_complainant ON complaint (tenant_id, complainant_id, received_at);
SELECT apply_tenant_policy('complaint');

-- What was answered under which key (Idempotency-Key, webhook id, message, row of an import, effect): a repeat gets the same complaint.
CREATE TABLE receipt (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    complaint_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX receipt_created_at ON receipt (created_at);
SELECT apply_tenant_policy('receipt', true, 'SELECT, INSERT', 'SELECT, INSERT, DELETE');

-- Counters: `number:<period>` of the numbering, `day:<date>` of the plan.
CREATE TABLE counter (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
SELECT apply_tenant_policy('counter', false, 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE, DELETE');

-- Free text, of complaints and of any entry of a case; entries refer to it by its id.
CREATE TABLE free_text (
    tenant_id uuid NOT NULL,
    text_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    case_id uuid NOT NULL,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    PRIMARY KEY (tenant_id, text_id)
);
CREATE INDEX free_text_case ON free_text (tenant_id, case_id);
SELECT apply_tenant_policy('free_text', false, 'SELECT, INSERT, DELETE', 'SELECT, INSERT, DELETE');

CREATE TABLE attachment (
    tenant_id uuid NOT NULL,
    attachment_id uuid NOT NULL,
    complaint_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    media_type text NOT NULL,
    bytes integer NOT NULL,
    sealed_name bytea NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, attachment_id),
    CONSTRAINT attachment_is_small CHECK (bytes <= 1048576)
);
CREATE INDEX attachment_complaint ON attachment (tenant_id, complaint_id);
SELECT apply_tenant_policy('attachment', false, 'SELECT, INSERT, DELETE', 'SELECT, INSERT, DELETE');

-- Who looked at personal data, at what, and why. Kept when the person is erased; the reason is sealed, since people write names into it.
CREATE TABLE access (
    tenant_id uuid NOT NULL,
    access_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    credential_id uuid NOT NULL,
    staff_id text,
    act text NOT NULL,
    case_id uuid,
    complainant_id uuid,
    what text[] NOT NULL,
    sealed_reason bytea NOT NULL,
    PRIMARY KEY (tenant_id, access_id)
);
SELECT apply_tenant_policy('access', false, 'SELECT, INSERT', 'SELECT, INSERT');

-- A table of complaints that is being stored row by row.
CREATE TABLE import (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    source_id uuid,
    state text NOT NULL,
    encoding text NOT NULL,
    columns text[] NOT NULL,
    targets text[] NOT NULL,
    channel text,
    silent boolean NOT NULL,
    rows integer NOT NULL,
    stored integer NOT NULL DEFAULT 0,
    repeated integer NOT NULL DEFAULT 0,
    refused integer NOT NULL DEFAULT 0,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at timestamptz,
    PRIMARY KEY (tenant_id, import_id),
    CONSTRAINT import_state CHECK (state IN ('running', 'done')),
    CONSTRAINT import_done_has_end CHECK ((state = 'done') = (done_at IS NOT NULL))
);
SELECT apply_tenant_policy('import');

-- The rows that are still to be stored; a chunk goes when it is done.
CREATE TABLE import_chunk (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    place integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant_id, import_id, place)
);
SELECT apply_tenant_policy('import_chunk', true);

CREATE TABLE import_fault (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    row integer NOT NULL,
    place integer NOT NULL,
    column_name text NOT NULL,
    detail text NOT NULL,
    suggestion text NOT NULL,
    PRIMARY KEY (tenant_id, import_id, row, place)
);
SELECT apply_tenant_policy('import_fault');

-- Policies that wait for a second administrator.
CREATE TABLE policy_proposal (
    tenant_id uuid NOT NULL,
    proposal_id uuid NOT NULL,
    base_version integer NOT NULL,
    document json NOT NULL,
    settings json NOT NULL,
    effect text NOT NULL,
    reason text NOT NULL,
    state text NOT NULL,
    proposed_by uuid NOT NULL,
    proposed_at timestamptz NOT NULL,
    decided_by uuid,
    decided_at timestamptz,
    PRIMARY KEY (tenant_id, proposal_id),
    CONSTRAINT policy_proposal_state CHECK (state IN ('waiting', 'published', 'withdrawn')),
    CONSTRAINT policy_proposal_second_admin CHECK (state <> 'published' OR decided_by <> proposed_by)
);
SELECT apply_tenant_policy('policy_proposal');

DO $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT ON slug, mail_address TO %I', current_schema() || '_api');
    EXECUTE format('GRANT SELECT ON slug, mail_address TO %I', current_schema() || '_worker');
END $$;
