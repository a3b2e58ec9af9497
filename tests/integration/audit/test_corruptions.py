"""Each promise is broken in several ways, in a copy of a true state; exactly the counter of that promise tells.

Foreign keys and triggers are off while the database is spoilt, constraints dropped where they forbid it: a bug of ours, or a
disk, need not respect them.
"""

from __future__ import annotations

import asyncio
import hashlib
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
from tests.integration.audit.conftest import Copy

# (check, what is spoilt, statements); {settled}, {late}, … are ids of the state.
IN_THE_DATABASE: list[tuple[str, str, str]] = [
    ("I1", "a complaint is lost", "DELETE FROM intake.complaint WHERE complaint_id = '{settled}'"),
    ("I1", "a complaint that came by mail is lost", "DELETE FROM intake.complaint WHERE source = 'email'"),
    (
        "I1",
        "a complaint of a table is lost with its key",
        "DELETE FROM intake.receipt WHERE key LIKE 'row:%'; DELETE FROM intake.complaint WHERE source = 'csv'",
    ),
    (
        "I1",
        "a complaint has not come to routing",
        """DELETE FROM routing.entry WHERE case_id = '{late}'; DELETE FROM routing.assignment WHERE case_id = '{late}';
           DELETE FROM routing.wake_up WHERE case_id = '{late}'; DELETE FROM routing."case" WHERE case_id = '{late}'""",
    ),
    (
        "I2",
        "two complaints under one key",
        """ALTER TABLE intake.receipt DROP CONSTRAINT receipt_pkey;
           INSERT INTO intake.receipt (tenant_id, key, request_sha256, complaint_id)
           SELECT tenant_id, key, request_sha256, '{late}' FROM intake.receipt WHERE complaint_id = '{settled}'""",
    ),
    (
        "I2",
        "a complaint is stored twice",
        """INSERT INTO intake.complaint
           SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', gen_random_uuid()))).*
             FROM intake.complaint c WHERE complaint_id = '{settled}'""",
    ),
    ("I2", "a key is forgotten", "DELETE FROM intake.receipt WHERE complaint_id = '{settled}'"),
    (
        "I3",
        "two active assignments",
        """DROP INDEX routing.assignment_one_active;
           INSERT INTO routing.assignment
           SELECT (jsonb_populate_record(a, jsonb_build_object('assignment_id', gen_random_uuid()))).*
             FROM routing.assignment a WHERE case_id = '{settled}' AND active""",
    ),
    (
        "I3",
        "no assignment is active",
        "UPDATE routing.assignment SET active = false, ended_at = now() WHERE case_id = '{late}'",
    ),
    ("I3", "no assignment", "DELETE FROM routing.assignment WHERE case_id = '{running}'"),
    ("I4", "sla does not watch", "DELETE FROM sla.watched_case WHERE case_id = '{running}'"),
    (
        "I4",
        "a wake-up has not happened",
        "UPDATE sla.watched_case SET wake_at = now() - interval '1 hour' WHERE case_id = '{running}'",
    ),
    (
        "I4",
        "a wake-up of a sandbox has not happened",
        "UPDATE sla.watched_case SET wake_at = (SELECT now FROM routing.test_clock) WHERE case_id = '{late}'",
    ),
    ("I4", "a wake-up is forgotten", "UPDATE sla.watched_case SET wake_at = NULL WHERE case_id = '{running}'"),
    (
        "I4",
        "both have forgotten the wake-up",
        """UPDATE sla.watched_case SET wake_at = NULL WHERE case_id = '{running}';
           DELETE FROM routing.wake_up WHERE case_id = '{running}'""",
    ),
    ("I4", "routing has forgotten the wake-up", "DELETE FROM routing.wake_up WHERE case_id = '{running}'"),
    (
        "I4",
        "the last lines were not looked at",
        "UPDATE sla.watched_case SET folded_seq = 1 WHERE case_id = '{settled}'",
    ),
    (
        "I4",
        "an effect happened twice",
        """INSERT INTO sla.announcement
           SELECT (jsonb_populate_record(a, jsonb_build_object('key', a.key || ':again'))).*
             FROM sla.announcement a WHERE case_id = '{late}'""",
    ),
    ("I4", "an effect is lost", "DELETE FROM sla.announcement WHERE case_id = '{late}' AND kind = 'escalated'"),
    (
        "I4",
        "an amount was posted twice",
        """INSERT INTO sla.ledger_posting
           SELECT (jsonb_populate_record(p, jsonb_build_object('posting_id', gen_random_uuid()))).*
             FROM sla.ledger_posting p WHERE case_id = '{settled}'""",
    ),
    ("I4", "a posting is lost", "DELETE FROM sla.ledger_posting WHERE case_id = '{settled}'"),
    (
        "I4",
        "the ledger stands elsewhere",
        "UPDATE sla.ledger_position SET posted_minor = posted_minor + 1 WHERE case_id = '{settled}'",
    ),
    (
        "I5",
        "a message is lost",
        """DELETE FROM notify.delivery_attempt WHERE delivery_id = '{sms}'; DELETE FROM notify.delivery WHERE delivery_id = '{sms}'""",
    ),
    (
        "I5",
        "an event is lost with its messages",
        """DELETE FROM notify.delivery_attempt WHERE delivery_id IN (SELECT delivery_id FROM notify.delivery WHERE event_id = '{event}');
           DELETE FROM notify.delivery WHERE event_id = '{event}'; DELETE FROM notify.event WHERE event_id = '{event}'""",
    ),
    (
        "I5",
        "a message waits and nobody looks",
        "UPDATE notify.delivery SET state = 'queued' WHERE delivery_id = '{sms}'",
    ),
    (
        "I5",
        "a message still waits",
        """UPDATE notify.delivery SET state = 'queued' WHERE delivery_id = '{sms}';
           INSERT INTO notify.delivery_queue (tenant_id, delivery_id, wake_at) VALUES ('{school}', '{sms}', now() + interval '1 hour')""",
    ),
    (
        "I5",
        "a message is called sent and no attempt got through",
        "UPDATE notify.delivery_attempt SET outcome = 'unavailable' WHERE delivery_id = '{sms}'",
    ),
    (
        "I6",
        "an SMS was taken twice",
        """INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at, ended_at, outcome)
           SELECT tenant_id, delivery_id, 2, key, at, ended_at, outcome FROM notify.delivery_attempt WHERE delivery_id = '{sms}'""",
    ),
    (
        "I6",
        "an e-mail was taken three times",
        """INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at, ended_at, outcome)
           SELECT tenant_id, delivery_id, n, key, at, ended_at, outcome
             FROM notify.delivery_attempt, generate_series(2, 3) AS n WHERE delivery_id = '{email}'""",
    ),
    (
        "I7",
        "a message under two keys",
        """INSERT INTO notify.delivery_attempt (tenant_id, delivery_id, attempt, key, at, ended_at, outcome)
           SELECT tenant_id, delivery_id, 2, gen_random_uuid(), at, ended_at, 'unavailable'
             FROM notify.delivery_attempt WHERE delivery_id = '{sms}'""",
    ),
    (
        "I7",
        "a message twice",
        """ALTER TABLE notify.delivery DROP CONSTRAINT delivery_once;
           INSERT INTO notify.delivery
           SELECT (jsonb_populate_record(d, jsonb_build_object('delivery_id', gen_random_uuid()))).*
             FROM notify.delivery d WHERE delivery_id = '{sms}'""",
    ),
    (
        "I8",
        "a sum is wrong",
        "UPDATE reporting.rollup SET amount = amount + 1 WHERE dimension = 'all' AND measure = 'late'",
    ),
    (
        "I8",
        "a sum stands under another state",
        "UPDATE reporting.rollup SET part = 'archived' WHERE dimension = 'state' AND part = 'closed'",
    ),
    ("I8", "a sum stands on another day", "UPDATE reporting.rollup SET day = day + 1"),
    ("I8", "a fact is lost", "DELETE FROM reporting.fact WHERE case_id = '{settled}'"),
    (
        "I8",
        "a fact is lost together with all that it adds",
        """DELETE FROM reporting.rollup WHERE tenant_id = '{other}'; DELETE FROM reporting.fact WHERE tenant_id = '{other}'""",
    ),
    ("I8", "an amount is not counted", "DELETE FROM reporting.posting WHERE case_id = '{settled}'"),
    ("I8", "an effect is not counted", "DELETE FROM reporting.announcement WHERE case_id = '{late}'"),
    (
        "I8",
        "a message is counted otherwise",
        "UPDATE reporting.delivery SET state = 'dead' WHERE delivery_id = '{sms}'",
    ),
    (
        "I9",
        "a message was not published",
        "UPDATE routing.outbox SET published_at = NULL, stream_seq = NULL WHERE message_id = '{message}'",
    ),
    ("I9", "a message is not known to its sender", "DELETE FROM routing.outbox WHERE message_id = '{message}'"),
    (
        "I9",
        "a message was told in other words",
        "UPDATE routing.outbox SET body = body || ' ' WHERE message_id = '{message}'",
    ),
    (
        "I9",
        "a message was not applied",
        "DELETE FROM sla.inbox WHERE consumer = 'sla-on-entry' AND message_id = '{message}'",
    ),
    ("I9", "a line has not come to sla", "DELETE FROM sla.timeline_entry WHERE case_id = '{settled}' AND seq = 2"),
    ("I9", "a line has not come to notify", "DELETE FROM notify.entry WHERE case_id = '{settled}' AND seq = 2"),
    ("I9", "a line has not come to reporting", "DELETE FROM reporting.entry WHERE case_id = '{settled}' AND seq = 2"),
    (
        "I9",
        "a message was given up",
        """INSERT INTO sla.dead_letter (tenant_id, dead_letter_id, consumer, message_key, subject, body, body_sha256, reason, error_class,
                                        error, attempts, first_at)
           VALUES ('{school}', gen_random_uuid(), 'sla-on-entry', 'ROUTING:1', 'routing.v1.x', '', '', 'unreadable', 'X', '', 1, now())""",
    ),
    (
        "I10",
        "a key stands for another complaint",
        "UPDATE intake.receipt SET complaint_id = '{late}' WHERE complaint_id = '{settled}'",
    ),
    (
        "I10",
        "an act would be answered otherwise",
        "UPDATE routing.idempotency_key SET body = '{{}}' WHERE key = 'act-1'",
    ),
    ("I12", "a line is missing", "DELETE FROM routing.entry WHERE case_id = '{settled}' AND seq = 2"),
    ("I12", "the first line is missing", "DELETE FROM routing.entry WHERE case_id = '{settled}' AND seq = 1"),
    (
        "I12",
        "the last line is missing",
        "DELETE FROM routing.entry WHERE case_id = '{settled}' AND seq = (SELECT max(seq) FROM routing.entry WHERE case_id = '{settled}')",
    ),
    (
        "I12",
        "a line goes back in time",
        "UPDATE routing.entry SET at = at - interval '1 year' WHERE case_id = '{settled}' AND seq = 3",
    ),
    (
        "I12",
        "a line stands twice",
        """ALTER TABLE routing.entry DROP CONSTRAINT entry_pkey;
           INSERT INTO routing.entry SELECT * FROM routing.entry WHERE case_id = '{settled}' AND seq = 2""",
    ),
    ("I13", "a state differs", """UPDATE routing."case" SET state = 'received' WHERE case_id = '{settled}'"""),
    ("I13", "a closing differs", """UPDATE routing."case" SET closed = false WHERE case_id = '{settled}'"""),
    (
        "I13",
        "a due time differs",
        """UPDATE routing."case" SET due_at = due_at + interval '1 day' WHERE case_id = '{running}'""",
    ),
    ("I13", "an owner differs", """UPDATE routing."case" SET owner_staff = 'nobody' WHERE case_id = '{late}'"""),
    ("I13", "a number differs", """UPDATE routing."case" SET number = 'X-1' WHERE case_id = '{late}'"""),
    (
        "I13",
        "a line was changed",
        """UPDATE routing.entry SET data = '{{"step": "x"}}' WHERE case_id = '{settled}' AND seq = 2""",
    ),
    (
        "I13",
        "a copy of a line was changed",
        "UPDATE sla.timeline_entry SET entry = '{{}}' WHERE case_id = '{settled}' AND seq = 2",
    ),
    (
        "I13",
        "reporting keeps an older standing",
        "UPDATE reporting.standing SET seq = seq - 1 WHERE case_id = '{settled}'",
    ),
    ("I13", "a fact differs", "UPDATE reporting.fact SET is_late = NOT is_late WHERE case_id = '{late}'"),
    (
        "I14",
        "a complaint lies with another tenant",
        "UPDATE intake.complaint SET tenant_id = '{other}' WHERE complaint_id = '{late}'",
    ),
    (
        "I14",
        "a case lies with another tenant",
        """UPDATE routing."case" SET tenant_id = '{other}' WHERE case_id = '{late}';
           UPDATE routing.entry SET tenant_id = '{other}' WHERE case_id = '{late}'""",
    ),
    (
        "I14",
        "a message to a person lies with another tenant",
        "UPDATE notify.delivery SET tenant_id = '{other}' WHERE delivery_id = '{sms}'",
    ),
    (
        "I14",
        "a message lies with another tenant",
        "UPDATE routing.outbox SET tenant_id = '{other}' WHERE message_id = '{message}'",
    ),
    (
        "I14",
        "a fact lies with another tenant",
        "UPDATE reporting.fact SET tenant_id = '{other}' WHERE case_id = '{settled}'",
    ),
    (
        "I14",
        "a text lies with another tenant",
        "UPDATE intake.free_text SET tenant_id = '{other}' WHERE case_id = '{settled}'",
    ),
    (
        "I14",
        "a row of a tenant that does not exist",
        "INSERT INTO notify.day_budget (tenant_id, channel, day, used) VALUES (gen_random_uuid(), 'sms', '2026-01-01', 1)",
    ),
    (
        "I14",
        "a webhook goes to another tenant's endpoint",
        """UPDATE notify.delivery SET addressee = (SELECT endpoint_id::text FROM notify.endpoint WHERE tenant_id = '{other}')
            WHERE delivery_id = '{posted}'""",
    ),
    (
        "I15",
        "a refused complaint was stored",
        """INSERT INTO intake.complaint
           SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', '{nobody}', 'number', 'TS-9999'))).*
             FROM intake.complaint c WHERE complaint_id = '{settled}';
           INSERT INTO intake.receipt (tenant_id, key, request_sha256, complaint_id)
           VALUES ('{school}', 'api:malformed', '', '{nobody}')""",
    ),
    (
        "I15",
        "a complaint that nobody sent",
        """INSERT INTO intake.complaint
           SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', '{nobody}', 'number', 'TS-9999'))).*
             FROM intake.complaint c WHERE complaint_id = '{settled}'""",
    ),
    (
        "I15",
        "a forged call was stored",
        """INSERT INTO intake.complaint
           SELECT (jsonb_populate_record(c, jsonb_build_object('complaint_id', '{nobody}', 'number', 'TS-9999'))).*
             FROM intake.complaint c WHERE complaint_id = '{called}';
           INSERT INTO intake.receipt (tenant_id, key, request_sha256, complaint_id)
           VALUES ('{school}', 'hook:{nobody}:call_forged', '', '{nobody}')""",
    ),
    (
        "I15",
        "a text of a refused request",
        """INSERT INTO intake.free_text
           SELECT (jsonb_populate_record(t, jsonb_build_object('text_id', gen_random_uuid(), 'case_id', '{nobody}'))).*
             FROM intake.free_text t WHERE case_id = '{settled}' AND kind = 'complaint'""",
    ),
    (
        "I15",
        "a person of a refused request",
        """INSERT INTO intake.data_key (tenant_id, owner_id, generation, wrapped_key) VALUES ('{school}', '{nobody}', 1, '')""",
    ),
    (
        "I15",
        "a refusal is kept as the answer",
        """INSERT INTO routing.idempotency_key (tenant_id, key, request_sha256, status, headers, body)
           VALUES ('{school}', 'refused', '', 422, '{{}}', '')""",
    ),
    (
        "I15",
        "a case of a refused complaint",
        """INSERT INTO sla.watched_case (tenant_id, case_id, case_kind, policy_version) VALUES ('{school}', '{nobody}', 'complaint', 1)""",
    ),
]

NAMES = {
    "sms": "SELECT delivery_id FROM notify.delivery WHERE case_id = $1 AND channel = 'sms' AND state = 'sent' ORDER BY 1 LIMIT 1",
    "email": "SELECT delivery_id FROM notify.delivery WHERE case_id = $1 AND channel = 'email' AND state = 'sent' ORDER BY 1 LIMIT 1",
    "posted": "SELECT delivery_id FROM notify.delivery WHERE case_id = $1 AND channel = 'webhook' AND state = 'sent' ORDER BY 1 LIMIT 1",
    "event": "SELECT event_id FROM notify.delivery WHERE case_id = $1 AND channel = 'sms' AND state = 'sent' ORDER BY 1 LIMIT 1",
    "message": """SELECT message_id FROM routing.outbox
                   WHERE subject LIKE '%.entry.appended' AND convert_from(body, 'UTF8')::jsonb ->> 'case_id' = $1::uuid::text
                   ORDER BY id OFFSET 1 LIMIT 1""",
}


async def counted(copy: Copy) -> dict[str, int]:
    """The counters that are not zero."""
    verdict = await copy.audit()
    assert verdict.ok == (not verdict.details)
    return {check: number for check, number in verdict.checks.items() if number}


@pytest.mark.parametrize(
    ("check", "statements"),
    [(check, statements) for check, _, statements in IN_THE_DATABASE],
    ids=[f"{check}: {what}" for check, what, _ in IN_THE_DATABASE],
)
async def test_what_is_spoilt_in_the_database_is_counted_where_it_belongs(
    copy: Copy, check: str, statements: str
) -> None:
    connection = await asyncpg.connect(copy.dsn)
    try:
        names = {**copy.state.names, "nobody": uuid4()}
        for name, query in NAMES.items():
            names[name] = await connection.fetchval(query, names["settled"])
        await connection.execute("SET session_replication_role = replica")
        changed = 0
        for statement in statements.format(**names).split(";"):
            tag = await connection.execute(statement)
            changed += int(tag.split()[-1]) if tag.split()[-1].isdecimal() else 0
        assert changed
    finally:
        await connection.close()
    assert list(await counted(copy)) == [check]


def answer_of(papers: Copy, key: str) -> Line:
    return next(line for line in papers.journal if line.what == "answer" and line.key == key)


async def test_two_answers_under_one_key_are_seen(papers: Copy) -> None:
    other = hashlib.sha256(b"another answer").hexdigest()
    papers.journal.append(msgspec.structs.replace(answer_of(papers, "settled"), answer=other))
    assert await counted(papers) == {"I10": 1}


async def test_an_answer_that_turned_into_a_refusal_is_seen(papers: Copy) -> None:
    papers.journal.append(msgspec.structs.replace(answer_of(papers, "late"), status=422, case_id=None, answer=""))
    assert await counted(papers) == {"I10": 1}


async def test_a_sender_without_an_answer_is_seen(papers: Copy) -> None:
    first = answer_of(papers, "late")
    attempt = msgspec.structs.replace(first, what="attempt", key="unheard", status=0, case_id=None, answer="")
    unavailable = msgspec.structs.replace(attempt, what="answer", status=503, problem="unavailable")
    papers.journal += [attempt, unavailable, attempt]
    assert await counted(papers) == {"I11": 1}


async def test_a_sender_who_waited_for_more_than_a_minute_is_seen(papers: Copy) -> None:
    place = next(place for place, line in enumerate(papers.journal) if (line.what, line.key) == ("attempt", "late"))
    line = papers.journal[place]
    papers.journal[place] = msgspec.structs.replace(line, at=line.at - timedelta(seconds=61))
    assert await counted(papers) == {"I11": 1}


async def test_an_act_that_was_answered_and_is_not_there_is_seen(papers: Copy) -> None:
    line = answer_of(papers, "act-1")
    again = msgspec.structs.replace(line, key="act-9", seq=99, answer="")
    papers.journal += [msgspec.structs.replace(again, what="attempt", status=0, seq=None), again]
    assert await counted(papers) == {"I1": 1}


async def test_an_act_that_nobody_was_told_of_is_seen(papers: Copy) -> None:
    lines = [line for line in papers.journal if line.key != "act-6"]
    papers.journal[:] = lines
    assert await counted(papers) == {"I15": 1}


async def test_a_mail_more_than_was_sent_is_seen(papers: Copy) -> None:
    refused = msgspec.structs.replace(answer_of(papers, "<one@example.org>"), status=550)
    papers.journal[:] = [refused if line == answer_of(papers, "<one@example.org>") else line for line in papers.journal]
    assert await counted(papers) == {"I15": 1}


async def test_an_sms_that_never_arrived_is_seen(papers: Copy) -> None:
    papers.record.remove(next(taken for taken in papers.record if taken.channel == "sms"))
    assert await counted(papers) == {"I5": 1}


async def test_an_sms_that_we_know_nothing_of_is_seen(papers: Copy) -> None:
    taken = next(taken for taken in papers.record if taken.channel == "sms")
    papers.record.append(msgspec.structs.replace(taken, key=str(uuid4())))
    assert await counted(papers) == {"I5": 1}


@pytest.mark.parametrize(
    ("channel", "times", "found"), [("sms", 1, 1), ("email", 1, 0), ("email", 2, 1), ("webhook", 9, 1)]
)
async def test_messages_are_taken_once_or_twice_where_nobody_knows_keys(
    papers: Copy, channel: str, times: int, found: int
) -> None:
    taken = next(taken for taken in papers.record if taken.channel == channel)
    papers.record.append(msgspec.structs.replace(taken, times=times))
    assert await counted(papers) == ({"I6": found} if found else {})


@asynccontextmanager
async def stream(copy: Copy) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(copy.state.nats_url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def test_a_message_past_the_outbox_is_seen_and_one_under_another_tenant(copy: Copy) -> None:
    async with stream(copy) as js:
        names = copy.state.names
        body = msgspec.json.encode({"tenant_id": names["school"]})
        subject = f"routing.v1.{names['school']}.entry.appended"
        past = await js.publish(subject, body, headers={"Nats-Msg-Id": str(uuid4())})
        try:
            assert await counted(copy) == {"I9": 1}
        finally:
            await js.delete_msg("ROUTING", past.seq)

        connection = await asyncpg.connect(copy.dsn)
        message_id = await connection.fetchval(NAMES["message"], names["settled"])
        await connection.close()
        headers = {"Nats-Msg-Id": f"{message_id}/{uuid4()}"}
        strange = await js.publish(f"routing.v1.{names['other']}.entry.appended", body, headers=headers)
        try:
            assert await counted(copy) == {"I14": 1}
        finally:
            await js.delete_msg("ROUTING", strange.seq)


async def test_a_message_that_the_stream_has_lost_is_seen(copy: Copy) -> None:
    async with stream(copy) as js:
        lost = await js.publish("sla.v1.x.y.z", b"{}", headers={"Nats-Msg-Id": str(uuid4())})
        await js.delete_msg("SLA", lost.seq)
    connection = await asyncpg.connect(copy.dsn)
    body = msgspec.json.encode({"tenant_id": copy.state.names["school"]})
    await connection.execute(
        """INSERT INTO sla.outbox (tenant_id, message_id, subject, body, published_at, stream_seq)
           VALUES ($1, $2, $3, $4, now(), $5)""",
        copy.state.names["school"],
        uuid4(),
        f"sla.v1.{copy.state.names['school']}.thing.done",
        body,
        lost.seq,
    )
    await connection.close()
    assert await counted(copy) == {"I9": 1}


async def test_what_is_under_way_does_not_count_when_it_comes_through_in_time(copy: Copy) -> None:
    connection = await asyncpg.connect(copy.dsn)
    case_id = copy.state.names["running"]
    row = await connection.fetchrow("DELETE FROM routing.wake_up WHERE case_id = $1 RETURNING *", case_id)
    assert row is not None
    assert await counted(copy) == {"I4": 1}
    looking = asyncio.create_task(copy.audit(patience=60))
    async with asyncio.timeout(30):
        # It has looked once, when its connection has come and gone.
        while not await connection.fetchval(LOOKING):  # noqa: ASYNC110 - another connection tells no event
            await asyncio.sleep(0.01)
        while await connection.fetchval(LOOKING):  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    assert not looking.done()
    await connection.execute("INSERT INTO routing.wake_up VALUES ($1, $2, $3, $4)", *row)
    verdict = await looking
    assert verdict.details == []
    await connection.close()


LOOKING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""
