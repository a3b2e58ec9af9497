"""I9: reference data. What its owner keeps is what was told of it, nothing is missing and nothing was never told, and every other service
keeps the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, Final
from uuid import UUID

from services.audit.copies import Kept, Said, compare, instant
from services.audit.look import LIVE, Look
from services.audit.streams import SERVICES
from services.audit.tenants import as_uuid
from services.audit.told import Told

# Who owns it, what identifies a row, what is copied. Every other service keeps the same rows.
COPIED: Final = (
    ("tenant", "intake.tenant", "tenant_id", "to_jsonb(t)"),
    ("credential", "intake.credential", "credential_id", "to_jsonb(t)"),
    ("policy", "intake.policy", "version", "to_jsonb(t)"),
    ("calendar", "intake.calendar", "name || ' ' || revision", "to_jsonb(t)"),
    ("test_clock", "routing.test_clock", "tenant_id", "to_jsonb(t)"),
    ("staff", "routing.staff_member", "staff_id", "jsonb_build_array(revision, roles, unit, active, deputy)"),
)

DIFFERING: Final = """
SELECT coalesce(o.tenant_id, c.tenant_id) AS tenant_id, coalesce(o.key, c.key) AS key
  FROM (SELECT tenant_id, ({key})::text AS key, {content} AS content FROM {owner} t) AS o
  FULL JOIN (SELECT tenant_id, ({key})::text AS key, {content} AS content FROM {copy} t) AS c
    ON c.tenant_id = o.tenant_id AND c.key = o.key
 WHERE o.content IS DISTINCT FROM c.content"""

KEYS: Final = "SELECT tenant_id, {key} AS key FROM {table}"

# Tenants of which everything that was ever told is still kept.
WHOLE: Final = """
SELECT tenant_id
  FROM intake.tenant
 WHERE created_at > $1"""


async def check(look: Look) -> None:
    await _copies(look)
    await compare(look, KEPT)
    await _untold(look)


async def _copies(look: Look) -> None:
    for table, owner, key, content in COPIED:
        for service in SERVICES:
            if owner.startswith(f"{service}."):
                continue
            copy = f"{service}.{table}"
            look.findings.looked_at(1)
            for row in await look.rows(DIFFERING.format(owner=owner, copy=copy, key=key, content=content)):
                if as_uuid(row["key"]) not in look.misplaced and (
                    row["tenant_id"] in look.tenants or row["tenant_id"] == LIVE
                ):
                    look.findings.add(
                        "I9",
                        f"{copy} {row['tenant_id']} {row['key']}",
                        f"differs from {owner}",
                        tenant_id=row["tenant_id"],
                        may_pass=True,
                    )


async def _untold(look: Look) -> None:
    """What was told is kept: nothing of this is ever deleted. Of a tenant that is younger than the outboxes, all that is kept was told."""
    whole = {row["tenant_id"] for row in await look.rows(WHOLE, look.retained_from)}
    for table, key, of in TOLD:
        told = set(of(look.told))
        kept = {(row["tenant_id"], row["key"]) for row in await look.rows(KEYS.format(table=table, key=key))}
        look.findings.looked_at(len(told))
        for tenant_id, name in told - kept:
            if tenant_id in look.tenants or table == "intake.tenant":
                _note(look, table, tenant_id, name, "was told and is not kept")
        for tenant_id, name in kept - told:
            if tenant_id in whole:
                _note(look, table, tenant_id, name, "is kept and was never told")


def _note(look: Look, table: str, tenant_id: UUID, name: str, what: str) -> None:
    if not {tenant_id, as_uuid(name)} & look.misplaced:
        look.findings.add("I9", f"{table} {tenant_id} {name}", what, tenant_id=tenant_id)


# Each yields what the told messages name, as the rows are named.
TOLD: Final[tuple[tuple[str, str, Callable[[Told], Iterable[tuple[UUID, str]]]], ...]] = (
    ("intake.tenant", "tenant_id::text", lambda told: ((each, str(each)) for each in told.tenants)),
    ("intake.credential", "credential_id::text", lambda told: told.credentials),
    ("intake.policy", "version::text", lambda told: ((tenant, str(version)) for tenant, version in told.policies)),
    (
        "intake.calendar",
        "name || ' ' || revision",
        lambda told: ((tenant, f"{name} {revision}") for tenant, name, revision in told.calendars),
    ),
    ("routing.staff_member", "staff_id", lambda told: told.staff),
)


def _tenant(look: Look, row: Any) -> Said | None:
    return _all_but(look.told.tenants.get(row["tenant_id"]))


def _credential(look: Look, row: Any) -> Said | None:
    return _all_but(look.told.credentials.get((row["tenant_id"], str(row["credential_id"]))), "credential_id")


def _policy(look: Look, row: Any) -> Said | None:
    said = look.told.policies.get((row["tenant_id"], row["version"]))
    return None if said is None else {**(_all_but(said) or {}), "published_at": said["at"]}


def _calendar(look: Look, row: Any) -> Said | None:
    said = look.told.calendars.get((row["tenant_id"], row["name"], row["revision"]))
    if said is None:
        return None
    through = said.get("announced_through")
    return {
        **(_all_but(said) or {}),
        "announced_through": None if through is None else date.fromisoformat(through),
        "published_at": said["at"],
    }


def _all_but(said: Said | None, *without: str) -> Said | None:
    """What a message says beside its envelope: each in the column of this name."""
    if said is None:
        return None
    return {
        name: value
        for name, value in said.items()
        if name not in ("message_id", "tenant_id", "at", "traceparent", *without)
    }


def _staff(look: Look, row: Any) -> Said | None:
    said = look.told.staff.get((row["tenant_id"], row["staff_id"]))
    if said is None:
        return {"revision": None} if row["changed_at"] > look.retained_from else None
    same = {name: said["staff"][name] for name in ("roles", "unit", "active", "deputy")}
    away = [each for each in row["absences"] if _covers(each, said["at"])] if said["staff"]["active"] else []
    is_away = said["staff"]["absent_until"] is not None
    return {"revision": said["revision"], **same, "absences": row["absences"] if bool(away) == is_away else None}


def _covers(absence: Any, at: str) -> bool:
    """Whether somebody is away at this instant."""
    start, end, now = (instant(each) for each in (absence["start"], absence.get("end"), at))
    return start is not None and now is not None and start <= now and (end is None or now < end)


def _copied_staff(look: Look, row: Any) -> Said | None:
    said = look.told.staff.get((row["tenant_id"], row["staff_id"]))
    if said is None:
        return None
    same = {name: said["staff"][name] for name in ("roles", "unit", "active", "deputy", "absent_until")}
    return {"revision": said["revision"], **same}


KEPT: Final = (
    Kept(check="I9", table="intake.tenant", name=("tenant_id",), said=_tenant),
    Kept(check="I9", table="intake.credential", name=("credential_id",), said=_credential),
    Kept(check="I9", table="intake.policy", name=("tenant_id", "version"), said=_policy),
    Kept(check="I9", table="intake.calendar", name=("tenant_id", "name", "revision"), said=_calendar),
    Kept(check="I9", table="routing.staff_member", name=("tenant_id", "staff_id"), said=_staff),
    *(
        Kept(check="I9", table=f"{service}.staff", name=("tenant_id", "staff_id"), said=_copied_staff, may_pass=True)
        for service in ("intake", "sla", "notify", "reporting")
    ),
)
