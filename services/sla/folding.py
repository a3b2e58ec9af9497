"""Cases folded and what is new about them stored, in whatever transaction holds them: that which takes a line, or the loop's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from services.sla import repository
from services.sla.repository import Key, Line, Noted, Rest, Watched
from services.sla.settings import SlaSettings
from services.sla.telling import Batch
from shared import fail_points, outbox
from shared.database import Tx
from shared.engine.calendar import CalendarBook
from shared.engine.case import Case, replay
from shared.engine.rules import CompiledPolicy
from shared.errors import NotYetError
from shared.messages import LIVE, EntryAppended
from shared.reference import Reference
from shared.service import Runtime

TICKS = "ticks"
"""The part of the runtime that holds the last tick of each time."""

WAKE_UPS = "wake-ups"
"""The loop that folds what is due."""

SOON = datetime(1900, 1, 1, tzinfo=UTC)
"""The wake-up of a case about which something was told: at once, whatever the time.

PostgreSQL's -infinity would not come through the driver."""

BREATH = 10
"""Cases folded in a row, before whatever else this process does has its turn."""

CASES_AT_ONCE = 50
LINES_AT_ONCE = 1_000
"""Folded in a transaction that takes lines: others wait for their inbox and for the cases that it has locked."""


class Folding:
    """Applies timelines of one tenant; what they need is asked for once."""

    def __init__(self, reference: Reference, tenant_id: UUID, calendars: CalendarBook | None = None) -> None:
        self._reference = reference
        self._tenant_id = tenant_id
        self._policies: dict[frozenset[int], Mapping[int, CompiledPolicy]] = {}  # by the versions that a timeline names
        self._calendars = calendars

    async def fold(self, case: Watched) -> Case:
        """The case with its timeline applied. NotYetError while a policy version it names has not arrived."""
        versions = _versions(case)
        policies = self._policies.get(versions)
        if policies is None:
            policies = {version: await self._reference.policy(self._tenant_id, version) for version in versions}
            self._policies[versions] = policies
        if self._calendars is None:
            self._calendars = await self._reference.calendars(self._tenant_id)
        return _apply(case, policies, self._calendars)

    def fold_at_once(self, case: Watched) -> Case | None:
        """The same without waiting for anything; None where a policy version is not at hand."""
        versions = _versions(case)
        policies = self._policies.get(versions)
        if policies is None:
            policies = {}
            for version in versions:
                policy = self._reference.policy_at_hand(self._tenant_id, version)
                if policy is None:
                    return None
                policies[version] = policy
            self._policies[versions] = policies
        return None if self._calendars is None else _apply(case, policies, self._calendars)


def _apply(case: Watched, policies: Mapping[int, CompiledPolicy], calendars: CalendarBook) -> Case:
    folded = replay(policies, case.timeline, calendars, policy_version=case.policy_version, case_kind=case.case_kind)
    if case.case_kind == "duty":
        start = case.timeline[0].at
        folded.begin_duties(start, start + timedelta(days=366))
    return folded


def _versions(case: Watched) -> frozenset[int]:
    """The version of the policy under which the case began, and those that it went over to."""
    later = [
        int(entry.data["version"])
        for entry in case.timeline
        if entry.kind == "policy_changed" and "version" in entry.data
    ]
    return frozenset([case.policy_version, *later])


async def store(tx: Tx, batches: Sequence[Batch]) -> None:
    """Write what is new about cases that the transaction has locked, and when each is looked at next."""
    for batch in batches:
        batch.took_back(await repository.withdraw(tx, batch.tenant_id, batch.withdrawn))
        await repository.post(tx, batch.tenant_id, batch.rows)
        await outbox.add_many(tx, batch.messages)
    fail_points.reach("sla.folded")
    await repository.keep(
        tx,
        [rest for batch in batches for rest in batch.rests],
        [row for batch in batches for row in batch.announced],
    )
    fail_points.reach("sla.told")


class AtOnce:
    """Takes lines down, and folds their cases in the same transaction as far as nothing has to be waited for. The loop does the rest."""

    def __init__(self, runtime: Runtime[SlaSettings]) -> None:
        self._runtime = runtime
        self._late = timedelta(seconds=runtime.settings.late_seconds)

    def take_down(self, message: EntryAppended, tx: Tx) -> None:
        tx.at_the_end(self._store, for_all=True).append(
            Line(
                message.tenant_id,
                message.case_id,
                message.entry.seq,
                message.case_kind,
                message.policy_version,
                message.number,
                message.silent,
                message.entry,
            )
        )

    async def _store(self, tx: Tx, lines: Sequence[Line]) -> None:
        """Keep the lines, and have the loop look at their cases."""
        await repository.add_entries(tx, lines)
        fail_points.reach("sla.entered")
        tx.after_commit(self._wake)

    async def close(self, tx: Tx) -> None:
        """Keep the lines that were taken down, and fold their cases now, unless something is in the way of that."""
        lines: list[Line] = tx.take_back(self._store)
        if not lines:
            return
        noted = await repository.add_entries(tx, lines)
        fail_points.reach("sla.entered")
        batches = await self._fold(tx, await _readable(tx, noted, lines))
        rests = [rest for batch in batches for rest in batch.rests]
        if rests:
            await store(tx, batches)
        tx.after_commit(self._wake if len(rests) < len(noted) else lambda: self._catch_up(rests))

    async def _fold(self, tx: Tx, cases: Mapping[UUID, tuple[datetime, Sequence[Watched]]]) -> list[Batch]:
        """What is new about these cases, in batches of a tenant each; what cannot be folded now is left out.

        That one case cannot be folded is for the loop to tell.
        """
        batches = []
        place = 0
        for tenant_id, (now, of_tenant) in cases.items():
            try:
                calendars = await self._runtime.reference.calendars(tenant_id, tx)
            except NotYetError:
                continue
            folding = Folding(self._runtime.reference, tenant_id, calendars)
            batch = Batch(tenant_id, now, self._late)
            for case in of_tenant:
                place += 1
                with contextlib.suppress(Exception):  # whatever it is: nothing but values has been touched
                    folded = folding.fold_at_once(case)
                    if folded is not None:
                        batch.take(case, folded)
                if place % BREATH == 0:
                    await asyncio.sleep(0)
            batches.append(batch)
        return batches

    def _wake(self) -> None:
        self._runtime.wake(WAKE_UPS)

    def _catch_up(self, rests: Sequence[Rest]) -> None:
        """Wake the loop where it has seen a tick meanwhile by which one of these cases is due, and could not see the case."""
        ticks: dict[UUID, datetime] = self._runtime.parts.get(TICKS, {})
        live = ticks.get(LIVE, SOON)
        if any(each.wake_at is not None and each.wake_at <= ticks.get(each.tenant_id, live) for each in rests):
            self._wake()


async def _readable(
    tx: Tx, noted: Sequence[Noted], lines: Sequence[Line]
) -> dict[UUID, tuple[datetime, list[Watched]]]:
    """What is known of the cases that can be folded at once, by tenant, with the tenant's time.

    Those whose time is unknown, that have failed before, that wait for another line or that are too many or too long are left out.
    """
    told: dict[Key, dict[int, Line]] = {}
    for line in lines:
        told.setdefault((line.tenant_id, line.case_id), {})[line.seq] = line
    chosen: list[Noted] = []
    length = 0
    for each in noted:
        lines_of_case = max(each.folded_seq, *told[each.key])
        if each.now is None or each.failures or length + lines_of_case > LINES_AT_ONCE:
            continue
        length += lines_of_case
        chosen.append(each)
        if len(chosen) == CASES_AT_ONCE:
            break
    known = await repository.known_of(tx, [each.key for each in chosen if not each.is_new])
    found: dict[UUID, tuple[datetime, list[Watched]]] = {}
    for each in chosen:
        mine = told[each.key]
        if each.is_new:
            ordered = [mine[seq].entry for seq in sorted(mine)]
            more: Any = repository.without_gap(ordered), {}, {}
        else:
            more = known[each.key]
        if each.now is not None and len(more[0]) >= max(mine):
            found.setdefault(each.tenant_id, (each.now, []))[1].append(Watched(*each.columns, *more))
    return found
