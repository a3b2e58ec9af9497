"""Messages to people and systems: each is taken (I5), not too often (I6), under one key (I7)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from services.audit.look import Look
from services.audit.provider import key_of
from services.audit.tenants import as_uuid
from services.audit.told import UNTOLD

MOST_WITHOUT_KEYS: Final = 2
"""So often may a message be taken by whoever neither knows keys nor can be asked."""

EVENT_RULE: Final = "event"
TEST_RULE: Final = "test"
WORDLESS: Final = frozenset({EVENT_RULE, TEST_RULE})
"""What goes to an endpoint as it happened bears the event's id there; what a rule has put into words bears its own."""
LATE: Final = timedelta(seconds=30)

DELIVERIES: Final = """
SELECT d.tenant_id, d.delivery_id, d.event_id, d.rule, d.channel, d.audience, d.addressee, d.state, d.reason, d.attempts, d.round,
       p.config ->> 'lookup_url' IS NOT NULL AS is_asked, q.delivery_id IS NOT NULL AS is_queued, q.wake_at, q.held_until
  FROM notify.delivery d
  LEFT JOIN notify.provider p ON p.tenant_id = d.tenant_id AND p.provider_id = d.provider_id
  LEFT JOIN notify.delivery_queue q ON q.tenant_id = d.tenant_id AND q.delivery_id = d.delivery_id"""

ATTEMPTS: Final = """
SELECT tenant_id, delivery_id, attempt, key, outcome
  FROM notify.delivery_attempt
 ORDER BY tenant_id, delivery_id, attempt"""

REPORTED: Final = """
SELECT tenant_id, delivery_id, at
  FROM reporting.delivery"""

BARE_EVENTS: Final = """
SELECT e.tenant_id, e.event_id
  FROM notify.event e
 WHERE NOT EXISTS (SELECT FROM notify.delivery d WHERE d.tenant_id = e.tenant_id AND d.event_id = e.event_id)"""

# Endpoints that want everything get everything told since they are known.
WANTED: Final = """
SELECT o.tenant_id, o.message_id, e.endpoint_id
  FROM notify.endpoint e
  JOIN ({sources}) AS o (tenant_id, message_id, created_at)
    ON o.tenant_id = e.tenant_id AND o.created_at > e.created_at + interval '10 seconds'
  JOIN notify.inbox i ON i.tenant_id = o.tenant_id AND i.message_id = o.message_id AND i.consumer IN ('notify-on-entry', 'notify-on-sla')
 WHERE e.active AND e.updated_at = e.created_at AND cardinality(e.events) = 0
   AND NOT EXISTS (
       SELECT FROM notify.delivery d
        WHERE d.tenant_id = o.tenant_id AND d.event_id = o.message_id AND d.rule = 'event' AND d.addressee = e.endpoint_id::text)"""

# A receipt is taken when the message is known by the name that the receipt gives it, and then the message is as the receipt says. One that
# somebody sends again begins anew.
RECEIPTS: Final = """
SELECT r.tenant_id, r.webhook_id AS subject, 'a receipt of a message that is not known' AS what
  FROM notify.receipt r
 WHERE r.received_at > $1
   AND NOT EXISTS (
       SELECT FROM notify.delivery d
        WHERE d.tenant_id = r.tenant_id AND d.provider_id = r.provider_id AND d.provider_ref = r.provider_ref)
 UNION ALL
SELECT d.tenant_id, d.delivery_id::text, 'is ' || d.state || ', and a receipt says otherwise'
  FROM notify.delivery d
  JOIN notify.receipt r ON r.tenant_id = d.tenant_id AND r.provider_id = d.provider_id AND r.provider_ref = d.provider_ref
 WHERE d.round = 0 AND d.state <> 'dead'
 GROUP BY d.tenant_id, d.delivery_id, d.state
HAVING d.state <> CASE WHEN bool_or(r.state = 'delivered') THEN 'delivered' ELSE 'failed' END"""

# Endpoints that want some of it, by patterns of names.
CHOOSY: Final = """
SELECT tenant_id, endpoint_id, events, created_at + interval '10 seconds' AS since
  FROM notify.endpoint
 WHERE active AND updated_at = created_at AND cardinality(events) > 0"""

UNSENT: Final = """
SELECT i.message_id
  FROM notify.inbox i
 WHERE i.tenant_id = $1 AND i.message_id = ANY ($3) AND i.consumer IN ('notify-on-entry', 'notify-on-sla')
   AND NOT EXISTS (
       SELECT FROM notify.delivery d
        WHERE d.tenant_id = i.tenant_id AND d.event_id = i.message_id AND d.rule = 'event' AND d.addressee = $2::text)"""

TELLING: Final = (
    ("routing", "entry.appended"),
    ("sla", "announcement.made"),
    ("sla", "penalty.posted"),
)

# Somebody, or the policy, said no: that is an end, and no loss.
AN_END: Final = frozenset({"no_provider", "text_too_long", "address_malformed"})


class Attempt(Struct, frozen=True):
    tenant_id: UUID
    delivery_id: UUID
    attempt: int
    key: UUID
    outcome: str | None


EVENTLESS: Final = """
SELECT d.tenant_id, d.delivery_id
  FROM notify.delivery d
 WHERE NOT EXISTS (SELECT FROM notify.event e WHERE e.tenant_id = d.tenant_id AND e.event_id = d.event_id)"""


async def check(look: Look) -> None:
    attempts: dict[UUID, list[Attempt]] = defaultdict(list)
    for row in await look.rows(ATTEMPTS):
        attempts[row["delivery_id"]].append(msgspec.convert(dict(row), Attempt))
    deliveries: dict[UUID, Any] = {}
    for row in await look.rows(DELIVERIES):
        deliveries[row["delivery_id"]] = row
    _keys(look, deliveries, attempts)
    _too_often(look, deliveries, attempts)
    for delivery_id, row in deliveries.items():
        look.findings.looked_at(1)
        if not _is_ours(look, row):
            continue
        fault = _fault(look, row, attempts.get(delivery_id, []))
        if fault is not None:
            what, may_pass = fault
            look.findings.add("I5", delivery_id, what, tenant_id=row["tenant_id"], may_pass=may_pass)
    for tenant_id, subject, what in await look.rows(RECEIPTS, look.retained_from):
        if as_uuid(subject) not in look.misplaced:
            look.findings.add("I5", subject, what, tenant_id=tenant_id)
    await _lost(look, deliveries)
    if look.record is not None:
        _taken(look, deliveries, attempts)


def _is_ours(look: Look, row: Any) -> bool:
    """Whether a delivery is counted here: not what lies with the wrong tenant, nor a double of another."""
    return not ({row["delivery_id"], row["event_id"]} & look.misplaced or look.findings.has("I7", row["delivery_id"]))


# -- I7 ------------------------------------------------------------------------------------------------------------------------


def _keys(look: Look, deliveries: dict[UUID, Any], attempts: dict[UUID, list[Attempt]]) -> None:
    """One message has one key, and a new one only when a person sends it again; one key has one message."""
    owners: dict[UUID, UUID] = {}
    same: dict[tuple[Any, ...], UUID] = {}
    for delivery_id, row in deliveries.items():
        look.findings.looked_at(1)
        if {delivery_id, row["event_id"]} & look.misplaced:
            continue
        tenant_id = row["tenant_id"]
        content = tuple(row[name] for name in ("tenant_id", "event_id", "rule", "audience", "addressee", "channel"))
        if same.setdefault(content, delivery_id) != delivery_id:
            first = same[content]
            doubled = delivery_id if delivery_id not in look.told.delivered else first
            look.findings.add("I7", doubled, "the same message twice", tenant_id=tenant_id, is_extra=True)
        keys = {attempt.key for attempt in attempts.get(delivery_id, [])}
        if len(keys) > row["round"] + 1:
            look.findings.add("I7", delivery_id, f"{len(keys)} keys", tenant_id=tenant_id, is_extra=True)
        if row["channel"] == "webhook" and keys - {delivery_id}:
            look.findings.add("I7", delivery_id, "a key that is not its own", tenant_id=tenant_id)
        for key in keys:
            if owners.setdefault(key, delivery_id) != delivery_id:
                look.findings.add("I7", delivery_id, "the key of another message", tenant_id=tenant_id)


# -- I6 ------------------------------------------------------------------------------------------------------------------------


def _most(row: Any) -> int:
    """How often a message may be taken, each time that somebody sent it."""
    knows_keys = row["channel"] == "webhook" or (row["channel"] == "sms" and row["is_asked"])
    return (1 if knows_keys else MOST_WITHOUT_KEYS) * (int(row["round"]) + 1)


def _too_often(look: Look, deliveries: dict[UUID, Any], attempts: dict[UUID, list[Attempt]]) -> None:
    for delivery_id, row in deliveries.items():
        accepted = sum(attempt.outcome == "accepted" for attempt in attempts.get(delivery_id, []))
        if accepted > _most(row) and _is_ours(look, row):
            look.findings.add(
                "I6", delivery_id, f"was taken {accepted} times", tenant_id=row["tenant_id"], is_extra=True
            )


# -- I5 ------------------------------------------------------------------------------------------------------------------------


def _fault(look: Look, row: Any, attempts: list[Attempt]) -> tuple[str, bool] | None:
    """Say why a delivery was not taken, and whether that may pass; None when it was, or need not be."""
    state = row["state"]
    if state in ("queued", "held", "sending"):
        if not row["is_queued"]:
            return f"is {state}, and in no queue", False
        if state == "held":
            return _held(look, row)
        return None if _waits_its_turn(look, row, attempts) else (f"is {state}", True)
    told = look.told.delivered.get(row["delivery_id"])
    if told is not None and state not in UNTOLD and state not in told.states:
        return f"is {state}, and was told to be {told.state}", False
    if state == "expanded" and told is not None:
        return f"is expanded, and was told to be {told.state}", False
    if state in ("sent", "delivered", "failed") and not any(each.outcome == "accepted" for each in attempts):
        return f"is {state}, and no attempt was taken", False
    if state == "dead" and not _has_ended(row, attempts):
        return f"is dead: {row['reason']}", False
    return None


def _waits_its_turn(look: Look, row: Any, attempts: list[Attempt]) -> bool:
    """Whether somebody has called in vain, or was put off by whoever knows the address, and is to call again later: the pauses grow, and
    one may last longer than our patience."""
    outcome = attempts[-1].outcome if attempts else None
    has_failed = bool(row["reason"]) if outcome is None else outcome in ("unavailable", "unknown")
    return row["state"] == "queued" and has_failed and look.now < row["wake_at"] < look.now + look.longest_pause


def _held(look: Look, row: Any) -> tuple[str, bool] | None:
    if row["held_until"] is not None:
        now = look.clocks.get(row["tenant_id"])
        is_over = now is not None and row["held_until"] <= now
    else:
        is_over = row["wake_at"] < look.now - LATE
    return ("is held for longer than it should be", True) if is_over else None


def _has_ended(row: Any, attempts: list[Attempt]) -> bool:
    """Whether a dead delivery is dead because somebody said no, or because nobody can say whether it was taken."""
    if row["rule"] == TEST_RULE or row["reason"] in AN_END:
        return True
    if attempts and attempts[-1].outcome == "refused":
        return True
    return bool(row["reason"] == "outcome_unknown") and _most(row) > row["round"] + 1


async def _lost(look: Look, deliveries: dict[UUID, Any]) -> None:
    """What was told of, taken or called for is there."""
    known = {row["delivery_id"]: (row["tenant_id"], row["at"]) for row in await look.rows(REPORTED)}
    known |= {delivery_id: (told.tenant_id, told.at) for delivery_id, told in look.told.delivered.items()}
    for delivery_id, (tenant_id, at) in known.items():
        look.findings.looked_at(1)
        if delivery_id not in deliveries and delivery_id not in look.misplaced and look.is_kept(tenant_id, at):
            look.findings.add("I5", delivery_id, "was told of, and is not there", tenant_id=tenant_id)
    for row in await look.rows(EVENTLESS):
        if row["delivery_id"] not in look.misplaced:
            look.findings.add("I5", row["delivery_id"], "what it tells of is lost", tenant_id=row["tenant_id"])
    for row in await look.rows(BARE_EVENTS):
        if row["event_id"] not in look.misplaced:
            look.findings.add("I5", row["event_id"], "an event without its deliveries", tenant_id=row["tenant_id"])
    sources = "\nUNION ALL\n".join(
        f"SELECT tenant_id, message_id, created_at FROM {service}.outbox WHERE subject LIKE '%.{kind}'"  # noqa: S608 - names of our own
        for service, kind in TELLING
    )
    for row in await look.rows(WANTED.format(sources=sources)):
        if row["message_id"] not in look.misplaced:
            look.findings.add(
                "I5",
                f"{row['message_id']} {row['endpoint_id']}",
                "was not sent to an endpoint that wants everything",
                tenant_id=row["tenant_id"],
            )
    for row in await look.rows(CHOOSY):
        wanted = list(_wanted_of(look, row))
        look.findings.looked_at(len(wanted))
        for each in await look.rows(UNSENT, row["tenant_id"], str(row["endpoint_id"]), wanted) if wanted else ():
            if each["message_id"] not in look.misplaced:
                look.findings.add(
                    "I5",
                    f"{each['message_id']} {row['endpoint_id']}",
                    "was not sent to an endpoint that wants it",
                    tenant_id=row["tenant_id"],
                )


def _wanted_of(look: Look, endpoint: Any) -> Iterator[UUID]:
    """Yield the messages that an endpoint wants, of those told since it is known."""
    for service, kind in TELLING:
        for message_id, happened in look.told.happened.items():
            told = look.told.rows.get((service, message_id))
            if told is None or told.tenant_id != endpoint["tenant_id"] or told.created_at < endpoint["since"]:
                continue
            names = (f"{service}.v1.{kind}", *_triggers(happened.said))
            if happened.type == names[0] and any(
                pattern == "*" or pattern == name or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
                for pattern in endpoint["events"]
                for name in names
            ):
                yield message_id


def _triggers(said: dict[str, Any]) -> Iterator[str]:
    """The names under which rules refer to what happened."""
    if "penalty" in said:
        yield from ("effect:penalty", f"penalty:{said['penalty']['rule']}")
        return
    if said.get("withdrawn"):
        yield "effect:withdrawn"
        return
    if "entry" in said:
        kind, part = said["entry"]["kind"], said["entry"]["data"].get("step")
    else:
        kind, part = f"effect:{said['effect']['kind']}", said["effect"].get("what")
    yield kind
    if part is not None:
        yield f"{kind}:{part}"


# -- what the other side says -----------------------------------------------------------------------------------------------------


def _taken(look: Look, deliveries: dict[UUID, Any], attempts: dict[UUID, list[Attempt]]) -> None:
    """What we call sent was taken, as often as it may be; what was taken is known to us."""
    times: Counter[tuple[str, UUID]] = Counter()
    for taken in look.record or ():
        times[taken.channel, as_uuid(key_of(taken))] += taken.times
    channels = {channel for channel, _ in times}
    of_key = {attempt.key: delivery_id for delivery_id, each in attempts.items() for attempt in each}
    by_event: Counter[UUID] = Counter()  # somebody may have sent it again
    for each, row in deliveries.items():
        by_event[row["event_id"] if row["rule"] in WORDLESS else each] += row["round"] + 1
    _heard(look, deliveries, {key for channel, key in times if channel == "webhook"})
    sums: Counter[UUID] = Counter()
    for (channel, key), number in times.items():
        look.findings.looked_at(1)
        if channel == "webhook":
            most = by_event[key]
            if not most and key not in look.misplaced:  # or since the snapshot was taken
                look.findings.add("I5", f"webhook {key}", "was taken, and nothing here says so", may_pass=True)
            elif number > most and key not in look.misplaced:
                look.findings.add("I6", f"webhook {key}", f"was taken {number} times of {most}", is_extra=True)
            continue
        delivery_id = of_key.get(key)
        if delivery_id is None:
            look.findings.add("I5", f"{channel} {key}", "was taken, and nothing here says so", may_pass=True)
        else:
            sums[delivery_id] += number
    for delivery_id, number in sums.items():
        row = deliveries.get(delivery_id)
        if row is not None and number > _most(row) and _is_ours(look, row):
            look.findings.add("I6", delivery_id, f"was taken {number} times", tenant_id=row["tenant_id"], is_extra=True)
    for delivery_id, row in deliveries.items():
        if row["channel"] not in channels or row["channel"] == "webhook" or not _is_ours(look, row):
            continue
        if row["state"] in ("sent", "delivered", "failed") and not sums[delivery_id]:
            look.findings.add("I5", delivery_id, "is sent, and was never taken", tenant_id=row["tenant_id"])


def _heard(look: Look, deliveries: dict[UUID, Any], taken: set[UUID]) -> None:
    """Where systems write down what they take: what we say was sent to them."""
    for delivery_id, row in deliveries.items() if taken else ():
        if row["channel"] != "webhook" or row["state"] != "sent" or not _is_ours(look, row):
            continue
        look.findings.looked_at(1)
        if (row["event_id"] if row["rule"] in WORDLESS else delivery_id) not in taken:
            look.findings.add("I5", delivery_id, "is sent, and was never taken", tenant_id=row["tenant_id"])
