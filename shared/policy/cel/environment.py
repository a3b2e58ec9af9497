"""What an expression may refer to: declared names, functions, limits and the currency of its amounts."""

import keyword
from collections.abc import Mapping, Sequence
from typing import Any

from shared.policy.cel.functions import Function, Functions, joined, standard_functions
from shared.policy.cel.limits import DEFAULT_LIMITS, Limits
from shared.policy.cel.types import Type
from shared.policy.cel.values import converters


class Environment:
    """Declared names and what they hold; build one per kind of rule and keep it, for building it costs.

    Args:
        variables: top-level names; at evaluation each is an attribute of the scope.
        functions: the embedder's own, beside the standard ones; a name is either new or hides nothing.
        limits: bounds of every expression.
        currency: ISO 4217 code of every amount.
        optional: top-level names that may be null.
    """

    def __init__(
        self,
        variables: Mapping[str, Type],
        functions: Functions | None = None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        currency: str = "CNY",
        optional: frozenset[str] = frozenset(),
    ) -> None:
        standard = standard_functions(currency)
        own = {
            name: (found,) if isinstance(found, Function) else tuple(found) for name, found in (functions or {}).items()
        }
        for name in (*variables, *own):
            if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name) or name.startswith("_"):
                raise ValueError(f"{name!r} cannot be a name in a condition")
        if taken := sorted(standard.keys() & own.keys()):
            raise ValueError(f"standard functions cannot be replaced: {', '.join(taken)}")
        self.variables = dict(variables)
        self.functions: Mapping[str, Sequence[Function]] = {**standard, **own}
        self.limits = limits
        self.currency = currency
        self.optional = optional
        self.converter_of = converters(currency, limits)
        self.joined: Mapping[tuple[str, str, str], Any] = joined(limits)
