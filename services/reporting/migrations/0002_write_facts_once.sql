-- What a fact is looked up by stays as it is, and no index tells its seq or a sum's amount: later versions of a row stay on its page.
ALTER TABLE fact SET (fillfactor = 80);
DROP INDEX fact_by_receipt;
CREATE INDEX fact_by_receipt ON fact (tenant_id, received_at, case_id);
DROP INDEX fact_by_day;
CREATE INDEX fact_by_day ON fact (tenant_id, day);

ALTER TABLE rollup SET (fillfactor = 60);
DROP INDEX rollup_empty;

-- Notes are found by when they are due, and taken with all others about the same case.
ALTER TABLE stale DROP CONSTRAINT stale_pkey;
ALTER TABLE stale ADD PRIMARY KEY (tenant_id, case_id, id);
DROP INDEX stale_case;
CREATE INDEX stale_due ON stale (tenant_id, not_before, id);
