"""What happened, in the one form that message rules and webhooks look at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from shared.engine.model import SYSTEM, Actor, EffectView, Entry, PenaltyView
from shared.money import format_minor


class Moment(Struct, frozen=True, kw_only=True):
    """An entry, an effect or a posting.

    Args:
        triggers: the names under which rules refer to it, the most general first.
        data: what its conditions see as `data`.
        words: what its templates may say besides the case itself: what, clause, amount, party.
        rule: of an effect or a penalty, the rule that had it: a clock's or an action's id.
        source: the key of the effect or penalty, by which a withdrawal finds what it withdraws; empty for an entry.
    """

    triggers: tuple[str, ...]
    at: datetime
    by: Actor
    data: Mapping[str, Any]
    words: Mapping[str, str] = {}
    rule: str | None = None
    source: str = ""


def of_entry(entry: Entry) -> Moment:
    step = entry.data.get("step")
    triggers = (entry.kind,) if step is None else (entry.kind, f"{entry.kind}:{step}")
    return Moment(triggers=triggers, at=entry.at, by=entry.by, data=entry.data)


def of_effect(effect: EffectView, *, withdrawn: bool = False) -> Moment:
    """Triggers are `effect:KIND` and `effect:KIND:WHAT`; of a withdrawal `effect:withdrawn` alone."""
    triggers = [f"effect:{effect.kind}"]
    if effect.what is not None:
        triggers.append(f"effect:{effect.kind}:{effect.what}")
    data = {**effect.data, "to": effect.to, "what": effect.what}
    return Moment(
        triggers=("effect:withdrawn",) if withdrawn else tuple(triggers),
        at=effect.at,
        by=SYSTEM,
        data={key: value for key, value in data.items() if value is not None},
        words=_known(what=effect.what, clause=_clauses(effect.clause)),
        rule=effect.rule,
        source=effect.key,
    )


def of_penalty(penalty: PenaltyView, at: datetime) -> Moment:
    """Triggers are `effect:penalty` and `penalty:RULE`."""
    amount = None
    if penalty.amount_minor is not None:
        amount = f"{format_minor(penalty.amount_minor, penalty.currency)} {penalty.currency}"
    return Moment(
        triggers=("effect:penalty", f"penalty:{penalty.rule}"),
        at=at,
        by=SYSTEM,
        data={**penalty.data, "party": penalty.party, "kind": penalty.kind},
        words=_known(amount=amount, party=penalty.party, clause=_clauses(penalty.clause), what=penalty.sanction),
        rule=penalty.rule,
        source=penalty.key,
    )


def _clauses(clause: str | list[str] | None) -> str | None:
    return ", ".join(clause) if isinstance(clause, list) else clause


def _known(**words: str | None) -> dict[str, str]:
    return {name: word for name, word in words.items() if word is not None}
