"""I9: what one service tells is published, lies in the stream as it was written, and is applied by everybody who listens."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from services.audit.copies import instant
from services.audit.look import LIVE, Look
from services.audit.streams import SERVICES, Stream, tenant_in
from services.audit.tenants import as_uuid

KINDS: Final = r"regexp_replace(o.subject, '\.[0-9a-f-]{36}\.', '.*.')"

LIVE_TICK: Final = f"routing.v1.{LIVE}.clock.ticked"

CONSUMERS: Final = """
SELECT DISTINCT consumer
  FROM {consumer}.inbox"""

# What a consumer has applied, by where it came from: how we know what it listens to when NATS has forgotten it.
HEARD: Final = """
SELECT DISTINCT i.consumer, {kind} AS filter
  FROM {consumer}.inbox i
  JOIN {producer}.outbox o ON o.tenant_id = i.tenant_id AND o.message_id = i.message_id
 WHERE i.consumer = ANY ($1)"""

# A tick of the live time says nothing that the next one does not say again, so the last ones may be on their way when everything stops; how
# far sla is behind is compared with the books.
MISSED: Final = """
SELECT o.tenant_id, o.message_id, o.subject
  FROM {producer}.outbox o
 WHERE o.published_at IS NOT NULL
   AND o.subject LIKE ANY ($1)
   AND (o.subject <> $3 OR o.id < (
       SELECT max(l.id) FROM {producer}.outbox l JOIN {consumer}.inbox a ON a.tenant_id = l.tenant_id AND a.message_id = l.message_id
        WHERE l.subject = $3 AND a.consumer = $2))
   AND NOT EXISTS (
       SELECT FROM {consumer}.inbox i
        WHERE i.tenant_id = o.tenant_id AND i.consumer = $2 AND i.message_id = o.message_id)
   AND NOT EXISTS (
       SELECT FROM {consumer}.dead_letter d
        WHERE d.consumer = $2 AND d.message_key = o.message_id::text AND d.state IN ('done', 'discarded'))"""

# Whether somebody has applied one of some messages.
TAKEN: Final = """
SELECT consumer, message_id
  FROM {service}.inbox
 WHERE message_id = ANY ($1)"""

SAMPLES: Final = 20
"""So many messages of a kind show who listens to it."""

DEAD: Final = """
SELECT d.tenant_id, d.dead_letter_id, d.consumer, d.message_key, d.subject, d.body, d.state, d.attempts, d.resolved_at, d.resolved_by,
       EXISTS (SELECT FROM {service}.credential c WHERE d.resolved_by = c.role || ':' || c.credential_id OR d.resolved_by = c.staff_id)
           AS is_by_somebody
  FROM {service}.dead_letter d"""

PLACES: Final = """
SELECT coalesce(max(id), 0) AS last, pg_get_serial_sequence('{service}.outbox', 'id') AS sequence
  FROM {service}.outbox"""

RELAY: Final = """
SELECT stream_created
  FROM {service}.relay_state"""

NEXT: Final = """
SELECT last_value FROM {sequence}"""

# Copies of timelines: each line that routing wrote has come to everybody who keeps them.
COPIES: Final = """
SELECT e.tenant_id, e.case_id, min(e.seq) AS seq, count(*) AS n
  FROM routing.entry e
 WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.tenant_id = e.tenant_id AND t.case_id = e.case_id AND t.seq = e.seq)
 GROUP BY e.tenant_id, e.case_id"""

# Lines of a case that there is not.
STRAY: Final = """
SELECT t.tenant_id, t.case_id, count(*) AS n
  FROM {table} t
 WHERE NOT EXISTS (SELECT FROM routing."case" c WHERE c.tenant_id = t.tenant_id AND c.case_id = t.case_id)
 GROUP BY t.tenant_id, t.case_id"""

COPIES_IN: Final = ("sla.timeline_entry", "notify.entry", "reporting.entry")


async def check(look: Look) -> None:
    settled = await _dead_letters(look)
    _published(look)
    for stream in look.streams.values():
        _held(look, stream, settled)
    await _applied(look)
    await _listening(look)
    await _sequences(look)
    for table in COPIES_IN:
        for row in await look.rows(COPIES.format(table=table)):
            look.findings.looked_at(1)
            if row["case_id"] not in look.misplaced:
                look.findings.add(
                    "I9",
                    f"{table} {row['case_id']}",
                    f"{row['n']} lines have not come, from {row['seq']} on",
                    tenant_id=row["tenant_id"],
                    may_pass=True,
                )
        for row in await look.rows(STRAY.format(table=table)):
            if row["case_id"] not in look.misplaced and (row["case_id"], 1) not in look.told.lines:
                what = f"{row['n']} lines that nobody has told"
                look.findings.add("I9", f"{table} {row['case_id']}", what, tenant_id=row["tenant_id"], is_extra=True)
    for service, message_id in look.told.unreadable:
        look.findings.add("I9", message_id, f"what {service} tells cannot be read")


async def _dead_letters(look: Look) -> set[str]:
    """Note what was given up and waits for somebody; return the keys of what somebody has decided about."""
    settled: set[str] = set()
    for service in SERVICES:
        for row in await look.rows(DEAD.format(service=service)):
            fault = _misreported(look, service, row)
            if fault is not None and row["dead_letter_id"] not in look.misplaced:
                name = f"{row['consumer']} {row['message_key']}"
                look.findings.add("I9", name, f"a dead letter {fault}", tenant_id=row["tenant_id"])
            elif row["state"] in ("done", "discarded"):
                settled.add(row["message_key"])
            elif row["dead_letter_id"] not in look.misplaced:
                look.findings.add(
                    "I9",
                    f"{row['consumer']} {row['message_key']}",
                    "was given up, and nobody has seen to it",
                    tenant_id=row["tenant_id"],
                    may_pass=row["state"] == "retry",
                )
    return settled


def _misreported(look: Look, service: str, row: Any) -> str | None:
    """Say what a dead letter says that is not so."""
    if not row["consumer"].startswith(f"{service}-on-") or row["attempts"] < 1:
        return "of nobody who listens"
    if (row["resolved_at"] is None) != (row["state"] == "dead"):
        return f"is {row['state']}, and {'nobody has seen to it' if row['resolved_at'] is None else 'somebody has'}"
    if row["state"] == "discarded" and not row["is_by_somebody"]:
        return "was discarded by nobody"
    for each in SERVICES:
        told = look.told.rows.get((each, as_uuid(row["message_key"])))
        if told is not None and (told.tenant_id, told.subject, told.body) != (
            row["tenant_id"],
            row["subject"],
            hash(row["body"]),
        ):
            return "says otherwise than was told"
    return None


def _published(look: Look) -> None:
    """What is in an outbox is in the stream, at the place that the outbox notes."""
    places = {
        service: {message.seq: as_uuid(message.message_id) for message in stream.messages}
        for service, stream in look.streams.items()
    }
    held = {service: set(ids.values()) for service, ids in places.items()}
    first = {
        service: min((each.seq for each in stream.messages), default=0) for service, stream in look.streams.items()
    }
    for (service, message_id), row in look.told.rows.items():
        look.findings.looked_at(1)
        if message_id in look.misplaced:
            continue
        if not row.is_published:
            what = f"{service} has not published it"
        elif message_id not in held.get(service, ()) and row.created_at > look.retained_from:
            what = f"the stream of {service} has lost it"
        elif (
            row.stream_seq is not None
            and service in places
            and not 1 <= row.stream_seq < first[service]  # what the stream has let go
            and places[service].get(row.stream_seq) != message_id
        ):
            what = f"stands elsewhere in the stream of {service}"
        else:
            continue
        look.findings.add("I9", message_id, what, tenant_id=row.tenant_id, may_pass=True)


def _held(look: Look, stream: Stream, settled: set[str]) -> None:
    """What is in a stream was told by its service, in these words."""
    for message in stream.messages:
        look.findings.looked_at(1)
        place = f"{stream.service.upper()}:{message.seq}"
        message_id = as_uuid(message.message_id)
        row = look.told.rows.get((stream.service, message_id))
        if row is None:
            is_new = message.seq > stream.last_seq
            is_settled = message.message_id in settled or place in settled
            if not (is_new or is_settled or message.at < look.retained_from or message_id in look.misplaced):
                look.findings.add(
                    "I9", place, "was published past the outbox", tenant_id=tenant_in(message.subject), is_extra=True
                )
        elif row.tenant_id == tenant_in(message.subject) and (row.subject, row.body) != (
            message.subject,
            hash(message.body),
        ):
            look.findings.add(
                "I9", message_id, f"the stream of {stream.service} holds other words", tenant_id=row.tenant_id
            )


async def _applied(look: Look) -> None:
    """Every consumer has applied everything that it listens to."""
    filters: dict[tuple[str, str, str], set[str]] = defaultdict(set)  # (producer, service, consumer) → subjects
    for producer in SERVICES:
        for durable in look.streams[producer].durables if producer in look.streams else ():
            service = durable.name.partition("-on-")[0]
            if service in SERVICES:
                filters[producer, service, durable.name] |= set(durable.filters) or {">"}
    known = {consumer for _, _, consumer in filters}
    for service in SERVICES:
        names = {row["consumer"] for row in await look.rows(CONSUMERS.format(consumer=service))} - known
        for producer in SERVICES if names else ():
            query = HEARD.format(consumer=service, producer=producer, kind=KINDS)
            for row in await look.rows(query, list(names)):
                filters[producer, service, row["consumer"]].add(row["filter"])
                if producer in look.streams:
                    what = f"has applied what {producer} told, and is not known to NATS"
                    look.findings.add("I9", row["consumer"], what, may_pass=True)
    for (producer, service, consumer), subjects in filters.items():
        heard = re.compile("|".join(sorted(map(_pattern, subjects)))).fullmatch
        like = [_like(subject) for subject in subjects]  # a regular expression in SQL takes ten times as long
        for row in await look.rows(MISSED.format(producer=producer, consumer=service), like, consumer, LIVE_TICK):
            if heard(row["subject"]) and row["message_id"] not in look.misplaced:
                look.findings.add(
                    "I9",
                    f"{consumer} {row['message_id']}",
                    f"{consumer} has not applied {row['subject']}",
                    tenant_id=row["tenant_id"],
                    may_pass=True,
                )
        look.findings.looked_at(1)


async def _listening(look: Look) -> None:
    """Streams keep everything, consumers are handed everything, and whoever has applied a kind of message still listens to it."""
    kinds: dict[tuple[str, str], list[UUID]] = defaultdict(list)
    for (producer, message_id), row in look.told.rows.items():
        some = kinds[producer, _kind(row.subject)]
        if len(some) < SAMPLES:
            some.append(message_id)
    of_message = {message_id: kind for kind, some in kinds.items() for message_id in some}
    heard: dict[tuple[str, str], set[str]] = defaultdict(set)  # (producer, consumer) → subjects
    for service in SERVICES:
        for row in await look.rows(TAKEN.format(service=service), list(of_message)):
            producer, kind = of_message[row["message_id"]]
            heard[producer, row["consumer"]].add(kind)
    for producer, stream in look.streams.items():
        look.findings.looked_at(1)
        known = {instant(row["stream_created"]) for row in await look.rows(RELAY.format(service=producer))}
        if stream.fault:
            look.findings.add("I9", f"stream {producer}", stream.fault)
        elif stream.messages and stream.created is not None and stream.created not in known:
            look.findings.add("I9", f"stream {producer}", "is not the one that its relay knows", may_pass=True)
        for durable in stream.durables:
            look.findings.looked_at(1)
            listens = re.compile("|".join(map(_pattern, durable.filters)) or ".*").fullmatch
            missed = [kind for kind in heard[producer, durable.name] if not listens(kind)]
            what = durable.fault or (f"listens to {missed[0]} no more" if missed else "")
            if what:
                look.findings.add("I9", durable.name, what)


async def _sequences(look: Look) -> None:
    """The next row of an outbox gets a place of its own."""
    for service in SERVICES:
        [row] = await look.rows(PLACES.format(service=service))
        if row["sequence"] is not None:
            [next_] = await look.rows(NEXT.format(sequence=row["sequence"]))
            if next_["last_value"] < row["last"]:
                what = f"would number its next row {next_['last_value'] + 1}, and has {row['last']} already"
                look.findings.add("I9", f"{service}.outbox", what)


@lru_cache(maxsize=10_000)
def _kind(subject: str) -> str:
    """The subject without its tenant."""
    service, version, _, kind = (*subject.split(".", 3), "", "", "", "")[:4]
    return f"{service}.{version}.*.{kind}"


def _pattern(subject: str) -> str:
    """The subject filter as a regular expression."""
    parts = [r"[^.]+" if part == "*" else ".+" if part == ">" else re.escape(part) for part in subject.split(".")]
    return r"\.".join(parts)


def _like(subject: str) -> str:
    """The subject filter as a pattern that matches at least as much."""
    return re.sub(r"([\\%_])", r"\\\1", subject).replace("*", "%").replace(">", "%")
