"""I6: what messages cost was taken from the budgets of the day and of whoever they went to: once for each that was sent.

By which key a number is known in its budget only notify can tell; that the instants are the ones at which messages were sent, anybody can.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from services.audit.look import Look

DAYS: Final = """
SELECT tenant_id, channel, day, used
  FROM notify.day_budget"""

USES: Final = """
SELECT tenant_id, scope, encode(subject, 'hex') AS subject, used, last_at
  FROM notify.budget"""

ATTEMPTS: Final = """
SELECT d.tenant_id, d.channel, d.round, a.attempt, a.at
  FROM notify.delivery d
  JOIN notify.delivery_attempt a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.delivery_id
 WHERE d.channel IN ('sms', 'email')"""

SCOPES: Final = {"sms": ("number", "prefix"), "email": ("mailbox",)}
"""Of whom a message of this channel is taken."""

REMEMBERED: Final = timedelta(minutes=9)
"""Uses are remembered for ten."""

KEPT: Final = timedelta(days=1)
"""Budgets go when two days have passed."""


async def check(look: Look) -> None:
    if look.misplaced or any(each.check in ("I5", "I6", "I7") for each in look.findings.all()):
        return
    attempts = await look.rows(ATTEMPTS)
    await _days(look, attempts)
    await _uses(look, attempts)


async def _days(look: Look, attempts: Any) -> None:
    """As many as were sent on a day, however often each was tried. A message that somebody sends again is paid for again."""
    sent: Counter[tuple[UUID, str, date]] = Counter()
    again: Counter[tuple[UUID, str]] = Counter()
    for tenant_id, channel, round_, attempt, at in attempts:
        if attempt == 1:
            again[tenant_id, channel] += round_
            if (day := look.day(tenant_id, at)) is not None:
                sent[tenant_id, channel, day] += 1
    used = {(row["tenant_id"], row["channel"], row["day"]): row["used"] for row in await look.rows(DAYS)}
    for place in used.keys() | sent.keys():
        tenant_id, channel, day = place
        look.findings.looked_at(1)
        if tenant_id not in look.tenants or _has_moved(look, tenant_id):
            continue
        today = look.day(tenant_id, look.clocks.get(tenant_id, look.now))
        is_kept = place in used or (today is not None and day >= today - KEPT)
        if is_kept and not sent[place] <= used.get(place, 0) <= sent[place] + again[tenant_id, channel]:
            what = f"{used.get(place, 0)} messages taken from the budget, {sent[place]} were sent"
            _note(look, f"{tenant_id} {channel} {day}", what, tenant_id)
    for tenant_id in filter(lambda each: _has_moved(look, each), look.tenants):
        for channel in SCOPES:
            taken, most = (
                sum(number for (tenant, way, _), number in found.items() if (tenant, way) == (tenant_id, channel))
                for found in (used, sent)
            )
            if taken > most + again[tenant_id, channel]:
                what = f"{taken} messages taken from the budgets, {most} were sent"
                _note(look, f"{tenant_id} {channel}", what, tenant_id)


def _has_moved(look: Look, tenant_id: UUID) -> bool:
    """Whether the tenant's days have been those of another zone. Of a sandbox whose changes are told no more, nobody knows."""
    tenant = look.tenants[tenant_id]
    is_young = tenant.created_at is not None and tenant.created_at > look.retained_from
    return len(look.told.zones.get(tenant_id, ())) > 1 or (tenant.sandbox and not is_young)


async def _uses(look: Look, attempts: Any) -> None:
    """Whatever was taken from somebody's budget was sent at that instant, and what was sent just now was taken."""
    made: dict[str, Counter[tuple[UUID, datetime]]] = defaultdict(Counter)
    owed: dict[str, Counter[tuple[UUID, datetime]]] = defaultdict(Counter)
    for tenant_id, channel, _, attempt, at in attempts:
        for scope in SCOPES[channel]:
            made[scope][tenant_id, at] += 1
            if attempt == 1 and at > look.clocks.get(tenant_id, look.now) - REMEMBERED:
                owed[scope][tenant_id, at] += 1
    taken: dict[str, Counter[tuple[UUID, datetime]]] = defaultdict(Counter)
    for tenant_id, scope, subject, used, last_at in await look.rows(USES):
        look.findings.looked_at(1)
        taken[scope].update((tenant_id, at) for at in used)
        if used and last_at < max(used):
            what = f"a budget was last used at {last_at}, and at {max(used)}"
            _note(look, f"{tenant_id} {scope} {subject}", what, tenant_id)
    for scope, found in taken.items():
        for (tenant_id, at), number in (found - made[scope]).items():
            if _is_known(look, tenant_id, at):
                what = f"{number} were taken from somebody's budget and not sent"
                _note(look, f"{tenant_id} {scope} {at}", what, tenant_id)
    for scope, wanted in owed.items():
        for (tenant_id, at), number in (wanted - taken[scope]).items():
            what = f"{number} were sent and taken from nobody's budget"
            _note(look, f"{tenant_id} {scope} {at}", what, tenant_id)


def _is_known(look: Look, tenant_id: UUID, at: datetime) -> bool:
    """Whether a message of this instant is still kept. The time of a sandbox is its own, and says nothing of how old a row is."""
    tenant = look.tenants.get(tenant_id)
    if tenant is None or not tenant.sandbox:
        return at > look.now - KEPT
    return tenant.created_at is not None and tenant.created_at > look.retained_from


def _note(look: Look, name: str, what: str, tenant_id: UUID) -> None:
    look.findings.add("I6", f"budget {name}", what, tenant_id=tenant_id, may_pass=True)
