"""The audit: looks until nothing is under way any more, or has been for longer than it may be."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from types import ModuleType
from typing import Final

import asyncpg

from services.audit import (
    accepted,
    answers,
    assigned,
    books,
    budgets,
    cases,
    copies,
    facts,
    fences,
    figures,
    keys,
    notices,
    reference,
    seals,
    tenants,
    times,
    transport,
    vault,
)
from services.audit.findings import Finding, Findings, Looked, Verdict, verdict
from services.audit.look import Look, open_look
from services.audit.sources import Evidence

PATIENCE_SECONDS: Final = 30.0
"""What is under way may be so long under way; then it counts."""

LOOK_SECONDS: Final = 0.5
MOST_EXAMPLES: Final = 5

Key = tuple[str, str]  # check, subject


async def audit(evidence: Evidence, *, patience: float = PATIENCE_SECONDS, of_now: bool = False) -> Verdict:
    """Compare everything, and return what does not agree.

    What may pass is looked at again, and only that, until it has passed or stayed for too long. Then everything is compared
    once more, with what has come of it meanwhile; what this look finds under way is waited for likewise. Whatever a look finds that does
    not pass is judged by a whole look.

    Args:
        patience: seconds that what is under way is given; a finding that goes away within them was none.
        of_now: judge what there is at the first look, and not what comes under way later: for a system that goes on working,
            of which no look finds everything at rest. The first whole look is then the last, if all that it waited for passes.
    """
    waiting = _Waiting(patience)
    of_first: set[Finding] | None = None
    is_last = of_now
    while True:
        began = time.monotonic()
        found = await look_once(evidence)
        every = found.all()
        if of_now:
            of_first = set(every) if of_first is None else of_first & set(every)
            every = [each for each in every if not each.may_pass or each in of_first]
        waiting.take(every, began)
        waiting.note(found)
        if not waiting.open:
            return verdict(every, found.compared, waiting.looks)
        may_be_well = all(each.may_pass for each in every)
        is_new = await _wait(evidence, waiting, of_first)
        if is_last and may_be_well and not is_new and not waiting.since:
            return verdict([], found.compared, waiting.looks)
        is_last = True


async def _wait(evidence: Evidence, waiting: _Waiting, of_first: set[Finding] | None) -> bool:
    """Look again at what is waited for, and only that, until nothing is. Returns whether what cannot pass came to light meanwhile."""
    while waiting.open:
        # Half as long as the last look took, so that a third of the time is left to those who are waited for.
        await asyncio.sleep(min(max(LOOK_SECONDS, waiting.looks[-1].seconds / 2), waiting.patience))
        began = time.monotonic()
        found = await look_once(evidence, waiting.stages)
        every = [each for each in found.all() if key_of(each) in waiting.since]
        if of_first is not None:  # a figure that is another one by now is not what was waited for
            of_first &= set(every)
            every = [each for each in every if each in of_first]
        waiting.take(every, began)
        waiting.note(found)
        if not all(each.may_pass for each in found.all()):
            return True
    return False


def key_of(finding: Finding) -> Key:
    return finding.check, finding.subject


class _Waiting:
    """What may pass, since when each has been seen, and how the looks went.

    open: what has not been seen for long enough yet.
    stages: the parts of a look that find what is in `since`.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.since: dict[Key, float] = {}
        self.open: list[Finding] = []
        self.stages: frozenset[str] = frozenset()
        self.looks: list[Looked] = []

    def take(self, found: Iterable[Finding], began: float) -> None:
        """Take in what a look that began then has found."""
        every = {key_of(each): each for each in found if each.may_pass}
        # From look to look: one look at much data may itself take longer than the patience.
        self.since = {key: self.since.get(key, began) for key in every}
        self.open = [each for key, each in every.items() if began - self.since[key] < self.patience]

    def note(self, found: Findings) -> None:
        """Write down a look, and which parts of it are to be made again."""
        self.stages = frozenset(found.stage_of[key] for key in self.since)
        self.looks.append(
            Looked(
                seconds=round(sum(found.seconds.values()), 2),
                stages=found.seconds,
                awaits=dict(Counter(each.check for each in self.open)),
                examples=[f"{each.check} {each.subject}: {each.what}" for each in self.open[:MOST_EXAMPLES]],
            )
        )


async def look_once(evidence: Evidence, only: Set[str] | None = None) -> Findings:
    """Return what one look finds, things under way among it.

    Args:
        only: the parts to be made; all of them unless given. Without the others, more may be found than is so.
    """
    with undisturbed():
        connection, look = await open_look(evidence, with_streams=only is None or bool(only & OF_STREAMS))
        try:
            await check(look, only)
        finally:
            await connection.close()
    return look.findings


async def check(look: Look, only: Set[str] | None = None) -> None:
    """Make every comparison, or some. Whose it is, is settled first.

    What is so spoilt that a comparison fails is a finding itself; the others are made all the same.
    """
    for module, broken in COMPARISONS:
        name = name_of(module)
        if only is not None and name not in only:
            continue
        try:
            with look.findings.part(name):
                async with look.connection.transaction():
                    await module.check(look)
        except asyncpg.PostgresConnectionError:
            raise
        except (asyncpg.PostgresError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as failure:
            look.findings.add(broken, f"{name}: {type(failure).__name__}", f"cannot be compared: {failure}")


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python from looking for garbage meanwhile: everything that a look reads is kept to its end, and going through it again and
    again takes as long as the look."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


# (comparison, the promise that cannot be shown to be kept when it fails)
COMPARISONS: Final = (
    (tenants, "I14"),
    (fences, "I14"),
    (keys, "I9"),
    (accepted, "I1"),
    (vault, "I1"),
    (seals, "I1"),
    (cases, "I13"),
    (assigned, "I3"),
    (copies, "I13"),
    (reference, "I9"),
    (notices, "I5"),
    (figures, "I8"),
    (facts, "I8"),
    (transport, "I9"),
    (books, "I9"),
    (answers, "I10"),
    (budgets, "I6"),
    (times, "I13"),
)
OF_STREAMS: Final = frozenset({"tenants", "transport"})
"""The parts that ask what lies in NATS."""
