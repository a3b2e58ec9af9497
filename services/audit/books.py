"""Books that are kept beside complaints: imports, numbers, addresses, clocks of sandboxes, publications, what refers to what."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

from services.audit.copies import NAMES, instant, name_of
from services.audit.look import LIVE, Look
from services.audit.streams import SERVICES

# Each statement returns (tenant_id, subject, what is wrong).
IMPORTS: Final = """
SELECT i.tenant_id, i.import_id,
       CASE WHEN NOT i.done_matches THEN 'an import is done, and is not'
            WHEN i.state = 'done' AND i.chunks > 0 THEN 'an import is done, and rows are still to be stored'
            WHEN i.state = 'done' AND i.rows <> i.stored + i.repeated + i.refused THEN 'an import has lost count of its rows'
            WHEN i.stored + i.repeated <> i.found THEN 'an import has stored other rows than it says'
            WHEN i.refused <> i.faulty THEN 'an import has refused other rows than it says'
            WHEN i.repeated < 0 OR NOT i.has_source THEN 'an import of no table'
       END
  FROM (SELECT m.*, (m.state = 'done') = (m.done_at IS NOT NULL) AS done_matches,
               (SELECT count(*) FROM intake.import_chunk c WHERE c.tenant_id = m.tenant_id AND c.import_id = m.import_id) AS chunks,
               (SELECT count(*) FROM intake.receipt r
                 WHERE r.tenant_id = m.tenant_id AND r.key LIKE 'row:' || m.import_id || ':%') AS found,
               (SELECT count(DISTINCT f.row) FROM intake.import_fault f
                 WHERE f.tenant_id = m.tenant_id AND f.import_id = m.import_id) AS faulty,
               m.source_id IS NULL OR EXISTS (
                   SELECT FROM intake.source s
                    WHERE s.tenant_id = m.tenant_id AND s.source_id = m.source_id AND s.kind = 'csv') AS has_source
          FROM intake.import m
         WHERE m.created_at > $1) AS i
 UNION ALL
SELECT f.tenant_id, f.import_id, 'faults of no import'
  FROM intake.import_fault f
 WHERE NOT EXISTS (SELECT FROM intake.import m WHERE m.tenant_id = f.tenant_id AND m.import_id = f.import_id)
 UNION ALL
SELECT c.tenant_id, c.import_id, 'rows of no import'
  FROM intake.import_chunk c
 WHERE NOT EXISTS (SELECT FROM intake.import m WHERE m.tenant_id = c.tenant_id AND m.import_id = c.import_id)
 UNION ALL
SELECT r.tenant_id, r.complaint_id, 'stored by no import'
  FROM intake.receipt r
 WHERE r.key LIKE 'row:%'
   AND NOT EXISTS (SELECT FROM intake.import m WHERE m.tenant_id = r.tenant_id AND m.import_id::text = split_part(r.key, ':', 2))"""

# The way in that a complaint says is the one of its key.
WAYS: Final = """
SELECT c.tenant_id, c.complaint_id, 'came another way than its key says'
  FROM intake.complaint c
  JOIN intake.receipt r ON r.tenant_id = c.tenant_id AND r.complaint_id = c.complaint_id
  LEFT JOIN intake.source s ON s.tenant_id = c.tenant_id AND s.source_id = c.source_id
  LEFT JOIN intake.import m ON m.tenant_id = c.tenant_id AND m.import_id::text = split_part(r.key, ':', 2)
 WHERE c.source_id::text IS DISTINCT FROM
       CASE split_part(r.key, ':', 1) WHEN 'hook' THEN split_part(r.key, ':', 2) WHEN 'mail' THEN split_part(r.key, ':', 2)
            WHEN 'row' THEN m.source_id::text WHEN 'api' THEN NULL WHEN 'effect' THEN NULL ELSE c.source_id::text END
    OR (c.source_id IS NOT NULL AND s.kind IS DISTINCT FROM c.source)
    OR c.source <> CASE split_part(r.key, ':', 1) WHEN 'hook' THEN 'webhook' WHEN 'mail' THEN 'email' WHEN 'row' THEN 'csv'
                        WHEN 'api' THEN 'api' WHEN 'effect' THEN 'effect' ELSE c.source END"""

# As many numbers were given as complaints were stored, and as many were counted towards the plan; a counter that is behind would give a
# number twice, or take more in a day than was agreed.
NUMBERS: Final = """
SELECT tenant_id, 'numbers ' || tenant_id,
       'numbers for ' || coalesce(numbers, 0) || ' complaints, days with ' || coalesce(days, 0) || ', ' || coalesce(c, 0) || ' are stored'
  FROM (SELECT tenant_id, sum(count) FILTER (WHERE name ~ '^number:([0-9]{4}(-[0-9]{2}){0,2})?$') AS numbers,
               sum(count) FILTER (WHERE name ~ '^day:[0-9]{4}-[0-9]{2}-[0-9]{2}$') AS days
          FROM intake.counter
         GROUP BY 1) AS given
  FULL JOIN (SELECT tenant_id, count(*) AS c FROM intake.complaint GROUP BY 1) AS stored USING (tenant_id)
 WHERE (numbers, days) IS DISTINCT FROM (c, c)"""

# What is counted under another name is counted nowhere.
COUNTERS: Final = """
SELECT tenant_id, 'numbers ' || tenant_id, 'a counter of nothing that is counted, ' || name
  FROM intake.counter
 WHERE name !~ '^(number:([0-9]{4}(-[0-9]{2}){0,2})?|day:[0-9]{4}-[0-9]{2}-[0-9]{2})$' OR count < 1"""

HASHES: Final = """
SELECT tenant_id, {name}, 'the hash of its request is cut'
  FROM {table}
 WHERE length(request_sha256) <> 32"""

# What is kept of a request follows from the key itself where nobody sends one.
BOUND: Final = """
SELECT tenant_id, complaint_id, 'a repeat would be taken for another request'
  FROM intake.receipt
 WHERE (key LIKE 'mail:%' AND encode(request_sha256, 'hex') <> split_part(key, ':', 3))
    OR (key LIKE 'effect:%:%' AND request_sha256 <> sha256(convert_to(key, 'UTF8')))"""

# What was made once was answered under one key.
ANSWERED: Final = """
SELECT tenant_id, min(key), count(*) || ' keys for one answer'
  FROM {service}.idempotency_key
 WHERE status IN (201, 202) AND length(body) > 2
 GROUP BY tenant_id, body
HAVING count(*) > 1"""

KEYED: Final = (("intake.receipt", "complaint_id"), *((f"{service}.idempotency_key", "key") for service in SERVICES))

ADDRESSES: Final = """
SELECT coalesce(t.tenant_id, s.owner_id), coalesce(s.slug, t.slug), 'a short name leads elsewhere'
  FROM intake.tenant t
  FULL JOIN intake.slug s ON s.owner_id = t.tenant_id AND s.slug = t.slug
 WHERE t.tenant_id IS NULL OR s.owner_id IS NULL
 UNION ALL
SELECT coalesce(s.tenant_id, m.owner_id), coalesce(m.token, s.mail_token), 'a mail address leads elsewhere'
  FROM (SELECT * FROM intake.source WHERE mail_token IS NOT NULL) AS s
  FULL JOIN intake.mail_address m ON m.owner_id = s.tenant_id AND m.source_id = s.source_id AND m.token = s.mail_token
 WHERE s.source_id IS NULL OR m.source_id IS NULL
 UNION ALL
SELECT tenant_id, source_id::text, 'a source without what it needs'
  FROM intake.source
 WHERE (kind = 'email') <> (mail_token IS NOT NULL) OR (kind = 'webhook') <> (sealed_secrets IS NOT NULL)
 UNION ALL
SELECT coalesce(r.tenant_id, m.tenant_id), 'staff ' || coalesce(r.tenant_id, m.tenant_id), 'staff have changed more often, or less'
  FROM routing.staff_revision r
  FULL JOIN (SELECT tenant_id, max(revision) AS last FROM routing.staff_member GROUP BY 1) AS m USING (tenant_id)
 WHERE r.revision IS DISTINCT FROM m.last
 UNION ALL
SELECT coalesce(p.tenant_id, a.tenant_id), coalesce(p.provider_id, a.provider_id)::text, 'receipts of a provider lead nowhere'
  FROM notify.provider p
  FULL JOIN notify.receipt_address a ON a.tenant_id = p.tenant_id AND a.provider_id = p.provider_id
 WHERE p.provider_id IS NULL OR a.provider_id IS NULL"""

# Publications that reach open cases: each is known, has been gone through, and has moved as many as have a line of it.
MOVES: Final = """
SELECT m.tenant_id, m.move_id, m.cause, coalesce(m.effect, m.calendar), coalesce(m.policy_version, m.revision)::text,
       m.done_at, m.created_at, m.moved, m.looked_at,
       (SELECT count(*) FROM routing.entry e
         WHERE e.tenant_id = m.tenant_id AND m.cause = 'policy' AND e.kind = 'policy_changed'
           AND e.data ->> 'version' = m.policy_version::text) AS lines,
       CASE m.cause WHEN 'policy' THEN m.policy_version IS NOT NULL AND m.effect IS NOT NULL AND m.calendar IS NULL AND m.revision IS NULL
                    WHEN 'calendar' THEN m.policy_version IS NULL AND m.effect IS NULL AND m.calendar IS NOT NULL AND m.revision IS NOT NULL
                    ELSE false END
       AND (m.after_case = '00000000-0000-0000-0000-000000000000' OR EXISTS (
                SELECT FROM routing."case" c WHERE c.tenant_id = m.tenant_id AND c.case_id = m.after_case)) AS is_whole
  FROM routing.move m"""

OPERATIONS: Final = """
SELECT o.*, t.now AS clock,
       EXISTS (SELECT FROM routing.credential c
                WHERE c.tenant_id = o.tenant_id AND o.asked_by IN (c.staff_id, c.role || ':' || c.credential_id)) AS is_asked
  FROM routing.clock_operation o
  LEFT JOIN routing.test_clock t ON t.tenant_id = o.tenant_id"""

ADVANCES: Final = """
SELECT tenant_id, operation_id, target, steps, settled_at
  FROM sla.advance"""

SETTLEMENTS: Final = """
SELECT tenant_id, operation_id, target, rested_at
  FROM notify.settlement"""

TICKS: Final = """
SELECT t.tenant_id, t.at, c.now AS clock, l.at AS live
  FROM sla.tick t
  LEFT JOIN routing.test_clock c ON c.tenant_id = t.tenant_id
  LEFT JOIN routing.live_tick l ON true"""

TICKS_APART: Final = timedelta(seconds=30)
"""So long may the last tick be on its way, or the services be stopped right behind it."""

LIVE_TICK: Final = """
SELECT count(*) AS n, max(at) AS at, max(outbox_id) AS outbox_id, (SELECT coalesce(max(id), 0) FROM routing.outbox) AS highest
  FROM routing.live_tick"""

SLEEPERS: Final = """
SELECT w.tenant_id, w.case_id, 'a wake-up of no case'
  FROM routing.wake_up w
 WHERE NOT EXISTS (SELECT FROM routing."case" c WHERE c.tenant_id = w.tenant_id AND c.case_id = w.case_id)
 UNION ALL
SELECT w.tenant_id, w.case_id, 'sleeps by another clock than its tenant has'
  FROM routing.wake_up w
  JOIN intake.tenant t ON t.tenant_id = w.tenant_id
 WHERE w.sandbox <> t.sandbox
 UNION ALL
SELECT w.tenant_id, w.case_id, 'has posted ' || count(p.posting_id) || ' amounts, and says ' || w.postings
  FROM sla.watched_case w
  LEFT JOIN sla.ledger_posting p ON p.tenant_id = w.tenant_id AND p.case_id = w.case_id
 GROUP BY w.tenant_id, w.case_id, w.postings
HAVING count(p.posting_id) <> w.postings
 UNION ALL
SELECT tenant_id, case_id, 'has failed'
  FROM sla.watched_case
 WHERE failures < 0 OR folded_at IS NULL OR length(digest) <> 32"""

# Cases of one priority stand in one place of the work list; a rule rests on one clause.
RANKS: Final = """
SELECT c.tenant_id, min(a.case_id::text), 'one rule rests on ' || count(DISTINCT coalesce(a.clause::text, '')) || ' clauses'
  FROM routing.assignment a
  JOIN routing."case" c ON c.tenant_id = a.tenant_id AND c.case_id = a.case_id
 WHERE a.rule IS NOT NULL AND c.policy_version = c.current_policy_version
 GROUP BY c.tenant_id, c.current_policy_version, a.rule
HAVING count(DISTINCT coalesce(a.clause::text, '')) > 1
 UNION ALL
SELECT tenant_id, 'rank ' || tenant_id || ' ' || coalesce(priority, ''), 'one priority at ' || count(DISTINCT rank) || ' places'
  FROM routing."case"
 WHERE kind = 'complaint'
 GROUP BY tenant_id, priority
HAVING count(DISTINCT rank) > 1"""

CHANGED: Final = """
SELECT c.tenant_id, c.case_id, 'has changed at another time than its last line tells'
  FROM routing."case" c
  JOIN routing.entry e ON e.tenant_id = c.tenant_id AND e.case_id = c.case_id AND e.seq = c.version
 WHERE c.changed_at <> e.at"""

CREATED: Final = """
SELECT c.tenant_id, c.case_id, c.creates || ' complaints came of it, ' || count(a.key) || ' were announced'
  FROM routing."case" c
  LEFT JOIN sla.announcement a
    ON a.tenant_id = c.tenant_id AND a.case_id = c.case_id AND a.kind = 'created' AND a.withdrawn_at IS NULL
 WHERE c.kind <> 'subject'
 GROUP BY c.tenant_id, c.case_id, c.creates
HAVING count(a.key) <> c.creates"""

# A clock may have been set back since a message was due.
PROVIDERS: Final = """
SELECT d.tenant_id, d.delivery_id, 'went through a provider of another channel'
  FROM notify.delivery d
  JOIN notify.provider p ON p.provider_id = d.provider_id
 WHERE p.channel <> d.channel
 UNION ALL
SELECT d.tenant_id, d.delivery_id, 'names what is not there'
  FROM notify.delivery d
 WHERE (d.case_id IS NOT NULL AND NOT EXISTS (
           SELECT FROM routing."case" c WHERE c.case_id = d.case_id) AND NOT EXISTS (
           SELECT FROM intake.complaint c WHERE c.complaint_id = d.case_id))
    OR (d.policy_version IS NOT NULL AND NOT EXISTS (
           SELECT FROM notify.policy p WHERE p.tenant_id = d.tenant_id AND p.version = d.policy_version))
 UNION ALL
SELECT d.tenant_id, d.delivery_id, 'is another event''s'
  FROM notify.delivery d
  JOIN notify.event e ON e.tenant_id = d.tenant_id AND e.event_id = d.event_id
 WHERE (d.case_id, d.at) IS DISTINCT FROM (e.case_id, e.at) OR d.due_at < d.at
    OR (d.rule NOT IN ('event', 'test') AND d.fields ->> 'number' IS DISTINCT FROM e.number)
 UNION ALL
SELECT tenant_id, event_id, 'is told in different words under one rule'
  FROM notify.delivery
 GROUP BY tenant_id, event_id, rule
HAVING count(DISTINCT fields) > 1 OR count(DISTINCT coalesce(policy_version, 0)) > 1
 UNION ALL
SELECT d.tenant_id, d.delivery_id, 'ends otherwise than its state says'
  FROM notify.delivery d
 WHERE (d.state IN ('queued', 'held', 'sending')) = (d.ended_at IS NOT NULL)
    OR (d.state IN ('sent', 'delivered') AND (d.sent_at IS NULL OR d.recipient = ''))
    OR (d.channel = 'webhook' AND d.recipient NOT IN ('', d.addressee))
    OR (d.state = 'expanded' AND (d.reason <> '' OR d.recipient <> '' OR d.provider_id IS NOT NULL OR d.provider_ref IS NOT NULL))
    OR (d.round = 0 AND d.state IN ('queued', 'held', 'sending', 'suppressed', 'expanded') AND d.sent_at IS NOT NULL)
 UNION ALL
SELECT d.tenant_id, d.delivery_id, 'was tried ' || count(a.attempt) || ' times, and says ' || d.attempts
  FROM notify.delivery d
  LEFT JOIN notify.delivery_attempt a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.delivery_id
 WHERE d.round = 0
 GROUP BY d.tenant_id, d.delivery_id, d.attempts
HAVING count(a.attempt) <> d.attempts OR coalesce(max(a.attempt), 0) <> count(a.attempt)
 UNION ALL
SELECT d.tenant_id, d.delivery_id, 'was sent before it was due'
  FROM notify.delivery d
  JOIN notify.delivery_attempt a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.delivery_id AND a.attempt = 1
 WHERE d.round = 0 AND a.at < d.due_at - interval '2 hours'
 UNION ALL
SELECT a.tenant_id, a.delivery_id, 'was tried at another time than that was begun'
  FROM notify.delivery_attempt a
  JOIN intake.tenant t ON t.tenant_id = a.tenant_id AND NOT t.sandbox
 WHERE a.at NOT BETWEEN a.begun_at - interval '125 minutes' AND a.begun_at + interval '125 minutes'
 UNION ALL
SELECT a.tenant_id, a.delivery_id, 'attempts at no message'
  FROM notify.delivery_attempt a
 WHERE NOT EXISTS (SELECT FROM notify.delivery d WHERE d.delivery_id = a.delivery_id)
 UNION ALL
SELECT q.tenant_id, q.delivery_id, 'no message is in the queue'
  FROM notify.delivery_queue q
 WHERE NOT EXISTS (SELECT FROM notify.delivery d WHERE d.delivery_id = q.delivery_id)
 UNION ALL
SELECT tenant_id, delivery_id, 'an attempt that ends without an outcome'
  FROM notify.delivery_attempt
 WHERE (ended_at IS NULL) <> (outcome IS NULL)"""

GHOSTS: Final = """
SELECT i.tenant_id, i.consumer || ' ' || i.message_id, 'has applied what nobody has told'
  FROM {service}.inbox i
 WHERE i.received_at > $1
   AND NOT EXISTS (SELECT FROM told WHERE told.tenant_id = i.tenant_id AND told.message_id = i.message_id)"""

OUTBOXES: Final = """
SELECT tenant_id, message_id, subject FROM {service}.outbox"""

LETTERS: Final = """
SELECT tenant_id, consumer || ' ' || message_key, 'a dead letter with another body than was given up'
  FROM {service}.dead_letter
 WHERE body_sha256 <> encode(sha256(body), 'hex')
 UNION ALL
SELECT tenant_id, message_id::text, 'is published, and nowhere'
  FROM {service}.outbox
 WHERE (published_at IS NULL) <> (stream_seq IS NULL)"""


async def check(look: Look) -> None:
    findings = look.findings
    # (check, statement, arguments, whether messages under way may put it right)
    books = (
        ("I1", IMPORTS, (look.retained_from,), True),
        ("I1", WAYS, (), False),
        *(("I2", HASHES.format(table=table, name=name), (), False) for table, name in KEYED),
        ("I2", BOUND, (), False),
        *(("I2", ANSWERED.format(service=service), (), False) for service in SERVICES),
        ("I9", ADDRESSES, (), False),
        ("I4", SLEEPERS, (), True),
        ("I13", RANKS, (), True),
        ("I13", CHANGED, (), False),
        ("I13", CREATED, (), True),
        ("I5", PROVIDERS, (), True),
    )
    for check_, statement, arguments, may_pass in books:
        findings.looked_at(1)
        for tenant_id, subject, what in await look.rows(statement, *arguments):
            if what is not None and _is_ours(look, subject):
                findings.add(check_, subject, what, tenant_id=tenant_id, may_pass=may_pass)
    await _numbers(look)
    await _moves(look)
    await _clocks(look)
    await _ticks(look)
    await _inboxes(look)


def _is_ours(look: Look, subject: object) -> bool:
    if subject in look.misplaced:
        return False
    return not any(look.findings.has(each, subject) for each in ("I1", "I2", "I3", "I6", "I7", "I12", "I14", "I15"))


async def _numbers(look: Look) -> None:
    """I2: unless complaints are missing or too many, which is that finding."""
    if look.misplaced or any(each.check in ("I1", "I2", "I15") for each in look.findings.all()):
        return
    for query in (NUMBERS, COUNTERS):
        for tenant_id, subject, what in await look.rows(query):
            look.findings.add("I2", subject, what, tenant_id=tenant_id)


async def _moves(look: Look) -> None:
    for row in await look.rows(MOVES):
        tenant_id, move_id, cause, name, version, done_at, created_at, moved, looked_at, lines, is_whole = row
        look.findings.looked_at(1)
        is_known = (tenant_id, cause, name, version) in look.told.published
        is_counted = 0 <= moved <= looked_at and (cause != "policy" or moved == lines)
        of = (version,) if cause == "policy" else (name, version)
        is_whole = is_whole and move_id == uuid5(NAMES, name_of("move", tenant_id, cause, *of))
        if move_id in look.misplaced or (is_known and is_whole and is_counted and done_at is not None):
            continue
        if is_known or not is_whole or created_at > look.retained_from:
            look.findings.add(
                "I13",
                move_id,
                "a publication that did not reach the cases that it says",
                tenant_id=tenant_id,
                may_pass=True,
            )
    if not look.misplaced:
        wanted = {place for place in look.told.published if place[1] == "calendar" or place[2] != "keep"}
        found = {(row[0], row[2], row[3], row[4]) for row in await look.rows(MOVES)}
        first = {(tenant_id, "policy", "1") for tenant_id in look.tenants}
        for tenant_id, cause, name, version in wanted - found:
            if (tenant_id, cause, version) not in first:
                look.findings.add(
                    "I13",
                    f"{tenant_id} {cause} {name} {version}",
                    "a publication that reached no case",
                    tenant_id=tenant_id,
                    may_pass=True,
                )


async def _clocks(look: Look) -> None:
    """I4: a sandbox's clock went where it was told to go, sla and notify with it."""
    findings, told = look.findings, look.told
    known: set[UUID] = set()
    rounds: dict[UUID, int] = {}
    for row in await look.rows(ADVANCES):
        findings.looked_at(1)
        operation_id, settled = row["operation_id"], told.settled.get(row["operation_id"])
        known.add(operation_id)
        rounds[operation_id] = row["steps"]
        if operation_id not in told.advanced and _is_past(look, row["settled_at"]):
            continue
        right = told.advanced.get(operation_id) == row["target"] and row["settled_at"] is not None
        right = (
            right
            and settled is not None
            and (settled["steps"], instant(settled["target"])) == (row["steps"], row["target"])
        )
        if not right:
            findings.add(
                "I4", operation_id, "sla has not gone where it was told", tenant_id=row["tenant_id"], may_pass=True
            )
    for operation_id in told.advanced.keys() - known - look.misplaced:
        findings.add("I4", operation_id, "sla knows nothing of where to go", may_pass=True)
    known = set()
    for row in await look.rows(SETTLEMENTS):
        operation_id, settled = row["operation_id"], told.settled.get(row["operation_id"])
        known.add(operation_id)
        if settled is None and _is_past(look, row["rested_at"]):
            continue
        right = settled is not None and instant(settled["target"]) == row["target"]
        if not right or (row["rested_at"] is not None) != (operation_id in told.rested) or row["rested_at"] is None:
            findings.add("I4", operation_id, "notify has not come to rest", tenant_id=row["tenant_id"], may_pass=True)
    for operation_id in told.settled.keys() - known - look.misplaced:
        if (at := instant(told.settled[operation_id].get("at"))) is not None and operation_id in told.advanced:
            findings.add("I4", operation_id, f"notify knows nothing of {at}", may_pass=True)
    operations: set[UUID] = set()
    for row in await look.rows(OPERATIONS):
        findings.looked_at(1)
        round_id, operation_id = row["round_id"], row["operation_id"]
        operations |= {round_id, operation_id}
        operations.update(_rounds(row))
        right = (
            row["state"] == "done"
            and row["is_asked"]
            and row["done_at"] is not None
            and row["settled"]
            and row["rested"]
            and row["settled_at"] is not None
            and row["clock"] is not None
            and row["started_from"] <= row["target"] <= row["clock"]
            and (_is_past(look, row["done_at"]) or told.advanced.get(round_id) == row["target"])
            and (_is_past(look, row["done_at"]) or told.advanced.get(operation_id) == row["target"])
            and row["created_at"] <= row["settled_at"] <= row["done_at"]
            and (row["created_at"] < look.retained_from or (row["tenant_id"], row["started_from"]) in told.instants)
            and (_is_past(look, row["done_at"]) or all(each in told.advanced for each in _rounds(row)))
            and (row["round"] > 1 or (round_id == operation_id and row["steps"] == rounds.get(round_id)))
        )
        if not right and not {round_id, operation_id} & look.misplaced:
            findings.add(
                "I4", operation_id, "a clock is not where it was to go", tenant_id=row["tenant_id"], may_pass=True
            )
    for round_id in told.advanced.keys() - operations - look.misplaced:
        findings.add("I4", round_id, "a clock was moved, and nobody knows why", may_pass=True)


def _is_past(look: Look, at: datetime | None) -> bool:
    """Whether this is so long ago that it is told no more."""
    return at is not None and at < look.retained_from


def _rounds(operation: Any) -> list[UUID]:
    """The ids of the rounds of a clock's operation after the first."""
    named = (operation["tenant_id"], operation["operation_id"])
    return [uuid5(NAMES, name_of("clock round", *named, number)) for number in range(2, operation["round"] + 1)]


async def _ticks(look: Look) -> None:
    findings = look.findings
    seen: set[UUID] = set()
    for row in await look.rows(TICKS):
        seen.add(row["tenant_id"])
        last = look.told.ticked.get(row["tenant_id"])
        if row["tenant_id"] == LIVE:
            right = (last is None or row["at"] >= last - TICKS_APART) and (
                row["live"] is None or row["at"] <= row["live"]
            )
        else:
            right = row["clock"] is not None and row["at"] == row["clock"] and last in (None, row["clock"])
        if not right:
            findings.add(
                "I4",
                f"tick {row['tenant_id']}",
                "sla has another time than routing",
                tenant_id=row["tenant_id"],
                may_pass=True,
            )
    for tenant_id in (look.clocks.keys() | ({LIVE} & look.told.ticked.keys())) - seen:
        findings.add("I4", f"tick {tenant_id}", "sla has no time", tenant_id=tenant_id, may_pass=True)
    for tenant_id, tenant in look.tenants.items():
        if tenant.sandbox and tenant_id not in look.clocks and tenant_id not in look.misplaced:
            findings.add("I4", f"clock {tenant_id}", "a sandbox without a clock", tenant_id=tenant_id, may_pass=True)
    [row] = await look.rows(LIVE_TICK)
    told = look.told.ticked.get(LIVE)
    if row["n"] != 1 or row["outbox_id"] > row["highest"] or (told is not None and row["at"] != told):
        findings.add("I4", "live tick", "the live time is not what it was", may_pass=True)


async def _inboxes(look: Look) -> None:
    """I9: nobody has applied what nobody told; what was given up is kept as it was."""
    outboxes = "\nUNION ALL ".join(OUTBOXES.format(service=service) for service in SERVICES)
    ghosts = "\nUNION ALL".join(GHOSTS.format(service=service) for service in SERVICES)
    for tenant_id, subject, what in await look.rows(
        f"WITH told AS MATERIALIZED ({outboxes}) {ghosts}", look.retained_from
    ):
        message_id = UUID(subject.rpartition(" ")[2])
        if message_id not in look.misplaced:
            look.findings.add("I9", subject, what, tenant_id=tenant_id, is_extra=True)
    for service in SERVICES:
        for tenant_id, subject, what in await look.rows(LETTERS.format(service=service)):
            look.findings.add("I9", subject, what, tenant_id=tenant_id, may_pass=True)
