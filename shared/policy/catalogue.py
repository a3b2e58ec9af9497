"""The catalogue of written regimes: every clause that a policy may name, summarised in English and Chinese.

`catalogue.yaml` beside this module is part of the package. Coverage is counted against it, the linter checks a rule's
`clause` with it, and explanations quote its summaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

Language = Literal["en", "zh"]


class Summary(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One line of text, in both languages."""

    en: str
    zh: str

    def text(self, lang: Language = "en") -> str:
        """Return the line in `lang`."""
        return self.zh if lang == "zh" else self.en


class Regime(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One organisation's written regime: its clauses by id (`R04.7`), in the order of the text."""

    title: Summary
    organisation: str  # kind of organisation, snake_case; several regimes may share one
    clauses: Mapping[str, Summary]


class Catalogue(Struct, frozen=True):
    """All regimes by id (`R04`), in order, and all their clauses by id; both mappings are read-only."""

    regimes: Mapping[str, Regime]
    clauses: Mapping[str, Summary]


@cache
def load() -> Catalogue:
    """Return the catalogue, read from the package once.

    Raises:
        msgspec.ValidationError: the shipped file does not have this module's shape.
    """
    document = resources.files("shared.policy").joinpath("catalogue.yaml").read_bytes()
    decoded = msgspec.yaml.decode(document, type=dict[str, Regime])
    regimes = {
        regime_id: msgspec.structs.replace(regime, clauses=MappingProxyType(dict(regime.clauses)))
        for regime_id, regime in decoded.items()
    }
    clauses = {clause_id: line for regime in regimes.values() for clause_id, line in regime.clauses.items()}
    return Catalogue(regimes=MappingProxyType(regimes), clauses=MappingProxyType(clauses))


def regimes() -> Mapping[str, Regime]:
    """Return every regime by its id, R01 first."""
    return load().regimes


@cache
def clause_ids() -> tuple[str, ...]:
    """Return the ids of all clauses, in the order of the regimes and of their texts."""
    return tuple(load().clauses)


def summary(clause: str, lang: Language = "en") -> str:
    """Return the one-line summary of a clause.

    Raises:
        KeyError: the catalogue has no such clause.
    """
    return load().clauses[clause].text(lang)
