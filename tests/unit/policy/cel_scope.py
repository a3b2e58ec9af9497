"""The names and data that the tests of the condition language share."""

from types import SimpleNamespace
from typing import Any

from shared.policy.cel import (
    BOOL,
    DATE,
    DURATION,
    DYN,
    INSTANT,
    INT,
    MONEY,
    STRING,
    EnumType,
    Environment,
    EvaluationError,
    Function,
    ListType,
    MapType,
    Program,
    RecordType,
    Type,
    compile_expression,
)

SEVERITY = EnumType(("simple", "average", "severe"), "severity")
STEP = EnumType(("callback", "site_visit", "meeting"), "step")
CLOCK = EnumType(("reply", "sign_for"), "clock")


def clock_state(scope: Any, name: str) -> str:
    """A function of the embedder that looks at the scope."""
    found: str = scope.clocks[name]
    return found


def half(amount: int) -> int:
    if amount % 2:
        raise EvaluationError("cannot be halved")
    return amount // 2


ENVIRONMENT = Environment(
    {
        "complaint": RecordType(
            {
                "severity": SEVERITY,
                "received_at": INSTANT,
                "channel": STRING,
                "anonymous": BOOL,
                "handler": RecordType({"unit": STRING, "level": INT}, "handler"),
            },
            "complaint",
            frozenset({"received_at", "channel"}),
        ),
        "data": RecordType(
            {"step": STEP, "count": INT, "tags": ListType(STRING), "anything": DYN, "done_on": DATE, "took": DURATION},
            "data",
        ),
        "fields": RecordType(
            {"loss_cny": MONEY, "paid_cny": MONEY, "parts": ListType(MONEY), "note": STRING}, "fields"
        ),
        "items": ListType(RecordType({"name": STRING, "price": MONEY, "tags": ListType(STRING)}, "item")),
        "seen": MapType(INT, is_total=True),
        "labels": MapType(STRING),
        "now": INSTANT,
        "n": INT,
        "previous": RecordType({"outcome": STRING}, "previous"),
    },
    {
        "state_of": Function(arguments=(CLOCK,), result=STRING, call=clock_state, takes_scope=True),
        "half": Function(arguments=(MONEY,), result=MONEY, call=half),
    },
    optional=frozenset({"previous"}),
)


def a_scope(**changes: Any) -> SimpleNamespace:
    """A complaint with everything filled in, except what the caller changes."""
    values: dict[str, Any] = {
        "complaint": {
            "severity": "severe",
            "received_at": "2026-03-02T09:00:00+08:00",
            "channel": "phone",
            "anonymous": False,
            "handler": {"unit": "ward-3", "level": 2},
        },
        "data": {
            "step": "callback",
            "count": 3,
            "tags": ["injury", "delay"],
            "anything": {"deep": [1, "two"]},
            "done_on": "2026-03-05",
            "took": "90m",
        },
        "fields": {"loss_cny": "480.00", "paid_cny": "500", "parts": ["1.50", "2.25"], "note": "seen by ward 3"},
        "items": [
            {"name": "bed", "price": "300.00", "tags": ["big"]},
            {"name": "lamp", "price": "20.00", "tags": []},
        ],
        "seen": {"step:callback": 2},
        "labels": {"zone": "north"},
        "now": "2026-03-05T00:00:00Z",
        "n": 7,
        "previous": {"outcome": "upheld"},
        "clocks": {"reply": "running", "sign_for": "met"},
    }
    return SimpleNamespace(**{**values, **changes})


def compiled(source: str, want: Type = DYN) -> Program:
    return compile_expression(source, ENVIRONMENT, want)


def result(source: str, scope: Any = None, want: Type = DYN) -> Any:
    """The value of an expression for the given scope, or else a complete one."""
    return compiled(source, want)(a_scope() if scope is None else scope)
