"""The complaint that a rule of the policy creates: from the effect's data to a draft."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from services.intake.domain.complaint import Complainant, Draft, Handler, Respondent
from services.intake.domain.vocabulary import channels
from shared.engine.model import EffectView
from shared.policy.schema import Policy

_SYSTEM_CHANNEL = "system"


def created_draft(effect: EffectView, policy: Policy, origin: UUID) -> Draft:
    """Return the draft of the complaint that `effect` creates out of the case `origin`.

    The effect's data name what is known of it: kind, category, severity, channel, respondent (a name, or staff, unit,
    supervisor), own fields by their names; `what` is its category, or its kind, where the vocabulary has it as such.
    """
    data = dict(effect.data)
    words = policy.vocabulary
    stated: dict[str, Any] = {key: data.get(key) for key in ("kind", "category", "severity")}
    what = effect.what
    if what is not None:
        if stated["kind"] is None and what in words.kinds:
            stated["kind"] = what
        elif stated["category"] is None and what in words.categories:
            stated["category"] = what
    known = channels(policy)
    channel = data.get("channel")
    if channel is None:
        channel = _SYSTEM_CHANNEL if _SYSTEM_CHANNEL in known else next(iter(known), None)
    respondent = data.get("respondent")
    party = (
        {key: respondent.get(key) for key in ("staff", "unit", "supervisor")} if isinstance(respondent, dict) else {}
    )
    if isinstance(respondent, str):
        party = {"unit" if respondent in policy.organisation.units else "staff": respondent}
    elif not party and effect.to is not None:
        party = {"unit" if effect.to in policy.organisation.units else "staff": effect.to}
    complainant = data.get("complainant")
    return Draft(
        channel=_text(channel),
        kind=_text(stated["kind"]),
        category=_text(stated["category"]),
        severity=_text(stated["severity"]),
        complainant=Complainant(
            type=_text(complainant.get("type")) if isinstance(complainant, dict) else _text(complainant)
        ),
        respondent=Respondent(**{key: _text(value) for key, value in party.items()}),
        handler=Handler(),
        fields={name: value for name, value in data.items() if name in words.fields},
        reference=f"case:{origin}",
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
