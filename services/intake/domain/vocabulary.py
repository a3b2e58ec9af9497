"""Words that a policy knows, and the nearest of them to a word that it does not."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from services.intake.domain.complaint import Fault
from shared.policy.schema import Policy, Term, Text


def near(word: str, known: Collection[str]) -> str:
    """Return the nearest known word, else a few of the known ones; empty when there are none."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:80], folded, n=1, cutoff=0.6)
    if close:
        return folded[close[0]]
    shown = sorted(known)[:8]
    return f"one of: {', '.join(shown)}" if shown else ""


def labelled(words: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of each word by its name and by its labels in every language, for channels that carry what people
    read.
    """
    names: dict[str, str] = {}
    for name, term in words.items():
        label: Text = getattr(term, "label", "")
        for text in label.values() if isinstance(label, dict) else (label,):
            if text:
                names.setdefault(text, name)
    return names | {name: name for name in words}


def word(
    path: str,
    value: str | None,
    words: Mapping[str, str | Term | Any],
    noun: str,
    faults: list[Fault],
    *,
    by_label: bool,
) -> str | None:
    """Return the policy's name for a word, or None with a fault added when the policy does not know it."""
    if value is None or not value.strip():
        return None
    text = value.strip()
    if text in words:
        return text
    if by_label and (name := labelled(words).get(text)):
        return name
    faults.append(Fault((path,), f"the policy knows no such {noun}", near(text, words)))
    return None


USUAL_CHANNELS = ("phone", "web", "app", "email", "sms", "letter", "visit", "box", "import")


def channels(policy: Policy) -> Mapping[str, Any]:
    """Return the channels of the policy; a policy that lists none takes the usual ones."""
    return policy.intake.channels or dict.fromkeys(USUAL_CHANNELS, "")
