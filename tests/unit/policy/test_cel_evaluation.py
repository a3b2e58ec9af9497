"""Null, errors that are absorbed, data of the wrong form: what an evaluation makes of them."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from shared.money import Money
from shared.policy.cel import (
    BOOL,
    DATE,
    DURATION,
    DYN,
    INSTANT,
    INT,
    MONEY,
    STRING,
    Environment,
    EvaluationError,
    ExpressionError,
    Function,
    ListType,
    MapType,
    Program,
    RecordType,
    Type,
    compile_expression,
    compile_value,
)
from tests.unit.policy.cel_scope import ENVIRONMENT, SEVERITY, a_scope, result

EMPTY: dict[str, Any] = {
    "complaint": {},
    "data": {},
    "fields": {},
    "items": [],
    "seen": {},
    "labels": {},
    "previous": None,
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("fields.loss_cny == null", True),
        ("fields.loss_cny != null", False),
        ("null == fields.loss_cny", True),
        ("fields.loss_cny == money('0')", False),
        ("fields.loss_cny == fields.paid_cny", True),
        ("has(fields.loss_cny)", False),
        ("has(complaint.handler.unit)", False),
        ("complaint.handler.unit == null", True),
        ("complaint.handler.unit == 'ward-3'", False),
        ("previous.outcome == null", True),
        ("has(previous.outcome)", False),
        ("complaint.severity in ['simple', 'severe']", False),
        ("complaint.severity in [complaint.severity]", True),
        ("data.anything.deep == null", True),
        ("data.anything == 1", False),
        ("labels['x'] == 'y'", False),
        ("'x' in labels", False),
        ("complaint.anonymous == true", False),
        ("complaint.anonymous == false", False),
        ("default(data.count, 0) == 0", True),
        ("default(default(data.count, null), 5) == 5", True),
        ("(n > 1 ? null : 1) == null", True),
    ],
)
def test_what_is_missing_reads_as_null_and_can_be_compared(source: str, value: bool) -> None:
    assert result(source, a_scope(**EMPTY), BOOL) is value


@pytest.mark.parametrize("missing", [None, "absent"])
def test_a_null_field_and_an_absent_one_are_the_same(missing: str | None) -> None:
    fields = {} if missing else {"loss_cny": None}
    assert result("has(fields.loss_cny) || fields.loss_cny != null", a_scope(fields=fields)) is False


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("fields.loss_cny > money('1')", "fields.loss_cny has no value"),
        ("money('1') <= fields.loss_cny", "fields.loss_cny has no value"),
        ("data.count + 1 == 2", "data.count has no value"),
        ("-data.count == 2", "data.count has no value"),
        ("max(data.count, 1) == 2", "data.count has no value"),
        ("now - complaint.received_at > duration('1h')", "complaint.received_at has no value"),
        ("fields.note.startsWith('a')", "fields.note has no value"),
        ("fields.note + 'a' == 'a'", "fields.note has no value"),
        ("size(data.tags) == 0", "data.tags has no value"),
        ("'a' in data.tags", "data.tags has no value"),
        ("data.tags.exists(tag, tag == 'a')", "data.tags has no value"),
        ("data.tags[0] == 'a'", "data.tags has no value"),
        ("labels[fields.note] == 'a'", "fields.note has no value"),
        ("complaint.anonymous", "complaint.anonymous has no value"),
        ("!complaint.anonymous", "complaint.anonymous has no value"),
        ("complaint.anonymous && n == 7", "complaint.anonymous has no value"),
        ("complaint.anonymous ? true : false", "complaint.anonymous has no value"),
        ("data.anything > 3", "data.anything has no value"),
        ("[1].exists(x, data.count > x)", "data.count has no value"),
    ],
)
def test_working_with_null_fails_and_names_the_path(source: str, reason: str) -> None:
    with pytest.raises(EvaluationError, match=f"^{reason}$"):
        result(source, a_scope(**EMPTY), BOOL)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("data.count > 1 || true", True),
        ("true || data.count > 1", True),
        ("data.count > 1 && false", False),
        ("false && data.count > 1", False),
        ("data.count > 1 && n == 7 && n == 8", False),
        ("data.count > 1 || n == 8 || n == 7", True),
        ("(data.count > 1 || n == 7) && n == 7", True),
        ("!(data.count > 1 && n == 8)", True),
        ("(data.count > 1 && false) || n == 7", True),
        ("[0, 1].exists(x, 1 / x == 1)", True),
        ("[1, 0].exists(x, 1 / x == 1)", True),
        ("[0, 1].all(x, 1 / x == 2)", False),
        ("[0, 2].map(x, x).exists(y, data.count > 1 || y == 2)", True),
        ("n == 7 ? true : data.count > 1", True),
    ],
)
def test_an_error_is_absorbed_by_what_settles_the_matter(source: str, value: bool) -> None:
    assert result(source, a_scope(**EMPTY), BOOL) is value


@pytest.mark.parametrize(
    "source",
    [
        "data.count > 1 || false",
        "true && data.count > 1",
        "n == 8 || (data.count > 1 && n == 7)",
        "[0, 2].exists(x, 1 / x == 1)",
        "[0, 1].all(x, 1 / x == 1)",
        "[0, 1].exists_one(x, 1 / x == 1)",
        "size([0, 1].filter(x, 1 / x == 1)) == 1",
        "size([0, 1].map(x, 1 / x)) == 2",
        "data.count > 1 ? true : true",
    ],
)
def test_an_error_that_matters_is_raised(source: str) -> None:
    with pytest.raises(EvaluationError):
        result(source, a_scope(**EMPTY), BOOL)


def typed(kind: Type, value: Any) -> Any:
    """Read a value of one type through a program."""
    environment = Environment({"data": RecordType({"it": kind}, "data")})
    return compile_expression("data.it", environment, kind)(SimpleNamespace(data={"it": value}))


@pytest.mark.parametrize(
    ("kind", "value", "found"),
    [
        (MONEY, "480.00", 48000),
        (MONEY, "480", 48000),
        (MONEY, "-0.5", -50),
        (MONEY, Money(1250, "CNY"), 1250),
        (INSTANT, "2026-03-01T08:00:00+08:00", datetime(2026, 3, 1, tzinfo=UTC)),
        (INSTANT, "2026-03-01t00:00:00.123456z", datetime(2026, 3, 1, microsecond=123456, tzinfo=UTC)),
        (INSTANT, datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
        (DATE, "2026-03-01", date(2026, 3, 1)),
        (DATE, date(2026, 3, 1), date(2026, 3, 1)),
        (DURATION, "1h30m", timedelta(minutes=90)),
        (DURATION, "-1.5s", timedelta(seconds=-1.5)),
        (DURATION, "0", timedelta()),
        (DURATION, timedelta(1), timedelta(1)),
        (ListType(MONEY), ["1", None, "2.5"], [100, None, 250]),
        (ListType(ListType(INT)), ([1], [2, 3]), [[1], [2, 3]]),
        (MapType(MONEY), {"a": "1"}, {"a": "1"}),
        (INT, None, None),
    ],
)
def test_data_are_read_by_their_declared_type(kind: Type, value: Any, found: Any) -> None:
    assert typed(kind, value) == found


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (MONEY, 480),
        (MONEY, 480.0),
        (MONEY, "480.005"),
        (MONEY, "4e2"),
        (MONEY, "１００"),
        (MONEY, Money(1250, "JPY")),
        (INSTANT, "2026-04-02"),
        (INSTANT, "2026-03-01T08:00:00"),
        (INSTANT, "2026-02-30T08:00:00Z"),
        (INSTANT, datetime(2026, 3, 1)),  # noqa: DTZ001 - a naive datetime is what must be refused
        (INSTANT, date(2026, 3, 1)),
        (DATE, "2026-W10-1"),
        (DATE, "20260301"),
        (DATE, datetime(2026, 3, 1, tzinfo=UTC)),
        (DURATION, "soon"),
        (DURATION, ""),
        (DURATION, "-"),
        (DURATION, "1"),
        (DURATION, "1ns"),
        (DURATION, "999999999999w"),
        (DURATION, 90),
        (INT, "3"),
        (INT, 3.0),
        (INT, True),
        (BOOL, 1),
        (BOOL, "yes"),
        (STRING, 5),
        (ListType(STRING), "abc"),
        (ListType(INT), [1, "2"]),
        (ListType(MONEY), ["1", 2]),
        (MapType(INT), [1]),
    ],
)
def test_data_of_another_form_fail_and_the_value_is_not_told(kind: Type, value: Any) -> None:
    with pytest.raises(EvaluationError, match=r"^data\.it") as caught:
        typed(kind, value)
    assert str(value) not in str(caught.value) or len(str(value)) < 3


@pytest.mark.parametrize(
    ("source", "scope"),
    [
        ("data.count == 1", {"data": {"count": True}}),
        ("data.count > 1", {"data": {"count": "2"}}),
        ("data.tags.exists(tag, tag.contains('a'))", {"data": {"tags": [["a"]]}}),
        ("size(data.tags) == 3", {"data": {"tags": "abc"}}),
        ("items.exists(item, item.price > money('1'))", {"items": ["bed"]}),
        ("complaint.handler.unit == 'a'", {"complaint": {"handler": "ward-3"}}),
        ("complaint.handler.unit == 'a'", {"complaint": "x"}),
        ("data.anything > 1", {"data": {"anything": "a"}}),
        ("data.anything in [1, 2] && data.anything > 0", {"data": {"anything": True}}),
        ("now == timestamp('2026-03-01T00:00:00Z')", {"now": "yesterday"}),
    ],
)
def test_data_that_break_their_declaration_never_pass_silently(source: str, scope: dict[str, Any]) -> None:
    found: Any = None
    try:
        found = result(source, a_scope(**scope), BOOL)
    except EvaluationError:
        return
    assert found is False


def test_true_is_not_one() -> None:
    scope = a_scope(data={"anything": True})
    assert result("data.anything == 1", scope) is False
    assert result("data.anything in [1]", scope) is False
    assert result("data.anything == true", scope) is True


def test_a_function_of_the_embedder_sees_the_scope_and_may_take_null() -> None:
    environment = Environment(
        {"data": RecordType({"it": STRING, "amount": MONEY}, "data")},
        {
            "shown": Function(arguments=(STRING,), result=STRING, call=lambda text: text or "-", accepts_null=True),
            "found": Function(arguments=(), result=STRING, call=lambda: None, may_be_null=True, is_pure=False),
            "share": Function(arguments=(MONEY, STRING), result=MONEY, call=lambda m, p: m * int(p) // 100),
            "either": (
                Function(arguments=(INT,), result=INT, call=lambda number: number + 1),
                Function(arguments=(STRING,), result=STRING, call=lambda text: text + "!"),
            ),
        },
    )
    scope = SimpleNamespace(data={"amount": "10.00"})

    def value(source: str) -> Any:
        return compile_expression(source, environment, DYN)(scope)

    assert value("shown(data.it)") == "-"
    assert value("found() == null")
    assert value("share(data.amount, '30')") == 300
    assert (value("either(1)"), value("either('a')")) == (2, "a!")
    assert compile_expression("found().startsWith('a')", environment, BOOL).warnings
    with pytest.raises(EvaluationError, match="has no value"):
        value("share(data.amount, data.it)")
    with pytest.raises(EvaluationError, match="invalid literal"):
        value("share(data.amount, string(data.amount))")


def test_standard_functions_cannot_be_replaced() -> None:
    with pytest.raises(ValueError, match="size"):
        Environment({}, {"size": Function(arguments=(INT,), result=INT, call=abs)})


@pytest.mark.parametrize(
    ("value", "want", "found"),
    [
        ("severe", SEVERITY, "severe"),
        ("500.00", MONEY, 50000),
        (500, MONEY, 50000),
        ("24h", DURATION, timedelta(hours=24)),
        ("2026-03-01", DATE, date(2026, 3, 1)),
        ("2026-03-01T00:00:00Z", INSTANT, datetime(2026, 3, 1, tzinfo=UTC)),
        (7, INT, 7),
        (True, BOOL, True),
        ("text", STRING, "text"),
        (["1", "2"], ListType(MONEY), [100, 200]),
        ({"any": 1}, DYN, {"any": 1}),
        (None, MONEY, None),
    ],
)
def test_a_value_without_equals_sign_is_taken_literally(value: Any, want: Type, found: Any) -> None:
    assert compile_value(value, ENVIRONMENT, want) == found


@pytest.mark.parametrize(
    ("value", "want", "message", "suggestion"),
    [
        ("sever", SEVERITY, '"sever" is not a known severity', '"severe"'),
        (3, SEVERITY, "severity is expected", None),
        ("5,00", MONEY, "not an amount of CNY", None),
        (5.0, MONEY, 'an amount is written as text: "5.0"', None),
        (True, MONEY, "an amount is written as text", None),
        ("7", INT, "int is expected", None),
        (True, INT, "int is expected", None),
        ("yes", BOOL, "bool is expected", None),
        (24, DURATION, "duration is written as text", None),
        ("1", ListType(INT), "a list is expected", None),
    ],
)
def test_a_literal_of_the_wrong_form_is_refused(value: Any, want: Type, message: str, suggestion: str | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_value(value, ENVIRONMENT, want)
    (problem,) = caught.value.problems
    assert message in problem.message
    assert (problem.line, problem.column, problem.suggestion) == (1, 1, suggestion)


def test_a_value_with_equals_sign_is_an_expression_and_columns_count_the_sign() -> None:
    program = compile_value("= fields.loss_cny * 3", ENVIRONMENT, MONEY)
    assert isinstance(program, Program)
    assert program(a_scope()) == 144000
    assert program(a_scope(fields={"loss_cny": "1"})) == 300
    with pytest.raises(ExpressionError) as caught:
        compile_value("=fields.los_cny\n + fields.los", ENVIRONMENT, MONEY)
    assert [(one.line, one.column) for one in caught.value.problems] == [(1, 9), (2, 11)]


def test_a_computed_value_may_be_null_but_a_condition_may_not() -> None:
    assert result("fields.loss_cny", a_scope(fields={}), MONEY) is None
    with pytest.raises(EvaluationError, match=r"complaint\.anonymous has no value"):
        result("complaint.anonymous", a_scope(complaint={}), BOOL)
