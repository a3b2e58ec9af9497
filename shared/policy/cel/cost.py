"""How long an evaluation can take at worst, known before it ever runs."""

from typing import Final

from shared.policy.cel.functions import Function
from shared.policy.cel.limits import Limits
from shared.policy.cel.nodes import Call, Compare, Expression, ListOf, Literal, Macro, children
from shared.policy.cel.types import DYN

_SCAN: Final = 60  # steps to look through a full list, at the speed of Python's own `in`
_CONVERSION: Final = {"money": 3, "instant": 3, "duration": 3, "date": 3}


def worst_case(node: Expression, limits: Limits) -> int:
    """Return the steps (of about 50 ns) of an evaluation in which every list is as long as the limits allow."""
    if node.__class__ is Literal:
        return 0
    below = sum([worst_case(child, limits) for child in children(node)])
    own = 1 + _CONVERSION.get(node.type.kind, 0)
    match node:
        case Macro(target=target, body=body):
            return worst_case(target, limits) + limits.list_items * (worst_case(body, limits) + 2)
        case Call(overload=Function(cost=cost)):
            return below if all(isinstance(one, Literal) for one in node.arguments) else below + cost
        case Compare(op="in", right=right) if not isinstance(right, ListOf):
            return below + (4 * _SCAN if right.type is DYN else _SCAN)
        case Compare(op="in", right=ListOf(items=items)):
            return below + 1 + len(items) // 4
        case Compare(left=left) if left.type.kind in ("list", "map", "dyn"):
            return below + _SCAN
    if node.type.kind == "list":  # its items are converted one by one
        item = getattr(node.type, "item", DYN)
        own += limits.list_items * 2 if item.kind in (*_CONVERSION, "int") else 1
    return below + own
