"""Which rules carry which clause, per regime, and which clauses nothing carries."""

from __future__ import annotations

from msgspec import Struct

from shared.policy import catalogue
from shared.policy.compiling import compile_policy
from shared.policy.template_files import document_of, names


class Coverage(Struct, frozen=True, kw_only=True):
    """`regimes` maps each regime's clauses to the rules that carry them, in the order of the catalogue."""

    total: int
    missing: list[str]
    regimes: dict[str, dict[str, list[str]]]


def coverage() -> Coverage:
    """The coverage of all templates that ship. Raises PolicyError for a template that cannot be compiled."""
    regimes: dict[str, dict[str, list[str]]] = {}
    missing = []
    for regime in catalogue.regimes():
        rules = compile_policy(document_of(regime)).clause_rules if regime in names() else {}
        clauses = [clause for clause in catalogue.clause_ids() if clause.startswith(f"{regime}.")]
        regimes[regime] = {clause: list(rules.get(clause, ())) for clause in clauses}
        missing += [clause for clause in clauses if not rules.get(clause)]
    return Coverage(total=len(catalogue.clause_ids()), missing=missing, regimes=regimes)
