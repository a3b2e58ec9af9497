"""What may be entered now: every kind of entry the policy knows, asked of its gates one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from services.routing.domain.declaring import COMMAND_KINDS
from shared.engine.case import Case
from shared.engine.model import Actor, Entry
from shared.engine.rules import CompiledPolicy


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of entry, with its step where the policy tells steps apart, and why it is refused if it is.

    What depends on the entry's data (an amount, a named person) shows only when it is sent.
    """

    kind: str
    step: str | None
    allowed: bool
    rule: str | None = None
    clause: str | list[str] | None = None
    reason: str | None = None


def candidates(policy: CompiledPolicy) -> list[tuple[str, str | None]]:
    """Return (kind, step) of everything that can be entered: all kinds, then the steps of the policy, then kinds it knows with a step."""
    found: dict[tuple[str, str | None], None] = {(kind, None): None for kind in sorted(COMMAND_KINDS - {"step"})}
    found |= {("step", step): None for step in policy.document.vocabulary.steps}
    for trigger in sorted(policy.on):
        kind, _, step = trigger.partition(":")
        if step and kind in COMMAND_KINDS:
            found.setdefault((kind, step))
    return list(found)


def ask(case: Case, by: Actor, kinds: Iterable[tuple[str, str | None]], probe: Entry) -> Iterator[Candidate]:
    """Yield each kind with the gates' answer. `probe` gives seq and instant; the case is not changed by it."""
    for kind, step in kinds:
        entry = Entry(seq=probe.seq, kind=kind, at=probe.at, by=by, data={} if step is None else {"step": step})
        refusal = case.refusal(entry)
        if refusal is None:
            yield Candidate(kind=kind, step=step, allowed=True)
        else:
            yield Candidate(
                kind=kind, step=step, allowed=False, rule=refusal.rule, clause=refusal.clause, reason=refusal.reason
            )
