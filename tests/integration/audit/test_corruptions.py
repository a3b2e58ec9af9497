"""Each promise is broken in several ways, on a true state; exactly the counter of that promise tells.

What does not interfere is spoilt together, one way for each promise at most: so each counter answers for one of them. All of it
happens in a transaction that is rolled back. Foreign keys and triggers are off meanwhile, and constraints are dropped where they
forbid it: a bug of ours, or a disk, need not respect them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import asyncpg
import msgspec
import nats
import pytest
from nats.js import JetStreamContext

from services.audit.journal import Line
from services.audit.look import connect
from services.audit.streams import SERVICES
from tests.integration.audit.conftest import Evidence, State

# (check, what is spoilt, statements, findings if there are more than one); {settled}, {late}, … are ids of the state.
Corruption = tuple[str, str, str, int]

SEVERAL = 0
"""How many findings there are depends on how many days, states, categories and attempts there are."""


def everywhere(statement: str) -> str:
    """The same in every service; @ stands for its name."""
    return "; ".join(statement.replace("@", service) for service in SERVICES)


TOGETHER: list[list[Corruption]] = [
    [
        (
            "I1",
            "a complaint is lost",
            "DELETE FROM intake.complaint WHERE complaint_id = '{settled}'",
            1,
        ),
        (
            "I2",
            "two complaints under one key",
            "ALTER TABLE intake.receipt DROP CONSTRAINT IF EXISTS receipt_pkey; INSERT INTO intake.receipt "
            "(tenant_id, key, request_sha256, complaint_id) SELECT tenant_id, key, request_sha256, '{late}' "
            "FROM intake.receipt WHERE complaint_id = '{settled}'",
            2,
        ),
        (
            "I3",
            "no assignment",
            "DELETE FROM routing.assignment WHERE case_id = '{running}'",
            1,
        ),
        (
            "I4",
            "sla does not watch",
            "DELETE FROM sla.watched_case WHERE case_id = '{running}'",
            1,
        ),
        (
            "I5",
            "a message is lost",
            "DELETE FROM notify.delivery_attempt WHERE delivery_id = '{sms}'; DELETE FROM notify.delivery WHERE "
            "delivery_id = '{sms}'",
            2,
        ),
        (
            "I6",
            "an e-mail was taken three times",
            "INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at, ended_at, outcome) "
            "SELECT tenant_id, delivery_id, n, key, at, ended_at, outcome FROM notify.delivery_attempt, "
            "generate_series(2, 3) AS n WHERE delivery_id = '{email}'",
            1,
        ),
        (
            "I8",
            "a sum is wrong",
            "UPDATE reporting.rollup SET amount = amount + 1 WHERE dimension = 'all' AND measure = 'late'",
            1,
        ),
        (
            "I9",
            "a message was not published",
            "UPDATE routing.outbox SET published_at = NULL, stream_seq = NULL WHERE message_id = '{message}'",
            1,
        ),
        (
            "I10",
            "an act would be answered otherwise",
            "UPDATE routing.idempotency_key SET body = '{{}}' WHERE key = 'act-1'",
            1,
        ),
        (
            "I13",
            "a due time differs",
            """UPDATE routing."case" SET due_at = due_at + interval '1 day' WHERE case_id = '{running}'""",
            1,
        ),
    ],
    [
        (
            "I1",
            "a complaint that came by mail is lost",
            "DELETE FROM intake.complaint WHERE source = 'email'",
            2,
        ),
        (
            "I2",
            "a complaint is stored twice",
            "INSERT INTO intake.complaint SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', "
            "gen_random_uuid()))).* FROM intake.complaint c WHERE complaint_id = '{settled}'",
            1,
        ),
        (
            "I3",
            "two active assignments",
            "DROP INDEX IF EXISTS routing.assignment_one_active; INSERT INTO routing.assignment SELECT "
            "(jsonb_populate_record(a, jsonb_build_object('assignment_id', gen_random_uuid()))).* FROM "
            "routing.assignment a WHERE case_id = '{settled}' AND active",
            1,
        ),
        (
            "I4",
            "a wake-up has not happened",
            "UPDATE sla.watched_case SET wake_at = now() - interval '1 hour' WHERE case_id = '{running}'",
            1,
        ),
        (
            "I5",
            "an event is lost with its messages",
            "DELETE FROM notify.delivery_attempt WHERE delivery_id IN (SELECT delivery_id FROM notify.delivery "
            "WHERE event_id = '{event}'); DELETE FROM notify.delivery WHERE event_id = '{event}'; DELETE FROM "
            "notify.event WHERE event_id = '{event}'",
            SEVERAL,
        ),
        (
            "I6",
            "an SMS was taken twice",
            "INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at, ended_at, outcome) "
            "SELECT tenant_id, delivery_id, 2, key, at, ended_at, outcome FROM notify.delivery_attempt WHERE "
            "delivery_id = '{sms}'",
            1,
        ),
        (
            "I8",
            "a sum stands under another state",
            "UPDATE reporting.rollup SET part = 'archived' WHERE dimension = 'state' AND part = 'closed'",
            SEVERAL,
        ),
        (
            "I9",
            "a message is not known to its sender",
            "DELETE FROM routing.outbox WHERE message_id = '{message}'",
            5,
        ),
        (
            "I10",
            "a key stands for another complaint",
            "UPDATE intake.receipt SET complaint_id = '{late}' WHERE complaint_id = '{settled}'",
            1,
        ),
    ],
    [
        (
            "I1",
            "a complaint of a table is lost with its key",
            "DELETE FROM intake.receipt WHERE key LIKE 'row:%'; DELETE FROM intake.complaint WHERE source = 'csv'",
            2,
        ),
        (
            "I2",
            "a key is forgotten",
            "DELETE FROM intake.receipt WHERE complaint_id = '{settled}'",
            1,
        ),
        (
            "I3",
            "no assignment is active",
            "UPDATE routing.assignment SET active = false, ended_at = now() WHERE case_id = '{late}'",
            1,
        ),
        (
            "I4",
            "a wake-up of a sandbox has not happened",
            "UPDATE sla.watched_case SET wake_at = (SELECT now FROM routing.test_clock) WHERE case_id = '{late}'",
            1,
        ),
        (
            "I5",
            "a message waits and nobody looks",
            "UPDATE notify.delivery SET state = 'queued' WHERE delivery_id = '{sms}'",
            1,
        ),
        (
            "I7",
            "a message twice",
            "ALTER TABLE notify.delivery DROP CONSTRAINT IF EXISTS delivery_once; INSERT INTO notify.delivery "
            "SELECT (jsonb_populate_record(d, jsonb_build_object('delivery_id', gen_random_uuid()))).* FROM "
            "notify.delivery d WHERE delivery_id = '{sms}'",
            1,
        ),
        (
            "I8",
            "a sum stands on another day",
            "UPDATE reporting.rollup SET day = day + 1",
            SEVERAL,
        ),
        (
            "I9",
            "a message was told in other words",
            "UPDATE routing.outbox SET body = body || ' ' WHERE message_id = '{message}'",
            1,
        ),
        (
            "I13",
            "a number differs",
            """UPDATE routing."case" SET number = 'X-1' WHERE case_id = '{late}'""",
            1,
        ),
        (
            "I14",
            "a row of a tenant that does not exist",
            "INSERT INTO notify.day_budget (tenant_id, channel, day, used) VALUES (gen_random_uuid(), 'sms', "
            "'2026-01-01', 1)",
            1,
        ),
    ],
    [
        (
            "I1",
            "a complaint has not come to routing",
            "DELETE FROM routing.entry WHERE case_id = '{late}'; DELETE FROM routing.assignment WHERE case_id = "
            """'{late}'; DELETE FROM routing.wake_up WHERE case_id = '{late}'; DELETE FROM routing."case" WHERE """
            "case_id = '{late}'",
            1,
        ),
        (
            "I4",
            "a wake-up is forgotten",
            "UPDATE sla.watched_case SET wake_at = NULL WHERE case_id = '{running}'",
            1,
        ),
        (
            "I5",
            "a message still waits",
            "UPDATE notify.delivery SET state = 'queued' WHERE delivery_id = '{sms}'; INSERT INTO "
            "notify.delivery_queue (tenant_id, delivery_id, wake_at) VALUES ('{school}', '{sms}', now() + "
            "interval '1 hour')",
            1,
        ),
        (
            "I8",
            "a fact is lost",
            "DELETE FROM reporting.fact WHERE case_id = '{settled}'",
            SEVERAL,
        ),
        (
            "I9",
            "a message was not applied",
            "DELETE FROM sla.inbox WHERE consumer = 'sla-on-entry' AND message_id = '{message}'",
            1,
        ),
        (
            "I12",
            "a line is missing",
            "DELETE FROM routing.entry WHERE case_id = '{settled}' AND seq = 2",
            1,
        ),
        (
            "I15",
            "a refused complaint was stored",
            "INSERT INTO intake.complaint SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', "
            "'{nobody}', 'number', 'TS-9999'))).* FROM intake.complaint c WHERE complaint_id = '{settled}'; "
            "INSERT INTO intake.receipt (tenant_id, key, request_sha256, complaint_id) VALUES ('{school}', "
            "'api:malformed', sha256(''), '{nobody}')",
            1,
        ),
        (
            "I2",
            "the key of an act is forgotten",
            "DELETE FROM routing.idempotency_key WHERE key = 'act-2'",
            1,
        ),
        (
            "I3",
            "an assignment that no rule made",
            "UPDATE routing.assignment SET rule = 'another' WHERE case_id = '{second}'",
            1,
        ),
        (
            "I10",
            "a key would be answered with another status",
            "UPDATE routing.idempotency_key SET status = 200 WHERE key = 'act-3'",
            1,
        ),
    ],
    [
        (
            "I4",
            "both have forgotten the wake-up",
            "UPDATE sla.watched_case SET wake_at = NULL WHERE case_id = '{running}'; DELETE FROM "
            "routing.wake_up WHERE case_id = '{running}'",
            1,
        ),
        (
            "I5",
            "a message is called sent and no attempt got through",
            "UPDATE notify.delivery_attempt SET outcome = 'unavailable' WHERE delivery_id = '{sms}'",
            1,
        ),
        (
            "I8",
            "a fact is lost together with all that it adds",
            "DELETE FROM reporting.rollup WHERE tenant_id = '{other}'; DELETE FROM reporting.fact WHERE "
            "tenant_id = '{other}'",
            SEVERAL,
        ),
        (
            "I9",
            "a line has not come to sla",
            "DELETE FROM sla.timeline_entry WHERE case_id = '{settled}' AND seq = 2",
            1,
        ),
        (
            "I13",
            "a state differs",
            """UPDATE routing."case" SET state = 'received' WHERE case_id = '{settled}'""",
            1,
        ),
        (
            "I15",
            "a text of a refused request",
            "INSERT INTO intake.free_text SELECT (jsonb_populate_record(t, jsonb_build_object('text_id', "
            "gen_random_uuid(), 'case_id', '{nobody}'))).* FROM intake.free_text t WHERE case_id = '{settled}' "
            "AND kind = 'complaint'",
            1,
        ),
        (
            "I1",
            "a file is cut",
            "UPDATE intake.attachment SET sealed = substring(sealed FOR 40) WHERE complaint_id = '{whole}'",
            1,
        ),
        (
            "I2",
            "the hash of a request is lost",
            "UPDATE intake.receipt SET request_sha256 = '' WHERE complaint_id = '{late}'",
            1,
        ),
        (
            "I7",
            "a message to somebody else",
            "UPDATE notify.delivery SET addressee = 'nobody' WHERE delivery_id = '{email}'",
            1,
        ),
        (
            "I14",
            "an answer lies with another tenant",
            "UPDATE routing.idempotency_key SET tenant_id = '{other}' WHERE key = 'act-4'",
            1,
        ),
    ],
    [
        (
            "I4",
            "routing has forgotten the wake-up",
            "DELETE FROM routing.wake_up WHERE case_id = '{running}'",
            1,
        ),
        (
            "I8",
            "an amount is not counted",
            "DELETE FROM reporting.posting WHERE case_id = '{settled}'",
            2,
        ),
        (
            "I9",
            "a line has not come to notify",
            "DELETE FROM notify.entry WHERE case_id = '{settled}' AND seq = 2",
            1,
        ),
        (
            "I12",
            "the first line is missing",
            "DELETE FROM routing.entry WHERE case_id = '{settled}' AND seq = 1",
            1,
        ),
        (
            "I13",
            "an owner differs",
            """UPDATE routing."case" SET owner_staff = 'nobody' WHERE case_id = '{late}'""",
            1,
        ),
        (
            "I14",
            "a message lies with another tenant",
            "UPDATE routing.outbox SET tenant_id = '{other}' WHERE message_id = '{message}'",
            1,
        ),
        (
            "I15",
            "a complaint that nobody sent",
            "INSERT INTO intake.complaint SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', "
            "'{nobody}', 'number', 'TS-9999'))).* FROM intake.complaint c WHERE complaint_id = '{settled}'",
            1,
        ),
        (
            "I1",
            "the mail as it came is lost",
            "DELETE FROM intake.free_text WHERE kind = 'original'",
            1,
        ),
        (
            "I5",
            "the words of a message are lost",
            "UPDATE notify.delivery SET fields = '{{}}' WHERE delivery_id = '{sms}'",
            2,
        ),
    ],
    [
        (
            "I4",
            "the last lines were not looked at",
            "UPDATE sla.watched_case SET folded_seq = 1 WHERE case_id = '{settled}'",
            1,
        ),
        (
            "I8",
            "an effect is not counted",
            "DELETE FROM reporting.announcement WHERE case_id = '{late}'",
            3,
        ),
        (
            "I9",
            "a line has not come to reporting",
            "DELETE FROM reporting.entry WHERE case_id = '{settled}' AND seq = 2",
            1,
        ),
        (
            "I13",
            "a closing differs",
            """UPDATE routing."case" SET closed = false WHERE case_id = '{settled}'""",
            1,
        ),
        (
            "I14",
            "a webhook goes to another tenant's endpoint",
            "UPDATE notify.delivery SET addressee = (SELECT endpoint_id::text FROM notify.endpoint WHERE "
            "tenant_id = '{other}') WHERE delivery_id = '{posted}'",
            1,
        ),
        (
            "I15",
            "a forged call was stored",
            "INSERT INTO intake.complaint SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', "
            "'{nobody}', 'number', 'TS-9999'))).* FROM intake.complaint c WHERE complaint_id = '{called}'; "
            "INSERT INTO intake.receipt (tenant_id, key, request_sha256, complaint_id) VALUES ('{school}', "
            "'hook:{nobody}:call_forged', sha256(''), '{nobody}')",
            1,
        ),
        (
            "I1",
            "a file is lost",
            "DELETE FROM intake.attachment WHERE complaint_id = '{whole}'",
            1,
        ),
        (
            "I5",
            "an event tells otherwise",
            "UPDATE notify.event SET number = 'X-1' WHERE event_id = '{event}'",
            SEVERAL,
        ),
    ],
    [
        (
            "I4",
            "an effect happened twice",
            "INSERT INTO sla.announcement SELECT (jsonb_populate_record(a, jsonb_build_object('key', a.key || "
            "':again'))).* FROM sla.announcement a WHERE case_id = '{late}'",
            3,
        ),
        (
            "I8",
            "a message is counted otherwise",
            "UPDATE reporting.delivery SET state = 'dead' WHERE delivery_id = '{sms}'",
            1,
        ),
        (
            "I9",
            "a message was given up",
            "INSERT INTO sla.dead_letter (tenant_id, dead_letter_id, consumer, message_key, subject, body, "
            "body_sha256, reason, error_class, error, attempts, first_at) VALUES ('{school}', "
            "gen_random_uuid(), 'sla-on-entry', 'ROUTING:1', 'routing.v1.x', '', '', 'unreadable', 'X', '', 1, "
            "now())",
            1,
        ),
        (
            "I12",
            "the last line is missing",
            "DELETE FROM routing.entry WHERE case_id = '{settled}' AND seq = (SELECT max(seq) FROM "
            "routing.entry WHERE case_id = '{settled}')",
            1,
        ),
        (
            "I15",
            "a person of a refused request",
            "INSERT INTO intake.data_key (tenant_id, owner_id, generation, wrapped_key) VALUES ('{school}', "
            "'{nobody}', 1, '')",
            1,
        ),
        (
            "I1",
            "a text holds another's words",
            "UPDATE intake.free_text SET sealed = (SELECT sealed FROM intake.free_text WHERE case_id = "
            "'{late}') WHERE case_id = '{running}'",
            1,
        ),
        (
            "I6",
            "a budget was not spent",
            "UPDATE notify.day_budget SET used = used - 1 WHERE tenant_id = '{other}' AND channel = 'email'",
            1,
        ),
        (
            "I13",
            "a complaint is compared by other words",
            "UPDATE intake.complaint SET words = '{{}}' WHERE complaint_id = '{running}'",
            1,
        ),
        (
            "I14",
            "mail of another tenant",
            "UPDATE intake.mail_address SET owner_id = '{other}' WHERE owner_id = '{school}'",
            1,
        ),
    ],
    [
        (
            "I4",
            "an effect is lost",
            "DELETE FROM sla.announcement WHERE case_id = '{late}' AND kind = 'escalated'",
            1,
        ),
        (
            "I12",
            "a line goes back in time",
            "UPDATE routing.entry SET at = at - interval '1 year' WHERE case_id = '{settled}' AND seq = 3",
            1,
        ),
        (
            "I15",
            "a refusal is kept as the answer",
            "INSERT INTO routing.idempotency_key (tenant_id, key, request_sha256, status, headers, body) VALUES "
            "('{school}', 'refused', sha256(''), 422, '{{}}', '')",
            2,
        ),
        (
            "I1",
            "a person's key is lost",
            "DELETE FROM intake.data_key WHERE owner_id = (SELECT complainant_id FROM intake.complaint WHERE "
            "complaint_id = '{second}')",
            1,
        ),
        (
            "I5",
            "attempts at no message",
            "INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at) VALUES ('{school}', "
            "'{nobody}', 1, '{nobody}', now())",
            1,
        ),
        (
            "I8",
            "a fact is late, and is not",
            "UPDATE reporting.fact SET is_late = NOT is_late WHERE case_id = '{late}'",
            1,
        ),
        (
            "I9",
            "a copy of a policy differs",
            "UPDATE sla.policy SET reason = 'x' WHERE tenant_id = '{school}'",
            1,
        ),
        (
            "I13",
            "a copy of a line is silent",
            "UPDATE notify.entry SET silent = true WHERE case_id = '{late}'",
            1,
        ),
    ],
    [
        (
            "I4",
            "an amount was posted twice",
            "INSERT INTO sla.ledger_posting SELECT (jsonb_populate_record(p, jsonb_build_object('posting_id', "
            "gen_random_uuid()))).* FROM sla.ledger_posting p WHERE case_id = '{settled}'",
            5,
        ),
        (
            "I13",
            "a line was changed",
            """UPDATE routing.entry SET data = '{{"step": "x"}}' WHERE case_id = '{settled}' AND seq = 2""",
            1,
        ),
        (
            "I15",
            "a case of a refused complaint",
            "INSERT INTO sla.watched_case (tenant_id, case_id, case_kind, policy_version) VALUES ('{school}', "
            "'{nobody}', 'complaint', 1)",
            1,
        ),
        (
            "I1",
            "a person is erased, and nobody did it",
            "UPDATE intake.data_key SET wrapped_key = NULL, erased_at = now() WHERE owner_id = (SELECT "
            "complainant_id FROM intake.complaint WHERE complaint_id = '{whole}')",
            2,
        ),
        (
            "I5",
            "a reason is wrong",
            "UPDATE notify.delivery SET reason = 'no_contact' WHERE delivery_id = '{email}'",
            1,
        ),
        (
            "I8",
            "a fact bears another number",
            "UPDATE reporting.fact SET number = 'X-1' WHERE case_id = '{running}'",
            1,
        ),
        (
            "I9",
            "a key is not known everywhere",
            "DELETE FROM notify.credential WHERE role = 'admin' AND tenant_id = '{school}'",
            1,
        ),
    ],
    [
        (
            "I4",
            "a posting is lost",
            "DELETE FROM sla.ledger_posting WHERE case_id = '{settled}'",
            5,
        ),
        (
            "I13",
            "a copy of a line was changed",
            "UPDATE sla.timeline_entry SET entry = '{{}}' WHERE case_id = '{settled}' AND seq = 2",
            1,
        ),
        (
            "I1",
            "a person's key is forgotten as erased, with all that was said",
            "DELETE FROM intake.access WHERE act = 'erase'",
            1,
        ),
        (
            "I5",
            "a round nobody asked for",
            "UPDATE notify.delivery SET round = 1 WHERE delivery_id = '{posted}'",
            1,
        ),
        (
            "I8",
            "a fact says otherwise inside",
            """UPDATE reporting.fact SET body = body || '{{"complainant_id": "x"}}' WHERE case_id = '{second}'""",
            1,
        ),
        (
            "I9",
            "a member of staff is elsewhere",
            "UPDATE intake.staff SET unit = 'x' WHERE staff_id = 'hao.ran' AND tenant_id = '{school}'",
            2,
        ),
        (
            "I15",
            "a file that no complaint names",
            "INSERT INTO intake.attachment SELECT (jsonb_populate_record(a, jsonb_build_object('attachment_id', "
            "'{nobody}'))).* FROM intake.attachment a WHERE complaint_id = '{whole}'",
            1,
        ),
    ],
    [
        (
            "I4",
            "the ledger stands elsewhere",
            "UPDATE sla.ledger_position SET posted_minor = posted_minor + 1 WHERE case_id = '{settled}'",
            2,
        ),
        (
            "I12",
            "a line stands twice",
            "ALTER TABLE routing.entry DROP CONSTRAINT IF EXISTS entry_pkey; INSERT INTO routing.entry SELECT * "
            "FROM routing.entry WHERE case_id = '{settled}' AND seq = 2",
            1,
        ),
        (
            "I1",
            "how a person is reached is lost",
            "UPDATE intake.complaint SET sealed_contact = NULL WHERE complaint_id = '{second}'",
            1,
        ),
        (
            "I8",
            "an effect is counted otherwise",
            "UPDATE reporting.announcement SET effect = '{{}}' WHERE case_id = '{late}' AND effect ->> 'kind' = "
            "'escalated'",
            1,
        ),
        (
            "I9",
            "a short name leads nowhere",
            "DELETE FROM intake.slug WHERE slug = 'other'",
            1,
        ),
        (
            "I13",
            "a standing says otherwise",
            """UPDATE reporting.standing SET body = body || '{{"clocks": []}}' WHERE case_id = '{whole}'""",
            1,
        ),
        (
            "I15",
            "a text that no complaint names",
            "INSERT INTO intake.free_text SELECT (jsonb_populate_record(t, jsonb_build_object('text_id', "
            "'{nobody}'))).* FROM intake.free_text t WHERE case_id = '{late}'",
            1,
        ),
    ],
    [
        (
            "I13",
            "reporting keeps an older standing",
            "UPDATE reporting.standing SET seq = seq - 1 WHERE case_id = '{settled}'",
            1,
        ),
        (
            "I1",
            "the keys of a tenant are lost",
            "DELETE FROM intake.tenant_key WHERE tenant_id = '{other}'",
            8,
        ),
        (
            "I4",
            "an effect says otherwise",
            "UPDATE sla.announcement SET clause = NULL WHERE case_id = '{late}' AND kind = 'escalated'",
            1,
        ),
        (
            "I8",
            "an amount is counted twice",
            "ALTER TABLE reporting.posting DROP CONSTRAINT IF EXISTS posting_pkey; INSERT INTO "
            "reporting.posting SELECT * FROM reporting.posting WHERE case_id = '{settled}' ORDER BY 2 LIMIT 1",
            1,
        ),
        (
            "I9",
            "a message is said to be elsewhere in the stream",
            "UPDATE intake.outbox SET stream_seq = stream_seq + 1000 WHERE id = (SELECT min(id) FROM intake.outbox)",
            1,
        ),
    ],
    [
        (
            "I14",
            "a complaint lies with another tenant",
            "UPDATE intake.complaint SET tenant_id = '{other}' WHERE complaint_id = '{late}'",
            3,
        ),
        (
            "I1",
            "a complaint came another way than its key says",
            "UPDATE intake.complaint SET source_id = NULL WHERE complaint_id = '{called}'",
            1,
        ),
        (
            "I4",
            "a count of amounts is wrong",
            "UPDATE sla.watched_case SET postings = 5 WHERE case_id = '{running}'",
            1,
        ),
        (
            "I9",
            "something was applied that nobody told",
            "INSERT INTO sla.inbox (tenant_id, consumer, message_id) VALUES ('{school}', 'sla-on-entry', '{nobody}')",
            1,
        ),
        (
            "I13",
            "sla knows another number",
            "UPDATE sla.watched_case SET number = 'X-1' WHERE case_id = '{second}'",
            1,
        ),
    ],
    [
        (
            "I14",
            "a case lies with another tenant",
            """UPDATE routing."case" SET tenant_id = '{other}' WHERE case_id = '{late}'; UPDATE routing.entry SET """
            "tenant_id = '{other}' WHERE case_id = '{late}'",
            2,
        ),
        (
            "I1",
            "an import has lost count",
            "UPDATE intake.import SET stored = 2, rows = 3",
            1,
        ),
        (
            "I4",
            "a wake-up by another clock",
            "UPDATE routing.wake_up SET sandbox = true WHERE case_id = '{second}'",
            1,
        ),
        (
            "I9",
            "changes of staff are forgotten",
            "DELETE FROM routing.staff_revision WHERE tenant_id = '{other}'",
            1,
        ),
        (
            "I13",
            "a request waits that nobody made",
            "UPDATE routing.approval SET requested_by = 'nobody' WHERE case_id = '{second}'",
            1,
        ),
    ],
    [
        (
            "I14",
            "a message to a person lies with another tenant",
            "UPDATE notify.delivery SET tenant_id = '{other}' WHERE delivery_id = '{sms}'",
            4,
        ),
        (
            "I1",
            "an import is lost",
            "DELETE FROM intake.import",
            2,
        ),
        (
            "I4",
            "a clock is set back",
            "UPDATE sla.tick SET at = at - interval '1 hour' WHERE tenant_id = '{school}'",
            1,
        ),
        (
            "I13",
            "a case stands elsewhere in the work list",
            """UPDATE routing."case" SET rank = 5 WHERE case_id = '{whole}'""",
            1,
        ),
    ],
    [
        (
            "I14",
            "a fact lies with another tenant",
            "UPDATE reporting.fact SET tenant_id = '{other}' WHERE case_id = '{settled}'",
            1,
        ),
        (
            "I4",
            "the live time is lost",
            "DELETE FROM routing.live_tick",
            1,
        ),
    ],
    [
        (
            "I14",
            "a text lies with another tenant",
            "UPDATE intake.free_text SET tenant_id = '{other}' WHERE case_id = '{settled}'",
            3,
        ),
        (
            "I4",
            "a clock has not gone where it was told",
            "UPDATE routing.clock_operation SET target = target + interval '1 day'",
            1,
        ),
    ],
    [
        (
            "I1",
            "a text is lost",
            "DELETE FROM intake.free_text WHERE case_id = '{settled}' AND kind = 'finding'",
            1,
        ),
        (
            "I4",
            "sla has not gone along",
            "UPDATE sla.advance SET settled_at = NULL",
            1,
        ),
        (
            "I13",
            "a publication reached no case",
            "DELETE FROM routing.move WHERE cause = 'policy'",
            1,
        ),
    ],
    [
        (
            "I2",
            "a counter is behind, and one is of no period",
            "UPDATE intake.counter SET count = count - 1 WHERE name LIKE 'number:%' AND tenant_id = '{school}'; "
            "UPDATE intake.counter SET name = name || 'x' WHERE name LIKE 'number:%' AND tenant_id = '{other}'",
            2,
        ),
        (
            "I4",
            "an amount is another's",
            "UPDATE sla.ledger_posting SET party = 'nobody' WHERE case_id = '{settled}' AND rule = 'loss'",
            1,
        ),
        (
            "I13",
            "a request waits that was decided",
            "UPDATE routing.approval SET decision = NULL, decided_seq = NULL, decided_by = NULL, decided_at = "
            "NULL WHERE case_id = '{settled}'",
            1,
        ),
    ],
    [
        (
            "I4",
            "what was imposed says otherwise",
            "UPDATE sla.ledger_position SET penalty = '{{}}' WHERE case_id = '{settled}' AND key LIKE 'loss%'",
            1,
        ),
    ],
    [
        (
            "I4",
            "notify has not gone along",
            "DELETE FROM notify.settlement",
            1,
        ),
        (
            "I7",
            "a message under two keys",
            "INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at, ended_at, outcome) "
            "SELECT tenant_id, delivery_id, 2, gen_random_uuid(), at, ended_at, 'unavailable' FROM "
            "notify.delivery_attempt WHERE delivery_id = '{sms}'",
            1,
        ),
    ],
    [
        (
            "I4",
            "why a clock was moved is lost",
            "DELETE FROM routing.clock_operation",
            1,
        ),
    ],
    [
        (
            "I13",
            "a complaint is a duty's",
            'ALTER TABLE routing."case" DROP CONSTRAINT case_duty_has_year; '
            """UPDATE routing."case" SET year = 2026 WHERE case_id = '{settled}'""",
            1,
        ),
        (
            "I8",
            "a fact is empty",
            "ALTER TABLE reporting.fact DROP CONSTRAINT fact_is_whole; "
            "UPDATE reporting.fact SET body = NULL WHERE case_id = '{late}'",
            1,
        ),
    ],
    [
        (
            "I1",
            "a bit of a text is turned",
            "UPDATE intake.free_text SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE case_id = '{running}'",
            1,
        ),
        (
            "I2",
            "two keys for one act",
            "INSERT INTO routing.idempotency_key (tenant_id, key, request_sha256, status, headers, body) SELECT tenant_id, "
            "'again', request_sha256, status, headers, body FROM routing.idempotency_key WHERE key = 'act-1'",
            1,
        ),
        (
            "I3",
            "somebody stands in for nobody",
            "UPDATE routing.assignment SET in_place_of = 'nobody' WHERE case_id = '{second}'",
            1,
        ),
        (
            "I4",
            "a wake-up of no case",
            "INSERT INTO routing.wake_up VALUES ('{other}', '{nobody}', now() + interval '1 day', false)",
            1,
        ),
        (
            "I5",
            "a message went to a stranger",
            "UPDATE notify.delivery SET recipient = 'x****@example.org' WHERE delivery_id = '{email}'",
            1,
        ),
        (
            "I9",
            "a relay knows two streams",
            "ALTER TABLE routing.relay_state DROP CONSTRAINT relay_state_pkey; INSERT INTO routing.relay_state SELECT * FROM "
            "routing.relay_state",
            1,
        ),
        (
            "I10",
            "a repeat of an act would be refused",
            "UPDATE routing.idempotency_key SET request_sha256 = sha256('x') WHERE key = 'act-2'",
            1,
        ),
        (
            "I13",
            "a case has changed later than its timeline",
            """UPDATE routing."case" SET changed_at = changed_at + interval '1 hour' WHERE case_id = '{late}'""",
            1,
        ),
    ],
    [
        (
            "I1",
            "a person is not known by their number",
            "DELETE FROM intake.contact_point WHERE complainant_id = (SELECT complainant_id FROM intake.complaint WHERE "
            "complaint_id = '{second}')",
            1,
        ),
        (
            "I2",
            "a mail that comes again would be another",
            "UPDATE intake.receipt SET request_sha256 = sha256('x') WHERE key LIKE 'mail:%'",
            1,
        ),
        (
            "I4",
            "the live time is ahead",
            "UPDATE routing.live_tick SET at = at + interval '1 hour'",
            1,
        ),
        (
            "I5",
            "a webhook went elsewhere",
            "UPDATE notify.delivery SET recipient = 'x' WHERE delivery_id = '{posted}'",
            1,
        ),
        (
            "I10",
            "a repeat of a complaint would be refused",
            "UPDATE intake.receipt SET request_sha256 = sha256('x') WHERE complaint_id = '{settled}'",
            1,
        ),
        (
            "I13",
            "a rule rests on two clauses",
            "UPDATE routing.assignment SET clause = '\"R99\"' WHERE case_id = '{late}'",
            1,
        ),
    ],
    [
        (
            "I1",
            "secrets of providers and addresses of staff do not open",
            "UPDATE notify.provider SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1) WHERE tenant_id = '{other}' "
            "AND channel = 'sms'; UPDATE routing.staff_member SET contact = set_byte(contact, 20, get_byte(contact, 20) # 1) "
            "WHERE tenant_id = '{other}' AND staff_id = 'hao.ran'",
            2,
        ),
        (
            "I4",
            "a clock started elsewhere",
            "UPDATE routing.clock_operation SET started_from = started_from - interval '1 hour'",
            1,
        ),
        (
            "I13",
            "a publication stands at a case that is none",
            "UPDATE routing.move SET after_case = '{nobody}' WHERE cause = 'policy'",
            1,
        ),
    ],
    [
        (
            "I1",
            "a text is somebody else's, a look was at nothing, a number was given by nobody",
            "UPDATE intake.free_text SET created_by = 'nobody' WHERE case_id = '{late}'; UPDATE intake.access SET case_id = "
            "gen_random_uuid() WHERE act = 'unmask_contact'; UPDATE intake.contact_point SET blind = sha256('x') WHERE kind = 'phone' "
            "AND complainant_id = (SELECT complainant_id FROM intake.complaint WHERE complaint_id = '{second}')",
            3,
        ),
        (
            "I4",
            "sla is ahead of its time",
            "UPDATE sla.watched_case SET folded_at = folded_at + interval '1 hour' WHERE case_id = '{running}'",
            1,
        ),
        (
            "I9",
            "a line of no case has come to sla",
            "INSERT INTO sla.timeline_entry SELECT (jsonb_populate_record(t, jsonb_build_object('case_id', '{nobody}'))).* FROM "
            "sla.timeline_entry t WHERE case_id = '{late}' AND seq = 1",
            1,
        ),
        (
            "I5",
            "a message was sent before it was due",
            "UPDATE notify.delivery SET due_at = due_at + interval '1 day' WHERE delivery_id = '{sms}'",
            1,
        ),
        (
            "I13",
            "reporting knows how a case stands that is none",
            "INSERT INTO reporting.standing SELECT (jsonb_populate_record(s, jsonb_build_object('case_id', gen_random_uuid()))).* "
            "FROM reporting.standing s WHERE case_id = '{late}'",
            1,
        ),
    ],
    [
        (
            "I3",
            "a case is another unit's, and one a stranger's",
            "UPDATE routing.assignment SET unit = 'x' WHERE case_id = '{running}'; "
            """UPDATE routing."case" SET owner_unit = 'x' WHERE case_id = '{running}'; """
            "UPDATE routing.assignment SET staff_id = 'x' WHERE case_id = '{whole}'; "
            """UPDATE routing."case" SET owner_staff = 'x' WHERE case_id = '{whole}'""",
            2,
        ),
        (
            "I4",
            "a sandbox is ahead of its time everywhere",
            everywhere("UPDATE @.test_clock SET now = now + interval '1 second'")
            + "; UPDATE sla.tick SET at = at + interval '1 second' WHERE tenant_id = '{school}'",
            1,
        ),
        (
            "I5",
            "a message to staff went elsewhere",
            "UPDATE notify.delivery SET recipient = 'x****@school.example' WHERE delivery_id = (SELECT delivery_id FROM "
            "notify.delivery WHERE audience <> 'complainant' AND channel = 'email' AND state = 'sent' ORDER BY 1 LIMIT 1)",
            1,
        ),
        (
            "I8",
            "a fact is due at another time",
            """UPDATE reporting.fact SET body = body || '{{"due_at": "2026-01-01T00:00:00Z"}}' WHERE case_id = '{second}'""",
            1,
        ),
        (
            "I9",
            "a policy is another one everywhere",
            everywhere("UPDATE @.policy SET settings = '{{\"x\": 1}}' WHERE tenant_id = '{school}'"),
            1,
        ),
        (
            "I10",
            "an answer cannot be read",
            "UPDATE intake.idempotency_key SET body = substring(body FOR 5) WHERE key = 'table'",
            1,
        ),
    ],
    [
        (
            "I3",
            "one assignment too many",
            "INSERT INTO routing.assignment SELECT (jsonb_populate_record(a, jsonb_build_object('assignment_id', "
            "gen_random_uuid(), 'active', false, 'ended_at', assigned_at + interval '1 second'))).* FROM routing.assignment a "
            "WHERE case_id = '{late}'",
            1,
        ),
        (
            "I5",
            "a receipt says that a message was not delivered",
            "INSERT INTO notify.receipt (tenant_id, provider_id, webhook_id, provider_ref, state) SELECT tenant_id, provider_id, 'x', "
            "provider_ref, 'failed' FROM notify.delivery WHERE delivery_id = '{sms}'",
            1,
        ),
        (
            "I8",
            "a fact is late, and all sums with it",
            "UPDATE reporting.rollup r SET amount = amount + 1 FROM reporting.fact f WHERE f.case_id = '{settled}' AND r.tenant_id = "
            "f.tenant_id AND r.day = f.day AND r.measure = 'late' AND r.part = coalesce(f.counted -> 'parts' ->> r.dimension, ''); "
            "INSERT INTO reporting.rollup SELECT f.tenant_id, f.day, d, coalesce(f.counted -> 'parts' ->> d, ''), 'late', 1 FROM "
            "reporting.fact f, unnest(ARRAY['all', 'category', 'channel', 'kind', 'outcome', 'severity', 'state', 'unit']) AS d "
            "WHERE f.case_id = '{settled}' ON CONFLICT DO NOTHING; "
            "UPDATE reporting.fact SET counted = jsonb_set(counted, '{{measures,late}}', '1') WHERE case_id = '{settled}'",
            1,
        ),
        (
            "I9",
            "a key that nobody was told of is known everywhere",
            everywhere(
                "INSERT INTO @.credential SELECT (jsonb_populate_record(c, jsonb_build_object('credential_id', '{nobody}'))).* "
                "FROM @.credential c WHERE tenant_id = '{school}' AND role = 'admin'"
            ),
            1,
        ),
    ],
    [
        (
            "I9",
            "somebody has left without a word",
            "DELETE FROM routing.staff_member WHERE staff_id = 'meng.jie' AND tenant_id = '{other}'; "
            + "; ".join(
                f"DELETE FROM {service}.staff WHERE staff_id = 'meng.jie' AND tenant_id = '{{other}}'"
                for service in ("intake", "sla", "notify", "reporting")
            ),
            1,
        ),
    ],
    [
        (
            "I9",
            "somebody is away, and nobody was told",
            """UPDATE routing.staff_member SET absences = '[{{"start": "2026-01-01T00:00:00Z", "end": null}}]' """
            "WHERE staff_id = 'hao.ran' AND tenant_id = '{other}'",
            1,
        ),
    ],
    [
        (
            "I6",
            "a number's budget is another tenant's",
            "UPDATE notify.budget SET tenant_id = '{other}' WHERE (tenant_id, scope, subject) = (SELECT tenant_id, scope, subject "
            "FROM notify.budget WHERE tenant_id = '{school}' AND scope = 'number' AND used <> '{{}}' LIMIT 1)",
            SEVERAL,
        ),
        (
            "I9",
            "a message was given up in other words, and one by nobody",
            "INSERT INTO sla.dead_letter (tenant_id, dead_letter_id, consumer, message_key, subject, body, body_sha256, reason, "
            "error_class, error, attempts, first_at, state, resolved_at, resolved_by) SELECT tenant_id, gen_random_uuid(), "
            "'sla-on-entry', message_id, subject, '', encode(sha256(''), 'hex'), 'failed', 'X', '', 1, now(), 'discarded', now(), "
            "(SELECT role || ':' || credential_id FROM sla.credential WHERE role = 'operator' LIMIT 1) FROM routing.outbox "
            "WHERE message_id = '{message}'; INSERT INTO sla.dead_letter (tenant_id, dead_letter_id, consumer, message_key, subject, "
            "body, body_sha256, reason, error_class, error, attempts, first_at, state, resolved_at, resolved_by) VALUES ('{school}', "
            "gen_random_uuid(), 'sla-on-entry', 'ROUTING:1', 'routing.v1.x', '', encode(sha256(''), 'hex'), 'failed', 'X', '', 1, "
            "now(), 'discarded', now(), 'x')",
            2,
        ),
        (
            "I13",
            "a complaint is stored tomorrow, and a text was last year",
            "UPDATE intake.complaint SET stored_at = stored_at + interval '1 day' WHERE complaint_id = '{late}'; "
            "UPDATE intake.free_text SET created_at = created_at - interval '1 year' WHERE case_id = '{running}'",
            2,
        ),
        (
            "I14",
            "rows of all tenants are shown",
            "ALTER TABLE intake.complaint NO FORCE ROW LEVEL SECURITY; "
            "ALTER POLICY of_tenant ON notify.delivery USING (true)",
            2,
        ),
    ],
    [
        (
            "I9",
            "the next message gets the place of another",
            "ALTER TABLE routing.outbox ALTER COLUMN id RESTART WITH 2",
            1,
        ),
        (
            "I13",
            "a message was published before it was written",
            "UPDATE sla.outbox SET published_at = created_at - interval '3 hours' WHERE id = (SELECT min(id) FROM sla.outbox)",
            2,
        ),
    ],
    [
        (
            "I1",
            "somebody else has looked at another's texts",
            "UPDATE intake.access SET staff_id = 'nobody' WHERE act = 'erase'; "
            "UPDATE intake.access SET what = array_append(what, 'x') WHERE act = 'unmask_contact'",
            2,
        ),
        (
            "I3",
            "a case is assigned tomorrow",
            "UPDATE routing.assignment SET assigned_at = assigned_at + interval '1 day' WHERE case_id = '{running}'",
            1,
        ),
        (
            "I4",
            "nobody has moved a clock",
            "UPDATE routing.clock_operation SET asked_by = 'nobody'",
            1,
        ),
        (
            "I5",
            "a message was sent at another time than was told, one was tried at another time than it was begun",
            "UPDATE notify.delivery SET sent_at = sent_at - interval '3 hours' WHERE delivery_id = '{sms}'; UPDATE "
            "notify.delivery_attempt SET at = at - interval '3 hours' WHERE delivery_id = (SELECT delivery_id FROM notify.delivery "
            "WHERE tenant_id = '{other}' AND channel = 'webhook' AND state = 'sent' ORDER BY 1 LIMIT 1)",
            2,
        ),
        (
            "I9",
            "a relay knows no stream, and another one",
            "DELETE FROM sla.relay_state; UPDATE notify.relay_state SET stream_created = '2026-01-01 00:00:00+00:00'",
            2,
        ),
        (
            "I10",
            "a repeat would be answered what is not so, with another status, and another version",
            "UPDATE intake.idempotency_key SET body = convert_to(replace(convert_from(body, 'UTF8'), 's\":2', 's\":3'), 'UTF8') "
            "WHERE key = 'table'; UPDATE intake.idempotency_key SET status = 202 WHERE key LIKE 'text-%'; "
            "UPDATE routing.idempotency_key SET headers = '{{\"ETag\": \"x\"}}' WHERE key = 'waiting'",
            3,
        ),
    ],
    [
        (
            "I2",
            "a counter counts something else",
            "INSERT INTO intake.counter VALUES ('{other}', 'number:20262', 4)",
            1,
        ),
        (
            "I9",
            "a tick was not applied, and a later one was",
            "DELETE FROM sla.inbox WHERE (consumer, message_id) = (SELECT 'sla-on-entry', message_id FROM routing.outbox WHERE subject "
            "LIKE '%.00000000-%.clock.ticked' ORDER BY id LIMIT 1)",
            1,
        ),
    ],
]

OF_THE_CASE = "SELECT {} FROM notify.delivery WHERE case_id = $1 AND channel = '{}' AND state = 'sent' ORDER BY created_at {} LIMIT 1"

NAMES = {
    "event": OF_THE_CASE.format("event_id", "sms", ""),  # the first; nothing else is done to it
    "sms": OF_THE_CASE.format("delivery_id", "sms", "DESC"),
    "email": OF_THE_CASE.format("delivery_id", "email", "DESC"),
    "posted": OF_THE_CASE.format("delivery_id", "webhook", "OFFSET 2"),
    "message": """SELECT message_id FROM routing.outbox
                   WHERE subject LIKE '%.entry.appended' AND convert_from(body, 'UTF8')::jsonb ->> 'case_id' = $1::uuid::text
                   ORDER BY id OFFSET 1 LIMIT 1""",
}


@pytest.fixture(scope="module")
async def database(state: State) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the state; whoever changes anything does so in a transaction that is rolled back."""
    connection = await connect(state.dsn)
    yield connection
    await connection.close()


@pytest.mark.parametrize("together", TOGETHER, ids=lambda together: ", ".join(each[1] for each in together)[:120])
async def test_what_is_spoilt_is_counted_where_it_belongs(
    state: State, papers: Evidence, database: asyncpg.Connection, together: list[Corruption]
) -> None:
    names = {**state.names, "nobody": uuid4()}
    for name, query in NAMES.items():
        names[name] = await database.fetchval(query, names["settled"])
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute("SET LOCAL session_replication_role = replica")
        for _, what, statements, _ in together:
            tags = [await database.execute(statement) for statement in statements.format(**names).split(";")]
            changed = [int(tag.split()[-1]) for tag in tags if tag.split()[-1].isdecimal()]
            assert any(changed) or not changed, what
        found = await papers.look(database)
    finally:
        await transaction.rollback()
    counts = Counter(each.check for each in found)
    assert counts == Counter({check: n or max(1, counts[check]) for check, _, _, n in together}), [
        (each.check, each.subject, each.what) for each in found
    ]


async def counted(papers: Evidence, database: asyncpg.Connection) -> dict[str, int]:
    """The counters that are not zero."""
    return dict(Counter(each.check for each in await papers.look(database)))


def answer_of(papers: Evidence, key: str) -> Line:
    return next(line for line in papers.journal if line.what == "answer" and line.key == key)


async def test_two_answers_under_one_key_are_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    other = hashlib.sha256(b"another answer").hexdigest()
    papers.journal.append(msgspec.structs.replace(answer_of(papers, "settled"), answer=other))
    turned = msgspec.structs.replace(answer_of(papers, "late"), status=422, case_id=None, answer="")
    papers.journal.append(turned)
    place = next(place for place, line in enumerate(papers.journal) if (line.what, line.key) == ("answer", "act-1"))
    papers.journal[place] = msgspec.structs.replace(papers.journal[place], seq=1)
    assert await counted(papers, database) == {"I10": 3}


async def test_an_answer_in_other_words_is_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    for place, line in enumerate(papers.journal):
        if line.what == "answer" and 200 <= line.status < 300:
            if line.key == "late":
                papers.journal[place] = msgspec.structs.replace(line, answer=hashlib.sha256(b"other words").hexdigest())
            if line.key in ("call_1", "<one@example.org>", "table"):
                papers.journal[place] = msgspec.structs.replace(line, status=203)
            if line.key in ("second", "act-2"):
                papers.journal[place] = msgspec.structs.replace(line, stored=2)
    assert await counted(papers, database) == {"I10": 6}


async def test_hashes_of_another_kind_are_compared_with_each_other_alone(
    papers: Evidence, database: asyncpg.Connection
) -> None:
    papers.journal[:] = [
        msgspec.structs.replace(line, answer=hashlib.sha512(line.answer.encode()).hexdigest())
        if line.source in ("api", "webhook") and line.answer
        else line
        for line in papers.journal
    ]
    assert await counted(papers, database) == {}


async def test_a_sender_without_an_answer_is_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    first = answer_of(papers, "late")
    attempt = msgspec.structs.replace(first, what="attempt", key="unheard", status=0, case_id=None, answer="")
    unavailable = msgspec.structs.replace(attempt, what="answer", status=503, problem="unavailable")
    papers.journal += [attempt, unavailable, attempt]
    place = next(place for place, line in enumerate(papers.journal) if (line.what, line.key) == ("attempt", "late"))
    line = papers.journal[place]
    papers.journal[place] = msgspec.structs.replace(line, at=line.at - timedelta(seconds=61))
    assert await counted(papers, database) == {"I11": 2}  # the other one has waited for more than a minute


async def test_what_was_answered_and_is_not_there_is_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    line = answer_of(papers, "act-1")
    again = msgspec.structs.replace(line, key="act-9", seq=99, answer="")
    papers.journal += [msgspec.structs.replace(again, what="attempt", status=0, seq=None), again]
    other = msgspec.structs.replace(answer_of(papers, "late"), key="elsewhere", case_id=None, number=None, answer="")
    papers.journal += [msgspec.structs.replace(other, what="attempt", status=0), other]
    assert await counted(papers, database) == {"I1": 2}


async def test_what_nobody_was_told_of_is_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    mail = answer_of(papers, "<one@example.org>")
    papers.journal[:] = [
        msgspec.structs.replace(line, status=550) if line == mail else line
        for line in papers.journal
        if line.key not in ("act-6", "running")
    ]
    # A line of a case, a complaint, a mail that was refused.
    assert await counted(papers, database) == {"I15": 3}


async def test_what_never_arrived_is_seen_and_what_we_know_nothing_of(
    papers: Evidence, database: asyncpg.Connection
) -> None:
    taken = next(taken for taken in papers.record if taken.channel == "sms")
    papers.record.remove(taken)
    papers.record.append(msgspec.structs.replace(taken, key=str(uuid4())))
    assert await counted(papers, database) == {"I5": 2}


async def test_a_webhook_that_never_arrived_is_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    taken = next(taken for taken in papers.record if taken.channel == "webhook")
    papers.record.remove(taken)
    assert await counted(papers, database) == {"I5": 1}


async def test_messages_are_taken_once_or_twice_where_nobody_knows_keys(
    papers: Evidence, database: asyncpg.Connection
) -> None:
    sms, email, webhook = (
        next(taken for taken in papers.record if taken.channel == channel) for channel in ("sms", "email", "webhook")
    )
    papers.record.append(email)
    assert await counted(papers, database) == {}
    papers.record += [sms, email, msgspec.structs.replace(webhook, times=9)]
    assert await counted(papers, database) == {"I6": 3}


@asynccontextmanager
async def stream(state: State) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(state.nats_url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def test_a_message_past_the_outbox_is_seen_and_one_under_another_tenant(
    state: State, papers: Evidence, database: asyncpg.Connection
) -> None:
    names = state.names
    message_id = await database.fetchval(NAMES["message"], names["settled"])
    body = msgspec.json.encode({"tenant_id": names["school"]})
    async with stream(state) as js:
        sent = [
            await js.publish(
                f"routing.v1.{names['school']}.entry.appended", body, headers={"Nats-Msg-Id": str(uuid4())}
            ),
            await js.publish(
                f"routing.v1.{names['other']}.entry.appended", body, headers={"Nats-Msg-Id": f"{message_id}/{uuid4()}"}
            ),
        ]
        try:
            papers.streams = await state.read_streams()
        finally:
            for each in sent:
                await js.delete_msg("ROUTING", each.seq)
    assert await counted(papers, database) == {"I9": 1, "I14": 1}


async def test_messages_that_the_streams_have_lost_are_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    routing = papers.streams["routing"]
    papers.streams = {**papers.streams, "routing": msgspec.structs.replace(routing, messages=routing.messages[:-1])}
    assert await counted(papers, database) == {"I9": 1}
    del papers.streams["routing"]
    assert await counted(papers, database) == {"I9": len(routing.messages)}


async def test_an_endpoint_that_wants_some_of_it_is_told_of_that(
    papers: Evidence, database: asyncpg.Connection
) -> None:
    transaction = database.transaction()
    await transaction.start()
    try:
        wanted = ["resolved", "step:callback", "effect:escalated", "penalty:loss", "sla.v1.announcement.*"]
        before = "created_at = created_at - interval '1 minute', updated_at = created_at - interval '1 minute'"
        await database.execute(f"UPDATE notify.endpoint SET events = $1, {before}", wanted)
        assert await counted(papers, database) == {}
        await database.execute(
            "INSERT INTO notify.endpoint SELECT (jsonb_populate_record(e, jsonb_build_object('endpoint_id', gen_random_uuid()))).* "
            "FROM notify.endpoint e WHERE tenant_id = $1",
            papers.state.names["school"],
        )
        found = await counted(papers, database)
        assert found.pop("I1") == 1  # its secrets are sealed for another place
        assert found.keys() == {"I5"}
    finally:
        await transaction.rollback()


async def test_a_consumer_that_is_gone_is_seen(papers: Evidence, database: asyncpg.Connection) -> None:
    routing = papers.streams["routing"]
    gone, *others = routing.durables
    papers.streams["routing"] = msgspec.structs.replace(routing, durables=tuple(others))
    assert await counted(papers, database) == {"I9": 1}
    papers.streams["routing"] = msgspec.structs.replace(
        routing, durables=(msgspec.structs.replace(gone, filters=()), *others)
    )
    assert (await counted(papers, database)).keys() == {"I9"}  # it should have applied everything that routing told


async def test_a_consumer_that_does_not_hand_out_everything_is_seen(
    papers: Evidence, database: asyncpg.Connection
) -> None:
    routing = papers.streams["routing"]
    deaf, paused, *others = routing.durables
    papers.streams["routing"] = msgspec.structs.replace(
        routing,
        durables=(
            msgspec.structs.replace(deaf, filters=("routing.v1.*.nothing.happened",)),
            msgspec.structs.replace(paused, fault="is paused"),
            *others,
        ),
        fault="is not on the disk",
    )
    assert await counted(papers, database) == {"I9": 3}


async def test_streams_and_consumers_say_how_they_are_kept(state: State, papers: Evidence) -> None:
    async with stream(state) as js:
        found = (await js.consumer_info("ROUTING", papers.streams["routing"].durables[0].name)).config
        await js.add_consumer("ROUTING", found.evolve(durable_name="sla-on-nothing", name=None, max_deliver=3))
        try:
            streams = await state.read_streams()
        finally:
            await js.delete_consumer("ROUTING", "sla-on-nothing")
    faults = {each.name: each.fault for each in streams["routing"].durables}
    assert faults.pop("sla-on-nothing") == "gives messages up by itself"
    assert {*faults.values(), *(each.fault for each in streams.values())} == {""}


@pytest.mark.parametrize("service", ["routing", "intake"], ids=["a line", "a complaint"])
async def test_what_was_never_told_is_seen(
    state: State, papers: Evidence, database: asyncpg.Connection, service: str
) -> None:
    message_id = await database.fetchval(NAMES["message"] if service == "routing" else RECEIVED, state.names["settled"])
    stream = papers.streams[service]
    papers.streams[service] = msgspec.structs.replace(
        stream, messages=[each for each in stream.messages if each.message_id != str(message_id)]
    )
    transaction = database.transaction()
    await transaction.start()
    try:
        await database.execute(f"DELETE FROM {service}.outbox WHERE message_id = $1", message_id)
        for each in SERVICES:
            await database.execute(f"DELETE FROM {each}.inbox WHERE message_id = $1", message_id)
        assert await counted(papers, database) == {"I9": 1}
    finally:
        await transaction.rollback()


RECEIVED = """
SELECT message_id FROM intake.outbox
 WHERE subject LIKE '%.complaint.received' AND convert_from(body, 'UTF8')::jsonb ->> 'case_id' = $1::uuid::text"""


async def test_what_is_under_way_does_not_count_when_it_comes_through_in_time(
    state: State, papers: Evidence, database: asyncpg.Connection
) -> None:
    case_id = state.names["running"]
    row = await database.fetchrow("DELETE FROM routing.wake_up WHERE case_id = $1 RETURNING *", case_id)
    assert row is not None
    try:
        looking = asyncio.create_task(papers.audit(patience=60))
        async with asyncio.timeout(30):
            # It has looked once, when its connection has come and gone.
            while not await database.fetchval(LOOKING):  # noqa: ASYNC110 - another connection tells no event
                await asyncio.sleep(0.01)
            while await database.fetchval(LOOKING):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.01)
        assert not looking.done()
    finally:
        await database.execute("INSERT INTO routing.wake_up VALUES ($1, $2, $3, $4)", *row)
    assert (await looking).details == []


LOOKING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""
