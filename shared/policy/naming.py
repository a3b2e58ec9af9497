"""Names that a document uses and never declares, beyond those that rules are compiled from; each with the near-miss."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from shared.engine.model import ENTRY_KINDS
from shared.engine.rules import CLASS_PARTS
from shared.policy import schema
from shared.policy.cel import near_miss
from shared.policy.documents import escape
from shared.policy.problems import PolicyProblem
from shared.policy.scope import FIELD_TYPES

COMMON_NAMES: Final = frozenset(
    {"complainant", "respondent", "respondent_supervisor", "handler", "handler_head", "regulator", "public", "system"}
)
"""Whom every policy can name."""

_MATCHED: Final = (*CLASS_PARTS, "channel", "respondent")


def undeclared(policy: schema.Policy, names: Collection[str], states: Collection[str]) -> Iterator[PolicyProblem]:
    """Yield every name that stands for nothing, in the order of the document.

    Args:
        policy: the document.
        names: units, roles and groups.
        states: all that a complaint may be in.
    """
    words, organisation = policy.vocabulary, policy.organisation
    for key, kind in words.data.items():
        yield from _unless(kind, FIELD_TYPES, f"/vocabulary/data/{escape(key)}", "type")
    for name, unit in organisation.units.items():
        if isinstance(unit, schema.Unit):
            path = f"/organisation/units/{escape(name)}"
            yield from _unless(unit.head, names, f"{path}/head", "role")
            yield from _unless(unit.parent, organisation.units, f"{path}/parent", "unit")
            yield from _own_ancestor(name, organisation.units, f"{path}/parent")
    for name, role in organisation.roles.items():
        if isinstance(role, schema.Role):
            path = f"/organisation/roles/{escape(name)}"
            yield from _unless(role.unit, organisation.units, f"{path}/unit", "unit")
            yield from _unless(role.deputy, names, f"{path}/deputy", "role")
    for name, group in organisation.groups.items():
        yield from _unless(group.chair, group.members, f"/organisation/groups/{escape(name)}/chair", "member")
    if policy.intake.duplicates is not None:
        for place, name in enumerate(policy.intake.duplicates.match):
            path = f"/intake/duplicates/match/{place}"
            yield from _unless(name.removeprefix("fields."), (*words.fields, *_MATCHED), path, "field")
    for place, clock in enumerate(policy.clocks):
        yield from _nobody(clock.owner, names, f"/clocks/{place}/owner")
    for place, rule in enumerate(policy.penalties.rules):
        yield from _nobody(rule.party, names, f"/penalties/rules/{place}/party")
    for place, duty in enumerate(policy.duties):
        yield from _nobody(duty.owner, names, f"/duties/{place}/owner")
        for number, name in enumerate(duty.per):
            yield from _unless(name, organisation.units, f"/duties/{place}/per/{number}", "unit")
    shown_at = {*states, *words.steps, *ENTRY_KINDS}
    for place, guidance in enumerate(policy.guidance):
        yield from _unless(guidance.stage, shown_at, f"/guidance/{place}/stage", "state or step")


def _nobody(value: Any, names: Collection[str], path: str) -> Iterator[PolicyProblem]:
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from _nobody(one, names, f"{path}/{place}")
    else:
        yield from _unless(value, (*names, *COMMON_NAMES), path, "unit, role or group")


def _unless(name: Any, known: Iterable[str], path: str, what: str) -> Iterator[PolicyProblem]:
    if isinstance(name, str) and not name.startswith("=") and name not in (known := list(known)):
        told = f"there is no {what} {name}"
        yield PolicyProblem(path=path, message=told, code="unknown-name", suggestion=near_miss(name, known))


def _own_ancestor(name: str, units: dict[str, Any], path: str) -> Iterator[PolicyProblem]:
    passed = {name}
    above = getattr(units[name], "parent", None)
    while isinstance(above, str) and above in units and above not in passed:
        passed.add(above)
        above = getattr(units[above], "parent", None)
    if above == name:
        yield PolicyProblem(path=path, message=f"the unit {name} would belong to itself", code="cycle")


__all__ = ["undeclared"]
