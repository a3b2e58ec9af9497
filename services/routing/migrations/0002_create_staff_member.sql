-- Staff as routing owns them. `staff` of the shared tables is what the other services get to see of it.

-- `contact` is encrypted: name, e-mail, phone, language.
CREATE TABLE staff_member (
    tenant_id uuid NOT NULL,
    staff_id text NOT NULL,
    revision integer NOT NULL,
    roles text[] NOT NULL DEFAULT '{}',
    unit text,
    deputy text,
    active boolean NOT NULL DEFAULT true,
    absences json NOT NULL DEFAULT '[]',
    contact bytea,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, staff_id),
    CONSTRAINT staff_member_id_is_short CHECK (length(staff_id) BETWEEN 1 AND 120)
);
CREATE INDEX staff_member_roles ON staff_member USING gin (roles);
SELECT apply_tenant_policy('staff_member', false, 'SELECT, INSERT, UPDATE', 'SELECT');

-- Grows with every change of a tenant's staff, so that a copy in memory can be checked with one row.
CREATE TABLE staff_revision (
    tenant_id uuid PRIMARY KEY,
    revision integer NOT NULL
);
SELECT apply_tenant_policy('staff_revision', false, 'SELECT, INSERT, UPDATE', 'SELECT');
