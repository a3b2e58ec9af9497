"""What stands once: no two rows of a table under one key, whether or not a constraint of the database says so."""

from __future__ import annotations

from typing import Final

from services.audit.look import Look
from services.audit.streams import SERVICES
from services.audit.tenants import as_uuid

# (promise that a second row breaks, table, its key). What another check counts by itself is not here: receipts, entries,
# assignments, announcements, deliveries, attempts, sums.
KEYS: Final = (
    ("I9", "intake.tenant", "tenant_id"),
    ("I14", "intake.slug", "slug"),
    ("I14", "intake.mail_address", "token"),
    ("I15", "intake.tenant_key", "tenant_id, generation"),
    ("I15", "intake.data_key", "tenant_id, owner_id"),
    ("I2", "intake.contact_point", "tenant_id, kind, blind"),
    ("I9", "intake.source", "tenant_id, source_id"),
    ("I9", "intake.source", "tenant_id, name"),
    ("I2", "intake.complaint", "tenant_id, complaint_id"),
    ("I2", "intake.counter", "tenant_id, name"),
    ("I15", "intake.free_text", "tenant_id, text_id"),
    ("I15", "intake.attachment", "tenant_id, attachment_id"),
    ("I15", "intake.access", "tenant_id, access_id"),
    ("I2", "intake.import", "tenant_id, import_id"),
    ("I2", "intake.import_chunk", "tenant_id, import_id, place"),
    ("I15", "intake.import_fault", "tenant_id, import_id, row, place"),
    ("I9", "intake.policy_proposal", "tenant_id, proposal_id"),
    ("I2", 'routing."case"', "tenant_id, case_id"),
    ("I2", 'routing."case"', "tenant_id, subject_key"),
    ("I2", 'routing."case"', "tenant_id, year"),
    ("I3", "routing.assignment", "tenant_id, assignment_id"),
    ("I13", "routing.approval", "tenant_id, case_id, seq"),
    ("I4", "routing.wake_up", "tenant_id, case_id"),
    ("I9", "routing.staff_member", "tenant_id, staff_id"),
    ("I9", "routing.staff_revision", "tenant_id"),
    ("I4", "routing.live_tick", "one"),
    ("I4", "routing.clock_operation", "tenant_id, operation_id"),
    ("I13", "routing.move", "tenant_id, move_id"),
    ("I13", "routing.move", "tenant_id, cause, policy_version"),
    ("I13", "routing.move", "tenant_id, cause, calendar, revision"),
    ("I9", "sla.timeline_entry", "tenant_id, case_id, seq"),
    ("I4", "sla.watched_case", "tenant_id, case_id"),
    ("I4", "sla.ledger_position", "tenant_id, case_id, key"),
    ("I4", "sla.tick", "tenant_id"),
    ("I4", "sla.advance", "tenant_id, operation_id"),
    ("I9", "notify.entry", "tenant_id, case_id, seq"),
    ("I7", "notify.event", "tenant_id, event_id"),
    ("I7", "notify.delivery", "tenant_id, delivery_id"),
    ("I6", "notify.delivery_attempt", "tenant_id, delivery_id, attempt"),
    ("I7", "notify.delivery_queue", "tenant_id, delivery_id"),
    ("I5", "notify.provider", "tenant_id, provider_id"),
    ("I5", "notify.receipt_address", "tenant_id, provider_id"),
    ("I5", "notify.receipt", "tenant_id, provider_id, webhook_id"),
    ("I5", "notify.endpoint", "tenant_id, endpoint_id"),
    ("I6", "notify.budget", "tenant_id, scope, subject"),
    ("I6", "notify.day_budget", "tenant_id, channel, day"),
    ("I4", "notify.settlement", "tenant_id, operation_id"),
    ("I9", "reporting.entry", "tenant_id, case_id, seq"),
    ("I13", "reporting.standing", "tenant_id, case_id"),
    ("I8", "reporting.announcement", "tenant_id, case_id, key"),
    ("I8", "reporting.posting", "tenant_id, posting_id"),
    ("I8", "reporting.delivery", "tenant_id, delivery_id"),
    ("I8", "reporting.fact", "tenant_id, case_id"),
    *(
        (check, f"{service}.{table}", key)
        for service in SERVICES
        for check, table, key in (
            ("I9", "outbox", "tenant_id, message_id"),
            ("I9", "outbox", "stream_seq"),
            ("I9", "inbox", "tenant_id, consumer, message_id"),
            ("I9", "dead_letter", "tenant_id, consumer, message_key"),
            ("I9", "dead_letter", "tenant_id, dead_letter_id"),
            ("I2", "idempotency_key", "tenant_id, key"),
            ("I9", "credential", "tenant_id, credential_id"),
            ("I9", "policy", "tenant_id, version"),
            ("I9", "calendar", "tenant_id, name, revision"),
            ("I9", "staff", "tenant_id, staff_id"),
            ("I9", "test_clock", "tenant_id"),
            ("I9", "relay_state", "one"),
        )
    ),
    *(("I9", f"{service}.tenant", "tenant_id") for service in SERVICES if service != "intake"),
)

# Of ids that make up the name, those that lie with two tenants are that finding and no other.
TWICE: Final = """
SELECT '{check}' AS check, '{table}' AS place, concat_ws(' ', {key}) AS name, count(*) AS n
  FROM {table}
 WHERE ({key}) IS NOT NULL
 GROUP BY {key}
HAVING count(*) > 1"""


async def check(look: Look) -> None:
    parts = [TWICE.format(check=check, table=table, key=key) for check, table, key in KEYS]
    look.findings.looked_at(len(parts))
    for row in await look.rows("\nUNION ALL".join(parts)):
        ids = {as_uuid(part) for part in row["name"].split()}
        if ids & look.misplaced:
            continue
        subject = f"{row['place']} {row['name']}"
        if row["place"] in ("intake.complaint", 'routing."case"'):
            subject = row["name"].split()[-1]  # as the other checks name it
        look.findings.add(
            row["check"],
            subject,
            f"{row['n']} rows in {row['place']} under one key",
            is_extra=True,
            may_pass=row["place"].endswith(".outbox"),  # the relay may be putting a stream right
        )
