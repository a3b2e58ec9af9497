"""The bounds that keep every evaluation short, whatever is written and whatever data it meets."""

from typing import Final

from msgspec import Struct


class Limits(Struct, frozen=True):
    """What an expression may be at most; checked before evaluation, except where noted."""

    length: int = 2_000  # characters
    nesting: int = 30  # brackets, signs and branches within one another
    depth: int = 60  # levels of the syntax tree; each + in a chain is one, && and || are not
    macros: int = 4
    nested_macros: int = 2
    list_items: int = 200  # in a literal; also of every list and map met while evaluating
    string_length: int = 10_000  # characters a text function takes or returns; met while evaluating
    cost: int = 600_000  # steps of the worst case, a list taken to have `list_items` items
    steps: int = 50_000  # nodes the evaluator visits, when it has to see what an error amounts to; each about 1 us


DEFAULT_LIMITS: Final = Limits()

# CEL's integers are 64 bits wide; minor units of money and results of arithmetic stay within them.
LEAST_INT: Final = -(2**63)
GREATEST_INT: Final = 2**63 - 1
