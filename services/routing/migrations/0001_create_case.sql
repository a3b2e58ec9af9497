-- Cases and their timelines. A case is a complaint, a duty (one a year) or a subject (whatever is counted for); its timeline is the
-- record, the other columns follow from it and are there to be found by.

CREATE TABLE "case" (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    kind text NOT NULL,
    number text NOT NULL DEFAULT '',
    subject_key text,
    year integer,
    source text NOT NULL DEFAULT '',
    silent boolean NOT NULL DEFAULT false,
    duplicate_of uuid,
    policy_version integer NOT NULL,
    current_policy_version integer NOT NULL,
    version integer NOT NULL,
    state text NOT NULL,
    closed boolean NOT NULL DEFAULT false,
    outcome text,
    class_kind text,
    category text,
    severity text,
    priority text,
    rank integer NOT NULL DEFAULT 1000,
    respondent text,
    owner_unit text,
    owner_role text,
    owner_staff text,
    received_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    due_at timestamptz,
    breached_at timestamptz,
    provisional boolean NOT NULL DEFAULT false,
    creates integer NOT NULL DEFAULT 0,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, case_id),
    CONSTRAINT case_kind CHECK (kind IN ('complaint', 'duty', 'subject')),
    CONSTRAINT case_subject_has_key CHECK ((kind = 'subject') = (subject_key IS NOT NULL)),
    CONSTRAINT case_duty_has_year CHECK ((kind = 'duty') = (year IS NOT NULL)),
    CONSTRAINT case_version_counts_entries CHECK (version >= 1),
    CONSTRAINT case_subject_once UNIQUE (tenant_id, subject_key),
    CONSTRAINT case_duty_once UNIQUE (tenant_id, year)
);
-- The work list: most urgent first, then by what is due earliest.
CREATE INDEX case_work ON "case" (tenant_id, rank, (coalesce(breached_at, due_at, 'infinity')), case_id)
    WHERE kind = 'complaint' AND NOT closed;
CREATE INDEX case_received ON "case" (tenant_id, received_at, case_id) WHERE kind = 'complaint';
CREATE INDEX case_stored ON "case" (tenant_id, stored_at) WHERE kind = 'complaint';
CREATE INDEX case_running ON "case" (tenant_id, case_id) WHERE kind <> 'subject' AND (provisional OR due_at IS NOT NULL);
SELECT apply_tenant_policy('case', false, 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE');

-- One line of a timeline: appended, never changed. `json` keeps what was written as it was written.
CREATE TABLE entry (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    by json NOT NULL,
    data json NOT NULL,
    counts json NOT NULL DEFAULT '{}',
    key text,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, case_id, seq),
    CONSTRAINT entry_of_case FOREIGN KEY (tenant_id, case_id) REFERENCES "case" (tenant_id, case_id),
    CONSTRAINT entry_seq_counts_from_one CHECK (seq >= 1)
);
-- An effect enters a case once.
CREATE UNIQUE INDEX entry_key ON entry (tenant_id, case_id, key) WHERE key IS NOT NULL;
SELECT apply_tenant_policy('entry', false, 'SELECT, INSERT', 'SELECT, INSERT');

-- Who must act: one active row per complaint, the former ones kept.
CREATE TABLE assignment (
    tenant_id uuid NOT NULL,
    assignment_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    unit text,
    role text,
    staff_id text,
    part text,
    in_place_of text,
    rule text,
    clause json,
    named text NOT NULL,
    assigned_at timestamptz NOT NULL,
    ended_at timestamptz,
    active boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant_id, assignment_id),
    CONSTRAINT assignment_of_case FOREIGN KEY (tenant_id, case_id) REFERENCES "case" (tenant_id, case_id),
    CONSTRAINT assignment_ended_when_inactive CHECK (active = (ended_at IS NULL))
);
CREATE UNIQUE INDEX assignment_one_active ON assignment (tenant_id, case_id) WHERE active;
CREATE INDEX assignment_of_staff ON assignment (tenant_id, staff_id) WHERE active;
SELECT apply_tenant_policy('assignment', false, 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE');

-- Requests that wait for somebody's decision.
CREATE TABLE approval (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    seq integer NOT NULL,
    kind text NOT NULL,
    step text,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    decision text,
    decided_seq integer,
    decided_by text,
    decided_at timestamptz,
    PRIMARY KEY (tenant_id, case_id, seq),
    CONSTRAINT approval_of_case FOREIGN KEY (tenant_id, case_id) REFERENCES "case" (tenant_id, case_id),
    CONSTRAINT approval_decision CHECK (decision IN ('approved', 'rejected', 'withdrawn')),
    CONSTRAINT approval_decided CHECK ((decision IS NULL) = (decided_seq IS NULL))
);
CREATE INDEX approval_waiting ON approval (tenant_id, requested_at, case_id, seq) WHERE decision IS NULL;
SELECT apply_tenant_policy('approval', false, 'SELECT, INSERT, UPDATE', 'SELECT, INSERT, UPDATE');

-- The next instant at which a case changes by itself. The only table of cases that the worker role reads across tenants.
CREATE TABLE wake_up (
    tenant_id uuid NOT NULL,
    case_id uuid NOT NULL,
    wake_at timestamptz NOT NULL,
    sandbox boolean NOT NULL,
    PRIMARY KEY (tenant_id, case_id),
    CONSTRAINT wake_up_of_case FOREIGN KEY (tenant_id, case_id) REFERENCES "case" (tenant_id, case_id)
);
CREATE INDEX wake_up_live ON wake_up (wake_at) WHERE NOT sandbox;
CREATE INDEX wake_up_sandbox ON wake_up (tenant_id, wake_at) WHERE sandbox;
SELECT apply_tenant_policy('wake_up', true);
