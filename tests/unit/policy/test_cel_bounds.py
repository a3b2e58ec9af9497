"""Nothing that can be written, and no data, keeps an evaluation busy or brings the process down."""

import contextlib
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.policy.cel import (
    BOOL,
    DYN,
    INT,
    STRING,
    Environment,
    EvaluationError,
    ExpressionError,
    Function,
    Limits,
    ListType,
    MapType,
    compile_expression,
    describe,
)
from tests.unit.policy.cel_scope import ENVIRONMENT, a_scope, compiled, result

PATIENCE = 3.0  # seconds; the longest evaluation there can be takes about a tenth of that here
WIDE = Environment(
    {"numbers": ListType(INT), "words": ListType(STRING), "more": MapType(STRING), "any": DYN, "text": STRING},
    {"slow": Function(arguments=(INT,), result=INT, call=lambda number: number, cost=10_000)},
)


WIDEST = SimpleNamespace(
    numbers=list(range(200)),
    words=tuple(f"word {number}" for number in range(200)),
    more={f"key {number}": "value" for number in range(200)},
    any=[[1] * 200] * 200,
    text="a" * 10_000,
)


def refused(source: str, environment: Environment = ENVIRONMENT) -> str:
    before = time.process_time()
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, environment, DYN)
    assert time.process_time() - before < PATIENCE
    (problem,) = caught.value.problems
    return problem.message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("+".join(["1"] * 16_000), "31999 characters; at most 2000"),
        ("+".join(["1"] * 900), "more than 60 operations in one chain"),
        ("1" + "-1" * 900, "more than 60 operations in one chain"),
        ("data" + ".x" * 900, "more than 60 operations in one chain"),
        ("data" + "[0]" * 600, "more than 60 operations in one chain"),
        ("'a'" + ".size()" * 200, "more than 60 operations in one chain"),
        ("(" * 200 + "1" + ")" * 200, "nested more than 30 levels"),
        ("(" * 1_999, "nested more than 30 levels"),
        ("[" * 200 + "]" * 200, "nested more than 30 levels"),
        ("!" * 1_000 + "true", "nested more than 30 levels"),
        ("-" * 1_000 + "n", "nested more than 30 levels"),
        ("true ? " * 150 + "1" + " : 1" * 150, "nested more than 30 levels"),
        ("true ? 1 : " * 150 + "1", "nested more than 30 levels"),
        ("size(" * 200 + "1" + ")" * 200, "nested more than 30 levels"),
        ("items.exists(a, items.exists(b, items.exists(c, true)))", "exists is nested more than 2 levels"),
        (" || ".join(["items.exists(a, true)"] * 5), "more than 4 of all, exists"),
        ("[" + ",".join(["1"] * 201) + "]", "a list holds at most 200 items"),
        ("'" + "a" * 1_990, "the string is not closed"),
    ],
)
def test_what_is_too_much_is_refused_before_it_runs(source: str, message: str) -> None:
    assert message in refused(source)


def test_what_is_just_within_the_bounds_runs() -> None:
    assert result("(" * 29 + "1" + ")" * 29) == 1
    assert result("+".join(["n"] * 60)) == 420
    assert result(" && ".join(["n == 7"] * 180), want=BOOL) is True
    assert result(" || ".join(["n == 8"] * 180), want=BOOL) is False
    assert result("true ? 1 : " * 29 + "1") == 1
    assert result("[" + ",".join(["n"] * 200) + "]") == [7] * 200
    assert result("size('" + "a" * 1_990 + "')") == 1_990


@pytest.mark.parametrize(
    "source",
    [
        "numbers.all(a, numbers.all(b, numbers.filter(c, c > 0) == null))",
        "words.all(a, words.all(b, a in words && b in words))",
        "words.all(a, words.all(b, text.contains(a)))",
        "numbers.all(a, numbers.all(b, slow(b) > 0))",
        "numbers.all(a, numbers.all(b, " + " || ".join(["a == b + 1"] * 100) + "))",
        "any.all(a, any.all(b, a == b))",
    ],
)
def test_what_could_take_long_with_long_lists_is_refused(source: str) -> None:
    assert "could take too long" in refused(source, WIDE) or "nested more than" in refused(source, WIDE)


@pytest.mark.parametrize(
    "source",
    [
        "numbers.all(a, numbers.all(b, a + b > -1))",
        "numbers.all(a, numbers.exists(b, a == b && b != 200))",
        "words.exists(a, words.exists(b, a + b == text))",
        "words.all(a, a in words && a in words) && words.exists(a, text.contains(a))",
        "numbers.map(a, numbers.map(b, a * b)) == null",
        "more.exists(key, more.exists(other, more[key] + more[other] == key))",
        "any.exists(a, a == any)",
    ],
)
def test_the_longest_evaluations_are_short(source: str) -> None:
    program = compile_expression(source, WIDE, BOOL)
    before = time.process_time()
    program(WIDEST)
    assert time.process_time() - before < PATIENCE


@pytest.mark.parametrize(
    "source",
    [
        "numbers.exists(a, numbers.exists(b, a / (b - b) == 1))",
        "numbers.all(a, numbers.all(b, a != 199 || b != 199 || a / 0 == 1))",
        "numbers.exists(a, numbers.exists(b, a / (b - b) == 1)) || true",
    ],
)
def test_errors_without_end_are_given_up(source: str) -> None:
    program = compile_expression(source, WIDE, BOOL)
    before = time.process_time()
    with pytest.raises(EvaluationError, match="more than 50000 steps"):
        program(WIDEST)
    assert time.process_time() - before < PATIENCE


def test_lists_maps_and_texts_in_data_are_bounded() -> None:
    too_much = SimpleNamespace(
        numbers=[1] * 201, more={str(number): "a" for number in range(201)}, any=[1] * 201, text="a" * 10_001
    )
    for source in [
        "size(numbers) == 1",
        "1 in numbers",
        "numbers.exists(a, a == 1)",
        "'a' in more",
        "more.exists(key, key == 'b')",
        "any.exists(a, a == 2)",
        "text.contains('b')",
        "text + 'b' == 'c'",
    ]:
        with pytest.raises(EvaluationError, match=r"more than 200|longer than 10000"):
            compile_expression(source, WIDE, BOOL)(too_much)


def test_results_are_bounded() -> None:
    for source in ["text + text", "words.map(w, text)[0] + 'a'", "numbers + numbers"]:
        with pytest.raises(EvaluationError, match=r"longer than 10000|more than 200"):
            compile_expression(source, WIDE, DYN)(WIDEST)


def test_limits_are_the_embedders() -> None:
    strict = Environment({"n": INT}, limits=Limits(length=10, nesting=2))
    assert "at most 10" in refused("n == 1 || n == 2", strict)
    assert "nested more than 2" in refused("(((n)))", strict)


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os')",
        "data.__class__.__init__",
        "n.__class__",
        "''.__class__",
        "s.data",
        "k0",
        "slow(1)",
        "every([1])",
        "run(1)",
        "items.exists(s, slow(s))",
        "eval('1')",
        "lambda: 1",
        "[x for x in [1]]",
        "(n := 1)",
        'f"{n}"',
        "n if n else n",
        "labels.get('a')",
    ],
)
def test_nothing_of_python_can_be_reached(source: str) -> None:
    with pytest.raises(ExpressionError):
        compiled(source)


@pytest.mark.parametrize("name", ["s", "k0", "v0", "t1", "slow", "run", "need", "Exception", "get", "class", "None_"])
def test_names_of_items_and_keys_do_not_meet_the_names_of_the_generated_code(name: str) -> None:
    source = f"[5].exists({name}, {name} == n - 2) && default(labels['{name}'], 'none') == 'none'"
    assert result(source, want=BOOL) is True


@pytest.mark.parametrize("text", ["'", '"', "\\\\", "\\n", "{}", "{0}", "%s", "\\u0000", "'''", "#"])
def test_a_text_is_never_read_as_code(text: str) -> None:
    written = text.replace('"', '\\"')
    scope = a_scope(labels={"a": "x"})
    assert result(f'labels["a"] == "{written}" || labels["{written}"] == null', scope, BOOL) is True


def test_data_nested_beyond_reason_fail_and_do_no_harm() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    other: Any = []
    for _ in range(100_000):
        other = [other]
    environment = Environment({"one": DYN, "other": DYN})

    with pytest.raises(EvaluationError, match="nested"):
        compile_expression("one == other", environment, BOOL)(SimpleNamespace(one=deep, other=other))


PIECES = [
    *"()[]?:.,!-+*/%<>=&|\"'\\{} \n",
    *("==", "!=", "<=", ">=", "&&", "||", " in ", "//", '"""', "r'", "0x", "1.", "e9", "９", "中", "\ud800", "\0"),
    *(
        "n",
        "data",
        "step",
        "items",
        "labels",
        "fields.loss_cny",
        "null",
        "true",
        "1",
        "9223372036854775807",
        '"severe"',
    ),
    *("has(", "exists(x, ", "map(x, ", "size(", "money(", "duration(", "default(", "max(", "matches(", "return", "and"),
]


@settings(max_examples=600, deadline=None)
@given(source=st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=25).map("".join)))
def test_whatever_is_written_is_either_a_program_or_told_to_be_wrong(source: str) -> None:
    try:
        program = compiled(source)
    except ExpressionError as error:
        told = error.problems
    else:
        assert describe(program, "en")
        assert describe(program, "zh")
        with contextlib.suppress(EvaluationError):
            program(a_scope())
        return
    lines = source.split("\n")
    assert told
    for problem in told:
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
