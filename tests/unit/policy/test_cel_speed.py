"""How long conditions take, printed (`pytest -s`) and not asserted: the machine is not ours alone."""

import sys
import time
from collections.abc import Callable
from functools import partial

import cel

from shared.policy.cel import BOOL
from tests.unit.policy.cel_scope import a_scope, compiled

CONDITIONS = [
    'data.step == "callback" && complaint.severity in ["simple", "severe"]',
    "n > 5 && fields.loss_cny != null && fields.loss_cny > money('100.00')",
    "now - complaint.received_at > duration('24h') || n == 3",
    "data.tags.exists(tag, tag == 'delay')",
    "data.anything.missing > 1 || n == 7",
]


def microseconds(call: Callable[[], object], times: int) -> float:
    """Return the fastest of three rounds, in processor time for one call."""
    best = float("inf")
    for _ in range(3):
        before = time.process_time()
        for _ in range(times):
            call()
        best = min(best, time.process_time() - before)
    return best / times * 1e6


def test_how_long_conditions_take() -> None:
    scope = a_scope()
    by_hand = microseconds(
        lambda: scope.data.get("step") == "callback" and scope.complaint.get("severity") in ("simple", "severe"), 5_000
    )
    lines = [f"{'by hand, in Python':<72}{by_hand:6.2f} us"]
    for source in CONDITIONS:
        run = compiled(source, BOOL).run
        assert run(scope) is True
        used = microseconds(partial(run, scope), 2_000)
        check = microseconds(partial(compiled, source, BOOL), 200)
        lines.append(f"{source:<72}{used:6.2f} us; check {check:4.0f} us")
    values = {"data": scope.data, "complaint": scope.complaint}
    program, context = cel.compile(CONDITIONS[0]), cel.Context(values)
    library = microseconds(lambda: program.execute(context), 2_000)
    with_context = microseconds(lambda: program.execute(cel.Context(values)), 2_000)
    lines.append(f"{'the library, first condition':<72}{library:6.2f} us; with a new context {with_context:.2f} us")
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
