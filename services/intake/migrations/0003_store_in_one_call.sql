-- Stores complaints of one or several tenants: receipt, number, person with key and contact points, texts, files, and the message, all in one
-- statement. The transaction is the caller's; or, `plainly`, a call is a transaction of its own. Then it names its tenants itself, looks before
-- it stores, and leaves out what is not plain: a key that is busy or was answered, somebody who is known, another policy or another day than the
-- caller had in mind, and every complaint of a person of whom one is left out. Who is left out is taken by a transaction that looks first.
--
-- Only what `taken` lets through goes further: a key that was answered meanwhile adds nothing. The number is known only here, and the time of
-- what is stored plainly, so both are put into the message here, as JSON text. Whatever belongs to a complaint or to a person is joined with
-- them by the tenant too.
--
-- Each key and point is looked up by itself, by its index also while the tables are small: the plan is kept when they no longer are.

-- Ends a transaction of which nothing may stay. What a plain one meets only the careful way can tell: a plan that is used up, no number left,
-- somebody who became known at this moment.
CREATE FUNCTION not_plain() RETURNS bigint
    LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not plain' USING ERRCODE = 'RC001';
END $$;

CREATE FUNCTION store_complaints(
    plainly boolean, lock_timeout text, hole text, hole_at text, -- $1 to $4: what stands in the bodies where number and time belong
    -- $5 to $12: tenants
    uuid[], integer[], integer[], text[], text[], timestamptz[], timestamptz[], bigint[],
    -- $13 to $30: complaints
    uuid[], uuid[], text[], bytea[], text[], uuid[], uuid[], timestamptz[], uuid[], text[], bytea[], text[], text[], text[], integer[], bigint[],
    uuid[], text[],
    uuid[], uuid[], bytea[], -- $31 to $33: people
    uuid[], text[], bytea[], uuid[], -- $34 to $37: contact points
    uuid[], uuid[], uuid[], text[], bytea[], text[], -- $38 to $43: texts
    uuid[], uuid[], uuid[], text[], integer[], bytea[], bytea[] -- $44 to $50: files
) RETURNS TABLE (place bigint, number text, count bigint, today bigint, points bigint, received_at timestamptz, outbox_id bigint)
    LANGUAGE plpgsql SECURITY INVOKER SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
IF $1 THEN
    PERFORM set_config('app.tenant_id', ($5)[1]::text, true), set_config('app.tenant_ids', ($5)[2:]::text, true),
            set_config('lock_timeout', $2, true);
END IF;
RETURN QUERY
WITH tenancy AS MATERIALIZED (
    SELECT t.*, coalesce((SELECT c.now FROM test_clock c WHERE c.tenant_id = t.tenant_id), clock_timestamp()) AS now,
           (SELECT max(p.version) FROM policy p WHERE p.tenant_id = t.tenant_id) AS newest
      FROM unnest($5, $6, $7, $8, $9, $10, $11, $12)
        AS t (tenant_id, policy_version, generation, day, subject, begins, ends, a_day)
), offered AS MATERIALIZED (
    SELECT o.*, t.policy_version, t.generation, t.day, t.subject, t.a_day, coalesce(o.stated_at, t.now) AS received_at,
           t.newest IS NOT DISTINCT FROM t.policy_version AND t.now >= t.begins AND t.now < t.ends AS is_expected
      FROM unnest($13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)
           WITH ORDINALITY
        AS o (tenant_id, complaint_id, key, request_sha256, source, source_id, complainant_id, stated_at, duplicate_of,
              words, sealed_contact, counter, before, after, width, last, message_id, body, place)
      JOIN tenancy t USING (tenant_id)
), new_point AS MATERIALIZED (
    SELECT * FROM unnest($34, $35, $36, $37) AS p (tenant_id, kind, blind, complainant_id)
), wanted AS MATERIALIZED (
    SELECT o.tenant_id, o.complainant_id, o.is_expected,
           pg_try_advisory_xact_lock(hashtextextended(o.tenant_id::text || ' receipt ' || o.key, 0)) AS is_free,
           (SELECT true FROM receipt r WHERE r.tenant_id = o.tenant_id AND r.key = o.key) AS is_answered
      FROM offered o
     WHERE $1
), left_out AS MATERIALIZED (
    SELECT tenant_id, complainant_id FROM wanted WHERE NOT is_expected OR NOT is_free OR is_answered
     UNION
    SELECT p.tenant_id, p.complainant_id
      FROM new_point p
     WHERE $1 AND (SELECT true FROM contact_point c WHERE c.tenant_id = p.tenant_id AND c.kind = p.kind AND c.blind = p.blind)
), taken AS (
    INSERT INTO receipt (tenant_id, key, request_sha256, complaint_id)
    SELECT tenant_id, key, request_sha256, complaint_id
      FROM offered
     WHERE (tenant_id, complainant_id) NOT IN (SELECT tenant_id, complainant_id FROM left_out)
        ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING tenant_id, complaint_id
), fresh AS (
    SELECT o.*,
           count(*) OVER (PARTITION BY o.tenant_id, counter) AS together,
           row_number() OVER (PARTITION BY o.tenant_id, counter ORDER BY place) AS turn
      FROM offered o
      JOIN taken USING (tenant_id, complaint_id)
), counted AS (
    INSERT INTO counter AS c (tenant_id, name, count)
    SELECT tenant_id, name, added
      FROM (SELECT tenant_id, counter AS name, count(*) AS added FROM fresh GROUP BY tenant_id, counter
             UNION ALL
            SELECT tenant_id, day, count(*) FROM fresh GROUP BY tenant_id, day) AS each
     ORDER BY tenant_id, name
        ON CONFLICT (tenant_id, name) DO UPDATE SET count = c.count + excluded.count
    RETURNING tenant_id, name, count
), counts AS (
    SELECT f.*, (c.count - f.together + f.turn) AS n, d.count AS today
      FROM fresh f
      JOIN counted c ON c.tenant_id = f.tenant_id AND c.name = f.counter
      JOIN counted d ON d.tenant_id = f.tenant_id AND d.name = f.day
), numbered AS (
    SELECT *, before || lpad(n::text, greatest(width, length(n::text)), '0') || after AS number FROM counts
), person AS (
    INSERT INTO data_key (tenant_id, owner_id, generation, wrapped_key)
    SELECT k.tenant_id, k.owner_id, t.generation, k.wrapped_key
      FROM unnest($31, $32, $33) AS k (tenant_id, owner_id, wrapped_key)
      JOIN tenancy t USING (tenant_id)
     WHERE (k.tenant_id, k.owner_id) IN (SELECT tenant_id, complainant_id FROM fresh)
), due_point AS (
    SELECT * FROM new_point WHERE (tenant_id, complainant_id) IN (SELECT tenant_id, complainant_id FROM fresh)
), point AS (
    INSERT INTO contact_point (tenant_id, kind, blind, complainant_id)
    SELECT tenant_id, kind, blind, complainant_id
      FROM due_point
     ORDER BY tenant_id, kind, blind
        ON CONFLICT DO NOTHING
    RETURNING complainant_id
), stored AS (
    INSERT INTO complaint (tenant_id, complaint_id, number, source, source_id, complainant_id, policy_version,
                           received_at, duplicate_of, words, sealed_contact)
    SELECT tenant_id, complaint_id, number, source, source_id, complainant_id, policy_version, received_at, duplicate_of,
           words::jsonb, sealed_contact
      FROM numbered
), words AS (
    INSERT INTO free_text (tenant_id, text_id, owner_id, case_id, kind, sealed, created_by)
    SELECT f.tenant_id, t.text_id, f.complainant_id, f.complaint_id, t.kind, t.sealed, t.created_by
      FROM unnest($38, $39, $40, $41, $42, $43) AS t (tenant_id, text_id, case_id, kind, sealed, created_by)
      JOIN fresh f ON f.tenant_id = t.tenant_id AND f.complaint_id = t.case_id
), file AS (
    INSERT INTO attachment (tenant_id, attachment_id, complaint_id, owner_id, media_type, bytes, sealed_name, sealed)
    SELECT f.tenant_id, a.attachment_id, f.complaint_id, f.complainant_id, a.media_type, a.bytes, a.sealed_name, a.sealed
      FROM unnest($44, $45, $46, $47, $48, $49, $50)
           AS a (tenant_id, attachment_id, complaint_id, media_type, bytes, sealed_name, sealed)
      JOIN fresh f ON f.tenant_id = a.tenant_id AND f.complaint_id = a.complaint_id
), told AS (
    INSERT INTO outbox (tenant_id, message_id, subject, body)
    SELECT tenant_id, message_id, subject,
           convert_to(replace(replace(body, $3, to_json(number)::text),
                              $4, '"' || to_char(received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"'), 'UTF8')
      FROM numbered
     ORDER BY place
    RETURNING tenant_id, message_id, id
)
SELECT n.place, n.number,
       CASE WHEN $1 AND (n.n > n.last OR n.today > n.a_day
                         OR (SELECT count(*) FROM point) <> (SELECT count(*) FROM due_point)) THEN not_plain() ELSE n.n END,
       n.today, (SELECT count(*) FROM point), n.received_at, t.id
  FROM numbered n
  JOIN told t ON t.tenant_id = n.tenant_id AND t.message_id = n.message_id;
END $$;

DO $$
BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION not_plain TO %I, %I', current_schema() || '_api', current_schema() || '_worker');
    EXECUTE format('GRANT EXECUTE ON FUNCTION store_complaints TO %I, %I', current_schema() || '_api', current_schema() || '_worker');
END $$;
REVOKE ALL ON FUNCTION not_plain FROM PUBLIC;
REVOKE ALL ON FUNCTION store_complaints FROM PUBLIC;
