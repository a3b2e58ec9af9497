"""Random well-typed expressions mean what they mean to an independent implementation of CEL, and nothing else.

The library `common-expression-language` (Rust) is the oracle. It knows neither our types nor our functions, counts the
bytes of a text, wraps around when it negates the least integer, and does not absorb errors inside `all` and `exists`;
these parts are kept out of its way.
"""

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import cel
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy.cel import (
    BOOL,
    DYN,
    INSTANT,
    INT,
    STRING,
    Environment,
    EvaluationError,
    ExpressionError,
    ListType,
    MapType,
    RecordType,
    compile_expression,
    describe,
)
from shared.policy.cel.evaluator import Evaluator
from shared.policy.cel.values import parse_instant

Text = st.SearchStrategy[str]

ENVIRONMENT = Environment(
    {
        "i": INT,
        "j": INT,
        "big": INT,
        "s": STRING,
        "b": BOOL,
        "numbers": ListType(INT),
        "words": ListType(STRING),
        "m": MapType(INT),
        "r": RecordType({"n": INT, "s": STRING, "b": BOOL, "gone": INT}, "r"),
        "any": DYN,
        "since": INSTANT,
        "until": INSTANT,
    }
)
WORDS = ["", "a", "b", "ab", "abc", "x y", "ward"]
numbers = st.sampled_from([0, 1, 2, 3, -1, -7, 10, 200])
instants = st.integers(0, 400_000).map(
    lambda minutes: parse_instant("2026-01-01T00:00:00Z") + timedelta(minutes=minutes)
)


@st.composite
def scopes(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "i": draw(numbers),
        "j": draw(numbers),
        "big": draw(st.sampled_from([2**63 - 1, -(2**63), 2**62, -(2**62) - 1])),
        "s": draw(st.sampled_from(WORDS)),
        "b": draw(st.booleans()),
        "numbers": draw(st.lists(numbers, max_size=4)),
        "words": draw(st.lists(st.sampled_from(WORDS), max_size=4)),
        "m": draw(st.fixed_dictionaries({"a": numbers}, optional={"b": numbers, "ab": numbers})),
        "r": {"n": draw(numbers), "s": draw(st.sampled_from(WORDS)), "b": draw(st.booleans())},
        "any": draw(st.one_of(numbers, st.booleans(), st.sampled_from(WORDS))),
        "since": draw(instants),
        "until": draw(instants),
    }


def quoted(text: str) -> str:
    return f'"{text}"'


def operation(operators: list[str], left: Text, right: Text) -> Text:
    return st.tuples(left, st.sampled_from(operators), right).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")


def choice(of: Text, condition: Text) -> Text:
    return st.tuples(condition, of, of).map(lambda parts: f"({parts[0]} ? {parts[1]} : {parts[2]})")


def expressions(depth: int, item: str | None = None) -> dict[str, Text]:
    """Strategies for the texts of expressions by type; `item` is the whole number a macro is at."""
    literal = st.integers(-5, 300).map(str)
    names = ["i", "j", "big", "r.n", 'm["a"]', "int(i)"] + ([item] * 4 if item else [])
    whole: Text = st.one_of(literal, st.sampled_from(names))
    text: Text = st.one_of(st.sampled_from(WORDS).map(quoted), st.sampled_from(["s", "r.s", 'r["s"]']))
    truth: Text = st.sampled_from(["true", "false", "b", "r.b", "has(r.n)", "has(r.gone)", "has(m.b)", '("b" in m)'])
    lists: Text = st.one_of(st.just("numbers"), st.lists(literal, max_size=3).map(lambda of: f"[{', '.join(of)}]"))
    instant: Text = st.sampled_from(["since", "until", 'timestamp("2026-03-01T08:00:00+08:00")'])
    length: Text = st.sampled_from(['duration("24h")', 'duration("90m")', 'duration("1h0.5s")', "(until - since)"])
    if not depth:
        return {"int": whole, "string": text, "bool": truth, "list": lists, "instant": instant, "duration": length}
    below = expressions(depth - 1, item)
    inner = expressions(0, "x")
    body = st.one_of(
        inner["bool"],
        operation(["==", "!=", "<", "<=", ">", ">="], inner["int"], inner["int"]),
        operation(["in"], inner["int"], inner["list"]),
    )
    macro = st.tuples(below["list"], st.sampled_from(["all", "exists", "exists_one"]), body)
    lookups = [below["int"], below["string"], below["bool"]]
    return {
        "int": st.one_of(
            whole,
            operation(["+", "-", "*", "/", "%"], below["int"], below["int"]),
            st.sampled_from(["-(i)", "-j", "--r.n", "-(-(7))"]),
            choice(below["int"], below["bool"]),
            st.tuples(st.sampled_from(["size(words)", "size(s)", "s.size()", "size(m)"])).map(lambda of: of[0]),
            below["list"].map(lambda of: f"size({of})"),
            st.tuples(below["list"], below["int"]).map(lambda of: f"{of[0]}[{of[1]}]"),
        ),
        "string": st.one_of(
            text, operation(["+"], below["string"], below["string"]), choice(below["string"], below["bool"])
        ),
        "bool": st.one_of(
            truth,
            *(operation(["==", "!="], of, of) for of in lookups),
            operation(["<", "<=", ">", ">="], below["int"], below["int"]),
            operation(["<", "<=", ">", ">="], below["string"], below["string"]),
            operation(["<", ">=", "==", "!="], below["instant"], below["instant"]),
            operation(["<", ">=", "==", "!="], below["duration"], below["duration"]),
            operation(["&&", "||"], below["bool"], below["bool"]),
            operation(["&&", "||"], below["bool"], below["bool"]),
            below["bool"].map(lambda of: f"!({of})"),
            choice(below["bool"], below["bool"]),
            operation(["in"], below["int"], below["list"]),
            operation(["in"], below["string"], st.just("words")),
            operation(["==", "!="], st.just("any"), st.one_of(lookups)),
            operation(["==", "!="], below["list"], below["list"]),
            st.tuples(below["string"], st.sampled_from(["startsWith", "endsWith", "contains"]), below["string"]).map(
                lambda of: f"{of[0]}.{of[1]}({of[2]})"
            ),
            macro.map(lambda of: f"{of[0]}.{of[1]}(x, {of[2]})"),
        ),
        "list": st.one_of(
            lists,
            operation(["+"], below["list"], below["list"]),
            st.tuples(below["list"], body).map(lambda of: f"{of[0]}.filter(x, {of[1]})"),
            st.tuples(below["list"], inner["int"]).map(lambda of: f"{of[0]}.map(x, {of[1]})"),
        ),
        "instant": st.one_of(instant, operation(["+", "-"], instant, length)),
        "duration": st.one_of(length, operation(["-"], instant, instant), operation(["+", "-"], length, length)),
    }


ANY = st.one_of(*(expressions(3)[kind] for kind in ("bool", "bool", "int", "string", "list")))
FAILED = "failed"


def ours(source: str, scope: dict[str, Any]) -> Any:
    try:
        return compile_expression(source, ENVIRONMENT, DYN)(SimpleNamespace(**scope))
    except EvaluationError:
        return FAILED
    except ExpressionError as error:
        # A constant that can only fail is told at publish; any other problem with these texts is a mistake of ours.
        return FAILED if "always fails" in str(error) else str(error)


def theirs(source: str, scope: dict[str, Any]) -> Any:
    try:
        return cel.compile(source).execute(scope)
    except Exception:  # its errors have no class in common
        return FAILED


def fits_all_limits(source: str) -> bool:
    return len(source) <= 2_000 and len(re.findall(r"\.(?:all|exists|exists_one|filter|map)\(", source)) <= 4


@settings(max_examples=150, deadline=None)
@given(source=ANY.filter(fits_all_limits), scope=scopes())
def test_an_expression_means_what_it_means_in_cel(source: str, scope: dict[str, Any]) -> None:
    expected, found = theirs(source, scope), ours(source, scope)
    assert found == expected, source
    assert isinstance(found, bool) == isinstance(expected, bool), source


@settings(max_examples=150, deadline=None)
@given(source=ANY.filter(fits_all_limits), scope=scopes(), data=st.data())
def test_generated_code_agrees_with_the_evaluator_whatever_the_data(
    source: str, scope: dict[str, Any], data: st.DataObject
) -> None:
    """Values are missing here, null or of another form than declared."""
    for name in data.draw(st.lists(st.sampled_from([*scope, "r.n", "r.b", "r.s", "m.a"]), unique=True, max_size=3)):
        owner, _, key = name.rpartition(".")
        where = scope[owner] if owner else scope
        if isinstance(where, dict):
            where[key] = data.draw(st.sampled_from([None, None, True, 5, "ab", [1], ["a"], {"n": 1}, [None]]))
    try:
        program = compile_expression(source, ENVIRONMENT, DYN)
    except ExpressionError:
        return
    values = SimpleNamespace(**scope)
    assert describe(program, "en")
    try:
        expected = Evaluator(ENVIRONMENT).evaluate(program.ast, values)
    except EvaluationError as error:
        expected = str(error)
        found: Any
        try:
            found = program(values)
        except EvaluationError as met:
            found = str(met)
        assert found == expected, source
        return
    assert program(values) == expected, source


def test_the_oracle_is_asked_about_errors_too() -> None:
    scope = {"i": 0, "b": True}
    assert theirs("1 / i == 1 || b", scope) is ours("1 / i == 1 || b", {**scope}) is True
    assert theirs("1 / i == 1 && b", scope) == ours("1 / i == 1 && b", {**scope}) == FAILED
