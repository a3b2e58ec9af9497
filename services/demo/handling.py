"""Staff at work: each act over the API, with the key of whoever does it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from services.demo.client import Api, RefusedError
from services.demo.journal import Journal
from services.demo.organisations import Act, Day, Organisation

AT_ONCE = 4  # cases that are worked on at the same time


class Staff:
    """Does what the plans say, day by day."""

    def __init__(self, organisation: Organisation, keys: dict[str, Api], admin: Api, journal: Journal) -> None:
        """`keys`: by staff id."""
        self._journal = journal
        self._organisation = organisation
        self._keys = keys
        self._admin = admin
        self._plans: dict[UUID, str] = {}

    async def look_through(self) -> None:
        """Find every complaint that is waiting and decide what becomes of it. Mail and tables tell no ids, the work list does."""
        journal = self._journal
        known = {receipt.complaint_id: receipt.plan for receipt in journal.receipts if receipt.complaint_id is not None}
        lines = await self._work_list(len(journal.receipts))
        rest = {"smtp": iter(self._organisation.mail_plans * 10), "csv": iter(self._organisation.table_plans * 10)}
        for case_id in sorted(lines):  # ids are in the order of receipt
            plan = known.get(case_id)
            if plan is None:
                source = (await self._admin.get(f"/v1/cases/{case_id}"))["source"]
                plan = next(rest["smtp" if source == "email" else "csv"])
            self._plans[case_id] = plan

    async def work(self, day: Day) -> int:
        """Do the acts of one day and return how many there were."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(case_id: UUID, acts: list[tuple[int, Act]]) -> int:
            async with limit:
                for place, act in acts:
                    await self._do(case_id, place, act)
                return len(acts)

        todo = [
            (case_id, [(place, act) for place, act in enumerate(self._organisation.plans[plan]) if act.on == day])
            for case_id, plan in self._plans.items()
        ]
        return sum(await asyncio.gather(*(one(case_id, acts) for case_id, acts in todo if acts)))

    async def _do(self, case_id: UUID, place: int, act: Act) -> None:
        api = self._keys[act.by]
        data: dict[str, Any] = dict(act.data)
        if act.text is not None:
            kind = "reply" if act.kind == "replied" else "finding"
            stored = await api.post(
                f"/v1/cases/{case_id}/texts", {"text": act.text, "kind": kind}, key=f"demo-text-{case_id}-{place}"
            )
            data["text_id"] = stored["text_id"]
        key = f"demo-entry-{case_id}-{place}"
        body = {"kind": act.kind, "data": data}
        await api.post(f"/v1/cases/{case_id}/entries", body, key=key, witness=self._journal.witness("entry", key))

    async def _work_list(self, expected: int) -> list[UUID]:
        """Return the ids of all complaints once routing has as many as were stored."""
        lines: list[dict[str, Any]] = []
        for _ in range(400):
            lines = (await self._admin.get("/v1/cases", limit=200, closed="true"))["items"]
            if len(lines) >= expected:
                return [UUID(line["case_id"]) for line in lines]
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{self._organisation.slug}: {len(lines)} of {expected} complaints were routed")


async def advance(admin: Api, to: str | None = None, *, by: str | None = None) -> int:
    """Move the sandbox's clock to an instant, or by an amount, and return how many due instants were gone through."""
    wanted = {"to": to} if to is not None else {"by": by}
    key = f"demo-clock-{to}" if to is not None else None
    operation = await admin.post("/v1/sandbox/clock:advance", wanted, key=key)
    path = f"/v1/sandbox/clock/operations/{operation['operation_id']}"
    found = operation
    for _ in range(10):
        found = await admin.get(path, wait=20)
        if found["state"] == "done":
            return int(found["steps"])
    raise TimeoutError(f"the clock has not come to {to or by}; waiting for {found['waiting_for']}")


__all__ = ["RefusedError", "Staff", "advance"]
